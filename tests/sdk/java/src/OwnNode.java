import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** A node of the test's own that it may kill and start again on the same port. */
final class OwnNode implements AutoCloseable {
    private final Settings settings;
    private Process process;
    final int port;

    OwnNode(Settings settings) throws Exception {
        this.settings = settings;
        try (ServerSocket probe = new ServerSocket(0)) {
            port = probe.getLocalPort();
        }
        run();
    }

    void run() throws Exception {
        Settings.App app = settings.apps.get("everything");
        process = new ProcessBuilder(settings.binary, "serve", "--host", settings.host, "--port", String.valueOf(port),
                "--app", app.id + ":" + app.key + ":" + app.secret)
            .directory(Path.of(settings.folder).toFile())
            .redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (!accepts()) {
            if (!process.isAlive() || System.nanoTime() > deadline) {
                throw new AssertionError("the node does not accept on port " + port);
            }
            TimeUnit.MILLISECONDS.sleep(20); // Refused at once while it starts: ask again.
        }
    }

    private boolean accepts() {
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(settings.host, port), 1000);
            return true;
        } catch (IOException refused) {
            return false;
        }
    }

    /** Ends it as a crash would. */
    @Override
    public void close() throws InterruptedException {
        process.destroyForcibly().waitFor(10, TimeUnit.SECONDS);
    }
}
