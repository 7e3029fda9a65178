import com.google.gson.Gson;
import com.pusher.rest.Pusher;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;

/** What the suite knows about the nodes under test. */
final class Settings {
    /** The credentials of one app. */
    static final class App {
        String id;
        String key;
        String secret;
    }

    /** Webhooks that a node sent moments ago. */
    static final class Hooks {
        List<Captured> captured;
    }

    /** One request. */
    static final class Captured {
        Map<String, String> headers;
        String body;
    }

    private static final AtomicInteger NAMES = new AtomicInteger();

    String binary;
    String folder;
    String host;
    int port;
    int brisk_port;
    Map<String, App> apps;
    Hooks hooks;

    static Settings read() throws IOException {
        return new Gson().fromJson(Files.readString(Path.of(System.getenv("FULMAR_SDK_SETTINGS"))), Settings.class);
    }

    /** A channel name that no other test uses. */
    static String unique(String prefix) {
        return prefix + "-java-" + ProcessHandle.current().pid() + "-" + NAMES.incrementAndGet();
    }

    /** The customer's server at a port, with the master key of the encrypted channels. */
    Pusher server(String app, int port) {
        return server(apps.get(app), apps.get(app).secret, port);
    }

    Pusher server(String app) {
        return server(app, port);
    }

    /** Somebody who knows everything of the app but its secret. */
    Pusher forger(String app) {
        return server(apps.get(app), "a secret that nobody configured", port);
    }

    private Pusher server(App of, String secret, int at) {
        Pusher server = new Pusher(of.id, of.key, secret, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        server.setHost(host + ":" + at);
        return server;
    }
}
