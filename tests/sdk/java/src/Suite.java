import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.connection.ConnectionState;
import com.pusher.rest.Pusher;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Result;
import com.pusher.rest.data.Validity;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Consumer;
import java.util.stream.Collectors;

/**
 * What Java and Android applications see: the WebSocket client (protocol 5) and the server library against a running
 * node. Prints one PASS or FAIL line per test for {@code tests/sdk/run}. An exception that nobody caught on any thread
 * of the SDK fails the test during which it came: on Android it would end the application.
 */
public final class Suite {
    private interface Body {
        void run() throws Exception;
    }

    private final ConcurrentLinkedQueue<Throwable> uncaught = new ConcurrentLinkedQueue<>();
    private final List<AutoCloseable> open = new ArrayList<>();
    private final Settings settings;
    private final Pusher server;
    private int failed;

    private Suite() throws Exception {
        settings = Settings.read();
        server = settings.server("everything");
        Thread.setDefaultUncaughtExceptionHandler((thread, problem) -> uncaught.add(problem));
    }

    public static void main(String[] arguments) throws Exception {
        Suite suite = new Suite();
        suite.client();
        suite.refusals();
        suite.life();
        suite.serverLibrary();
        suite.webhooks();
        System.out.flush();
        System.exit(suite.failed == 0 ? 0 : 1); // The SDK's threads would hold the process for a while.
    }

