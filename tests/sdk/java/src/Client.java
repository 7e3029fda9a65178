import com.pusher.client.Pusher;
import com.pusher.client.PusherOptions;
import com.pusher.client.channel.PresenceChannelEventListener;
import com.pusher.client.channel.PrivateEncryptedChannelEventListener;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.channel.User;
import com.pusher.client.connection.ConnectionEventListener;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.ConnectionStateChange;
import com.pusher.rest.data.PresenceUser;
import java.util.Set;

/** A client of the Java SDK that writes down everything it is told. */
final class Client implements ConnectionEventListener, AutoCloseable {
    final Inbox<ConnectionState> states = new Inbox<>("a state of the connection");
    final Inbox<String> errors = new Inbox<>("an error of the connection");
    final Pusher sdk;

    /** What a test may want different from the usual. */
    static final class Wishes {
        String app = "everything";
        String key;
        int port;
        long activityTimeoutMs = 120_000;
        PresenceUser user;
        com.pusher.rest.Pusher signer;
    }

    Client(Settings settings, Wishes wishes) {
        int port = wishes.port == 0 ? settings.port : wishes.port;
        com.pusher.rest.Pusher signer = wishes.signer == null ? settings.server(wishes.app) : wishes.signer;
        PusherOptions options = new PusherOptions().setHost(settings.host).setWsPort(port).setUseTLS(false)
            .setActivityTimeout(wishes.activityTimeoutMs)
            .setChannelAuthorizer((channel, socketId) -> channel.startsWith("presence-")
                ? signer.authenticate(socketId, channel, wishes.user)
                : signer.authenticate(socketId, channel));
        sdk = new Pusher(wishes.key == null ? settings.apps.get(wishes.app).key : wishes.key, options);
        sdk.connect(this, ConnectionState.ALL);
    }

    /** Waits until the connection is established. */
    Client connected() throws InterruptedException {
        states.first(state -> state == ConnectionState.CONNECTED);
        return this;
    }

    String socketId() {
        return sdk.getConnection().getSocketId();
    }

    /** Subscribes by the call that the kind of channel wants, and waits for the answer. */
    Heard join(String name, String... events) throws InterruptedException {
        Heard heard = ask(name, events);
        heard.succeeded.next();
        return heard;
    }

    /** Subscribes without waiting. */
    Heard ask(String name, String... events) {
        Heard heard = new Heard(name);
        if (name.startsWith("private-encrypted-")) {
            sdk.subscribePrivateEncrypted(name, heard, events);
        } else if (name.startsWith("private-")) {
            sdk.subscribePrivate(name, heard, events);
        } else if (name.startsWith("presence-")) {
            sdk.subscribePresence(name, heard, events);
        } else {
            sdk.subscribe(name, heard, events);
        }
        return heard;
    }

    @Override
    public void onConnectionStateChange(ConnectionStateChange change) {
        states.put(change.getCurrentState());
    }

    @Override
    public void onError(String message, String code, Exception problem) {
        errors.put(code + " " + message + (problem == null ? "" : " " + problem));
    }

    @Override
    public void close() {
        sdk.disconnect();
    }

    /** What one channel heard. */
    static final class Heard implements PresenceChannelEventListener, PrivateEncryptedChannelEventListener {
        final Inbox<String> succeeded;
        final Inbox<PusherEvent> events;
        final Inbox<Set<User>> rosters;
        final Inbox<String> changes;
        final Inbox<String> failures;

        Heard(String name) {
            succeeded = new Inbox<>("subscription_succeeded of " + name);
            events = new Inbox<>("an event of " + name);
            rosters = new Inbox<>("the roster of " + name);
            changes = new Inbox<>("a change of the roster of " + name);
            failures = new Inbox<>("a failure of " + name);
        }

        @Override
        public void onSubscriptionSucceeded(String channel) {
            succeeded.put(channel);
        }

        @Override
        public void onEvent(PusherEvent event) {
            events.put(event);
        }

        @Override
        public void onUsersInformationReceived(String channel, Set<User> users) {
            rosters.put(users);
        }

        @Override
        public void userSubscribed(String channel, User user) {
            changes.put("+" + user.getId() + " " + user.getInfo());
        }

        @Override
        public void userUnsubscribed(String channel, User user) {
            changes.put("-" + user.getId());
        }

        @Override
        public void onAuthenticationFailure(String message, Exception problem) {
            failures.put("authentication: " + message);
        }

        @Override
        public void onDecryptionFailure(String event, String reason) {
            failures.put("decryption: " + reason);
        }

        @Override
        public void onError(String message, Exception problem) {
            failures.put("error: " + message);
        }
    }
}
