import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/** Collects what callbacks bring and hands it out in order, within a deadline. */
final class Inbox<T> {
    private static final long DEADLINE_S = 10;

    private final String name;
    private final BlockingQueue<T> items = new LinkedBlockingQueue<>();

    Inbox(String name) {
        this.name = name;
    }

    void put(T item) {
        items.add(item);
    }

    T next() throws InterruptedException {
        T item = items.poll(DEADLINE_S, TimeUnit.SECONDS);
        if (item == null) {
            throw new AssertionError("not within " + DEADLINE_S + " s: " + name);
        }
        return item;
    }

    /** The next item that fits; those before it are passed over. */
    T first(Predicate<T> fits) throws InterruptedException {
        T item = next();
        while (!fits.test(item)) {
            item = next();
        }
        return item;
    }

    List<T> take(int count) throws InterruptedException {
        List<T> taken = new ArrayList<>();
        while (taken.size() < count) {
            taken.add(next());
        }
        return taken;
    }

    /** What came within this time, or null: for proving that nothing does. */
    T within(long milliseconds) throws InterruptedException {
        return items.poll(milliseconds, TimeUnit.MILLISECONDS);
    }
}