    private void client() {
        // WS-3, WS-18, WS-19
        test("a client of protocol 5 connects and learns its socket id", () -> {
            String id = connect().socketId();
            check(id.matches("\\d+\\.\\d+"), id);
        });
        // WS-65: the server library writes every value as JSON, strings with quotes.
        test("every kind of data arrives as it was published", () -> {
            String name = Settings.unique("data");
            Client.Heard heard = connect().join(name, "App\\Events\\Sent");
            Gson gson = new GsonBuilder().disableHtmlEscaping().create();
            List<Object> all = List.of("plain", "", "Zoë ☃ 🦉 <b> \u2028 \"\\/", "x".repeat(10_238), 5,
                List.of(1, "two"), Map.of("k", "é"));
            for (Object sent : all) {
                accepted(server.trigger(name, "App\\Events\\Sent", sent));
                PusherEvent event = heard.events.next();
                same(gson.toJson(sent), event.getData());
                same(name, event.getChannelName());
                same(null, event.getUserId());
            }
        });
        // WS-66, WS-67
        test("several channels in one call, sparing one connection", () -> {
            Client sender = connect();
            Client other = connect();
            List<String> names = List.of(Settings.unique("multi"), Settings.unique("multi"));
            List<Client.Heard> own = new ArrayList<>();
            List<Client.Heard> theirs = new ArrayList<>();
            for (String name : names) {
                own.add(sender.join(name, "event"));
                theirs.add(other.join(name, "event"));
            }
            accepted(server.trigger(names, "event", "for others", sender.socketId()));
            accepted(server.trigger(names, "event", "for all"));
            for (int i = 0; i < names.size(); i++) {
                same("\"for all\"", own.get(i).events.next().getData());
                same("\"for others\"", theirs.get(i).events.next().getData());
                same("\"for all\"", theirs.get(i).events.next().getData());
            }
        });
        // HTTP-34
        test("a batch arrives in order", () -> {
            String name = Settings.unique("batch");
            Client.Heard heard = connect().join(name, "event");
            List<Integer> numbers = List.of(1, 2, 3);
            List<Event> batch = numbers.stream().map(n -> new Event(name, "event", n)).collect(Collectors.toList());
            accepted(server.trigger(batch));
            for (Integer n : numbers) {
                same(n.toString(), heard.events.next().getData());
            }
        });
        // WS-60, WS-62
        test("leaving and coming back leaves one subscription", () -> {
            String name = Settings.unique("revolving");
            Client client = connect();
            for (int round = 0; round < 3; round++) {
                Client.Heard heard = client.join(name, "event");
                accepted(server.trigger(name, "event", round));
                accepted(server.trigger(name, "event", "fence"));
                same(String.valueOf(round), heard.events.next().getData());
                same("\"fence\"", heard.events.next().getData());
                client.sdk.unsubscribe(name);
            }
        });
        // WS-78, WS-80, WS-82, WS-83
        test("members come and go, with a numeric id as text", () -> {
            String name = Settings.unique("presence");
            Client ana = connect(wishes -> wishes.user = new PresenceUser("ana", Map.of("name", "Ana ☃")));
            Client.Heard seen = ana.join(name);
            same(Set.of("ana"), ids(seen));
            same("{\"name\":\"Ana ☃\"}", ana.sdk.getPresenceChannel(name).getMe().getInfo());
            Client seven = connect(wishes -> wishes.user = new PresenceUser(7));
            same(Set.of("7", "ana"), ids(seven.join(name)));
            same("+7 null", seen.changes.next());
            Client again = connect(wishes -> wishes.user = new PresenceUser(7));
            again.join(name);
            again.close();
            seven.close();
            same("-7", seen.changes.next());
            same(1, ana.sdk.getPresenceChannel(name).getUsers().size());
        });
        // WS-92, WS-95, T-7
        for (String prefix : List.of("cache", "private-cache", "presence-cache", "private-encrypted-cache")) {
            test(prefix + ": a miss first, then the last event for those who come late", () -> {
                String name = Settings.unique(prefix);
                Consumer<Client.Wishes> user = wishes -> wishes.user = new PresenceUser("ana");
                Client.Heard first = connect(user).ask(name, "pusher:cache_miss", "event");
                same("pusher:cache_miss", first.events.next().getEventName());
                accepted(server.trigger(name, "event", Map.of("n", 1)));
                same("{\"n\":1}", first.events.next().getData());
                Client.Heard late = connect(user).ask(name, "pusher:cache_miss", "event");
                PusherEvent kept = late.events.next();
                same("event {\"n\":1}", kept.getEventName() + " " + kept.getData());
            });
        }
        // WS-91, WS-96, WS-97, T-5, T-6
        test("an encrypted channel in an app with subscription counts: events are opened and nothing crashes", () -> {
            String name = Settings.unique("private-encrypted");
            Client.Heard first = connect().join(name, "event", "pusher:subscription_count");
            Client second = connect();
            second.join(name);
            second.sdk.unsubscribe(name);
            accepted(server.trigger(name, "event", Map.of("secret", "Zoë")));
            same("event {\"secret\":\"Zoë\"}", nameAndData(first.events.next()));
        });
        // WS-88, WS-89
        test("subscribers of other channels are told how many they are", () -> {
            String name = Settings.unique("counted");
            Client.Heard first = connect().join(name, "pusher:subscription_count");
            same("{\"subscription_count\":1}", first.events.next().getData());
            connect().join(name);
            same("{\"subscription_count\":2}", first.events.next().getData());
        });
        // WS-69, WS-73, WS-74
        test("client events go out as strings and arrive as they were, with the sender's id", () -> {
            String name = Settings.unique("presence-chat");
            Client ana = connect(wishes -> wishes.user = new PresenceUser(7));
            Client bob = connect(wishes -> wishes.user = new PresenceUser("bob"));
            ana.join(name);
            Client.Heard heard = bob.join(name, "client-said");
            ana.sdk.getPresenceChannel(name).trigger("client-said", "{\"text\": \"Zoë\"}");
            PusherEvent event = heard.events.next();
            same("{\"text\": \"Zoë\"}", event.getData());
            same("7", event.getUserId());
        });
    }

