// What a Laravel front end sees: laravel-echo over pusher-js, with names as Laravel's broadcaster publishes them.
"use strict";

const assert = require("node:assert/strict");
const { before, describe, test } = require("node:test");
const Pusher = require("pusher-js");
const { apps, unique } = require("../support/fulmar");
const { Inbox } = require("../support/waiting");
const { forgerFor, optionsFor, serverFor } = require("../support/clients");

const server = serverFor();
let Echo;

before(async () => {
  ({ default: Echo } = await import("laravel-echo")); // Its CommonJS file does not load in Node.
});

/** A connected Echo that ends with the test. */
async function echo(t, { broadcaster = "pusher", ...rest } = {}) {
  const { cluster, ...options } = optionsFor(rest);
  const key = (rest.app ?? apps.everything).key;
  const made = new Echo({ broadcaster, key, Pusher, ...(broadcaster === "pusher" ? { cluster } : {}), ...options });
  t.after(() => made.disconnect());
  const states = new Inbox("a state of Echo's connection");
  made.connector.pusher.connection.bind("state_change", ({ current }) => states.put(current));
  await states.first((state) => state === "connected");
  return made;
}

/** Waits until the channel is joined. */
async function joined(channel) {
  const inbox = new Inbox(`subscription of ${channel.name}`);
  channel.subscribed(() => inbox.put(true));
  await inbox.next();
  return channel;
}

const listen = (channel, event) => {
  const inbox = new Inbox(`${event} on ${channel.name}`);
  channel.listen(event, inbox.push);
  return inbox;
};

describe("laravel-echo", { concurrency: true }, () => {
  for (const broadcaster of ["pusher", "reverb"]) {
    // HTTP-23, WS-65, T-38
    test(`an event class of Laravel is heard under its short name (${broadcaster})`, async (t) => {
      const channel = await joined((await echo(t, { broadcaster })).channel(unique("orders")));
      const [short, dotted] = [listen(channel, "OrderShipped"), listen(channel, ".order.shipped")];
      await server.trigger(channel.name, "App\\Events\\OrderShipped", { order: { id: 7, note: "Füße ☃" } });
      assert.deepEqual(await short.next(), { order: { id: 7, note: "Füße ☃" } });
      await server.trigger(channel.name, "order.shipped", { id: 8 });
      assert.deepEqual(await dotted.next(), { id: 8 });
    });
  }

  // WS-50
  test("a private channel hears notifications and listenToAll hears everything", async (t) => {
    const channel = await joined((await echo(t)).private(unique("App.Models.User.7")));
    const [notes, all] = [new Inbox("a notification"), new Inbox("any event")];
    channel.notification(notes.push);
    channel.listenToAll((event, data) => all.put([event, data]));
    const name = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated";
    await server.trigger(channel.name, name, { type: "Paid" });
    assert.deepEqual(await notes.next(), { type: "Paid" });
    assert.deepEqual(await all.first(([event]) => event.includes("Broadcast")), [
      ".Illuminate\\Notifications\\Events\\BroadcastNotificationCreated",
      { type: "Paid" },
    ]);
  });

  // WS-57
  test("a refused private channel calls error()", async (t) => {
    const channel = (await echo(t, { authorize: forgerFor(apps.everything) })).private(unique("forged"));
    const refusals = new Inbox("error() of the channel");
    channel.error(refusals.push);
    const refusal = await refusals.next();
    assert.equal(refusal.type, "AuthError");
    assert.equal(refusal.status, 401);
  });

  // WS-78, WS-82, WS-83
  test("join tells who is here, who joins and who leaves", async (t) => {
    const name = unique("room");
    const member = (id) => ({ member: { user_id: id, user_info: { id, name: `user ${id}` } } });
    const [here, joining, leaving] = [new Inbox("here"), new Inbox("joining"), new Inbox("leaving")];
    const ana = await echo(t, member(1));
    ana.join(name).here(here.push).joining(joining.push).leaving(leaving.push);
    assert.deepEqual(await here.next(), [{ id: 1, name: "user 1" }]);
    const bob = await echo(t, member(2));
    const bobSees = new Inbox("here for the second");
    bob.join(name).here(bobSees.push);
    assert.deepEqual((await bobSees.next()).map(({ id }) => id).sort(), [1, 2]);
    assert.deepEqual(await joining.next(), { id: 2, name: "user 2" });
    bob.leave(name);
    assert.deepEqual(await leaving.next(), { id: 2, name: "user 2" });
  });

  // WS-69
  test("a whisper reaches the others", async (t) => {
    const name = unique("whispers");
    const [ana, bob] = [await joined((await echo(t)).private(name)), await joined((await echo(t)).private(name))];
    const heard = new Inbox("a whisper");
    bob.listenForWhisper("typing", heard.push);
    ana.whisper("typing", { name: "Ana" });
    assert.deepEqual(await heard.next(), { name: "Ana" });
  });

  // WS-67
  test("toOthers: the socket id that Echo names is left out", async (t) => {
    const name = unique("to-others");
    const sender = await echo(t);
    const [own, theirs] = [await joined(sender.channel(name)), await joined((await echo(t)).channel(name))];
    const [ownHeard, theirHeard] = [listen(own, ".event"), listen(theirs, ".event")];
    await server.trigger(name, "event", "for others", { socket_id: sender.socketId() });
    await server.trigger(name, "event", "for all");
    assert.deepEqual(await theirHeard.take(2), ["for others", "for all"]);
    assert.equal(await ownHeard.next(), "for all");
  });

  // WS-96
  test("an encrypted private channel is opened", async (t) => {
    const channel = await joined((await echo(t)).encryptedPrivate(unique("sealed")));
    const heard = listen(channel, "Secret");
    await server.trigger(channel.name, "App\\Events\\Secret", { pin: "Zoë" });
    assert.deepEqual(await heard.next(), { pin: "Zoë" });
  });

  // WS-60, WS-61
  test("leave and join again ends with one working channel", async (t) => {
    const made = await echo(t);
    const errors = new Inbox("an error of the connection");
    made.connector.pusher.connection.bind("error", errors.push);
    const name = unique("revolving");
    await joined(made.channel(name));
    await joined(made.private(name));
    made.leave(name);
    const heard = listen(await joined(made.channel(name)), ".event");
    await server.trigger(name, "event", "1");
    await server.trigger(name, "event", "2");
    assert.deepEqual(await heard.take(2), [1, 2]);
    assert.deepEqual(errors.items, []);
  });
});