    private void refusals() {
        // WS-5, WS-11
        test("an unknown key is told 4001 and the client stops", () -> {
            Client client = open(wishes -> wishes.key = "key-of-nobody");
            client.errors.first(error -> error.startsWith("4001 "));
            client.states.first(state -> state == ConnectionState.DISCONNECTED);
        });
        // WS-55, WS-57
        for (String prefix : List.of("private-forged", "presence-forged", "private-encrypted-forged")) {
            test("a wrong signature on " + prefix + " is an error of the connection, which goes on", () -> {
                Pusher forger = settings.forger("everything");
                Client client = connect(wishes -> {
                    wishes.signer = forger;
                    wishes.user = new PresenceUser("ana");
                });
                client.ask(Settings.unique(prefix));
                client.errors.first(error -> error.startsWith("null Invalid signature"));
                client.join(Settings.unique("public-after"));
            });
        }
        // WS-75
        test("more than ten client events in a second are told 4301", () -> {
            String name = Settings.unique("private-flood");
            Client client = connect();
            client.join(name);
            for (int i = 0; i < 30; i++) {
                client.sdk.getPrivateChannel(name).trigger("client-n", "{}");
            }
            client.errors.first(error -> error.startsWith("4301 "));
            client.join(Settings.unique("after-the-flood"));
        });
        // WS-70
        test("an app without client events says so", () -> {
            String name = Settings.unique("private-mute");
            Client client = connect(wishes -> wishes.app = "plain");
            client.join(name);
            client.sdk.getPrivateChannel(name).trigger("client-said", "{}");
            client.errors.first(error -> error.startsWith("null To send client events"));
        });
    }

    private void life() {
        // WS-33, WS-36, WS-37, T-14
        test("neither a silent client nor one that pings is dropped by a node with little patience", () -> {
            Client silent = connect(wishes -> wishes.port = settings.brisk_port);
            Client pinging = connect(wishes -> {
                wishes.port = settings.brisk_port;
                wishes.activityTimeoutMs = 1000;
            });
            // The node pings after 2 s and would close 2 s later; there is nothing to wait for but its not happening.
            same(null, silent.states.within(5000));
            same(null, pinging.states.within(1));
            String name = Settings.unique("still-here");
            Client.Heard heard = silent.join(name, "event");
            pinging.join(name);
            accepted(settings.server("everything", settings.brisk_port).trigger(name, "event", "x"));
            heard.events.next();
        });
        // WS-63
        test("after a crash and restart of the node the client is back with its channels", () -> {
            OwnNode node = new OwnNode(settings);
            open.add(node);
            Client client = connect(wishes -> {
                wishes.port = node.port;
                wishes.user = new PresenceUser("ana");
            });
            String before = client.socketId();
            String name = Settings.unique("presence-restart");
            Client.Heard heard = client.join(name, "event");
            node.close();
            node.run();
            heard.succeeded.next();
            check(!before.equals(client.socketId()), "a new socket id");
            accepted(settings.server("everything", node.port).trigger(name, "event", "again"));
            same("\"again\"", heard.events.next().getData());
        });
    }

    private void webhooks() {
        if (settings.hooks == null) {
            System.out.println("SKIP the Java library takes every webhook (nobody captured any: node is not installed)");
            return;
        }
        // HOOK-2
        test("the Java library takes every webhook", () -> {
            for (Settings.Captured request : settings.hooks.captured) {
                String key = request.headers.get("x-pusher-key");
                String signature = request.headers.get("x-pusher-signature");
                same(Validity.VALID, server.validateWebhookSignature(key, signature, request.body));
                same(Validity.INVALID, server.validateWebhookSignature(key, signature, request.body + " "));
            }
        });
    }

    private void serverLibrary() {
        // HTTP-12, HTTP-36, HTTP-37, HTTP-39, HTTP-41
        test("queries answer with escaped parameters", () -> {
            String name = Settings.unique("presence-query;a=b");
            connect(wishes -> wishes.user = new PresenceUser(7)).join(name);
            Map<String, String> both = Map.of("filter_by_prefix", name, "info", "user_count,subscription_count");
            JsonObject list = answer(server.get("/channels", both)).getAsJsonObject("channels");
            same("{\"subscription_count\":1,\"user_count\":1}", sorted(list.getAsJsonObject(name)));
            JsonObject one = answer(server.get("/channels/" + name, Map.of("info", "user_count")));
            same("{\"occupied\":true,\"user_count\":1}", sorted(one));
            same("{\"users\":[{\"id\":\"7\"}]}", sorted(answer(server.get("/channels/" + name + "/users"))));
            Map<String, String> nothing = Map.of("filter_by_prefix", "nothing-begins-so");
            same("{\"channels\":{}}", sorted(answer(server.get("/channels", nothing))));
        });
        // HTTP-19, HTTP-23, HTTP-25, HTTP-46
        test("refusals are the statuses of the library", () -> {
            Result wrong = settings.forger("everything").trigger("c", "event", "x");
            refused(wrong, 401, Result.Status.AUTHENTICATION_ERROR, "Invalid signature: you should have sent");
            Result reserved = server.trigger("c", "pusher:event", "x");
            refused(reserved, 400, Result.Status.CLIENT_ERROR, "'pusher' namespace is reserved");
            refused(server.trigger("c", "event", "x".repeat(10_239)), 413, null, "10240");
            refused(settings.server("disabled").trigger("c", "event", "x"), 403, null, "");
            refused(server.get("/channels/not-presence/users"), 400, Result.Status.CLIENT_ERROR, "");
        });
    }

    // ------------------------------------------------------------------------------------------------ the harness

    private void test(String name, Body body) {
        uncaught.clear();
        Throwable problem = null;
        try {
            body.run();
        } catch (Throwable thrown) {
            problem = thrown;
        }
        for (AutoCloseable each : open) {
            try {
                each.close();
            } catch (Exception ignored) {
                // It is being thrown away; what it did before is what is tested.
            }
        }
        open.clear();
        problem = problem == null ? uncaught.poll() : problem;
        System.out.println((problem == null ? "PASS " : "FAIL ") + name);
        if (problem != null) {
            failed++;
            problem.printStackTrace(System.out);
            uncaught.forEach(other -> other.printStackTrace(System.out));
        }
    }

    private Client open(Consumer<Client.Wishes> change) {
        Client.Wishes wishes = new Client.Wishes();
        change.accept(wishes);
        Client client = new Client(settings, wishes);
        open.add(client);
        return client;
    }

    private Client connect(Consumer<Client.Wishes> change) throws InterruptedException {
        return open(change).connected();
    }

    private Client connect() throws InterruptedException {
        return connect(wishes -> { });
    }

    private static Set<String> ids(Client.Heard heard) throws InterruptedException {
        Set<String> ids = new TreeSet<>();
        heard.rosters.next().forEach(user -> ids.add(user.getId()));
        return ids;
    }

    private static String nameAndData(PusherEvent event) {
        return event.getEventName() + " " + event.getData();
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static void same(Object expected, Object actual) {
        check(Objects.equals(expected, actual), "expected " + expected + " but got " + actual);
    }

    private static void accepted(Result result) {
        check(result.getStatus() == Result.Status.SUCCESS, result.getHttpStatus() + " " + result.getMessage());
    }

    private static JsonObject answer(Result result) {
        accepted(result);
        return JsonParser.parseString(result.getMessage()).getAsJsonObject();
    }

    /** An object's text with its members by name, so that their order on the wire does not matter. */
    private static String sorted(JsonObject object) {
        JsonObject copy = new JsonObject();
        new TreeSet<>(object.keySet()).forEach(key -> copy.add(key, object.get(key)));
        return copy.toString();
    }

    private static void refused(Result result, int httpStatus, Result.Status status, String part) {
        same(httpStatus, result.getHttpStatus());
        check(status == null || status == result.getStatus(), "status " + result.getStatus());
        check(result.getMessage().contains(part), result.getMessage());
    }
}
