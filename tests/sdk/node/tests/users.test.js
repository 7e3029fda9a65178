// What an application sees of its users: pusher-js signs in, the Node server SDK authenticates, sends and terminates.
// After a close that it did not ask for pusher-js holds a timer of 30 seconds: the tests are over long before the process is.
"use strict";

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");
const { apps, unique } = require("../support/fulmar");
const { Inbox } = require("../support/waiting");
const { connect, forgerFor, hear, open, serverFor, subscribe } = require("../support/clients");

const server = serverFor();

/** Options of a client whose application says that it is `user`; `by` is the server that says so. */
function beingUser(user, by = server) {
  const authenticate = ({ socketId }, callback) => callback(null, by.authenticateUser(socketId, user));
  return { userAuthentication: { customHandler: authenticate } };
}

/** A signed-in client. `watched` sees its watchlist events, in order. */
async function signIn(t, user, rest = {}) {
  const client = await connect(t, { options: beingUser(user), ...rest });
  client.watched = new Inbox(`what ${user.id} hears of others`);
  for (const kind of ["online", "offline"])
    client.user.watchlist.bind(kind, ({ user_ids }) => client.watched.put([kind, user_ids]));
  // The SDK subscribes to the user's channel by itself once it is signed in.
  client.receiving = new Inbox("the subscription to the user's channel");
  client.connection.bind("message", ({ event, channel }) => {
    const isOfUser = channel === `#server-to-user-${user.id}`;
    if (isOfUser && event === "pusher_internal:subscription_succeeded") client.receiving.put(channel);
  });
  client.signin();
  await client.user.signinDonePromise;
  return client;
}

/** `code` and `message` of the next error of the connection. */
async function nextError(client) {
  const error = await client.errors.next();
  return error.data ?? error.error?.data;
}

describe("users", { concurrency: true }, () => {
  // WS-125, WS-128, WS-129
  test("what is sent to a user reaches each of the user's connections, and nobody else", async (t) => {
    const [ana, bob] = [unique("ana"), unique("bob")];
    const first = await signIn(t, { id: ana, user_info: { name: "Ana" } });
    const second = await signIn(t, { id: ana });
    const other = await signIn(t, { id: bob });
    assert.deepEqual(first.user.user_data, { id: ana, user_info: { name: "Ana" } });
    const inboxes = [first, second, other].map((client) => {
      const inbox = new Inbox("an event for the user");
      client.user.bind("greeting", (data) => inbox.put(data));
      return inbox;
    });
    await Promise.all([first, second, other].map((client) => client.receiving.next()));
    const response = await server.sendToUser(ana, "greeting", { text: "hello" });
    assert.equal(response.status, 200);
    await server.sendToUser(bob, "greeting", "for bob");
    assert.deepEqual(await inboxes[0].next(), { text: "hello" });
    assert.deepEqual(await inboxes[1].next(), { text: "hello" });
    assert.equal(await inboxes[2].next(), "for bob");
  });

  // WS-126
  test("a sign-in that the application did not sign is an error, and the connection goes on", async (t) => {
    const forger = serverFor({ ...apps.everything, secret: "a secret that nobody configured" });
    const client = open(t, { options: beingUser({ id: unique("forger") }, forger) });
    client.signin();
    assert.match((await nextError(client)).message, /^Invalid signature: /);
    await subscribe(client, unique("after-the-refusal"));
    assert.equal(client.user.user_data, null);
  });

  // WS-130, T-31
  test("a signed-in user enters a presence channel for which the application names no member", async (t) => {
    const [ana, name] = [unique("ana"), unique("presence-by-sign-in")];
    const withoutMember = ({ socketId, channelName }, callback) =>
      callback(null, server.authorizeChannel(socketId, channelName));
    const client = await signIn(t, { id: ana, user_info: { name: "Ana" } }, { authorize: withoutMember });
    const channel = await subscribe(client, name);
    assert.equal(channel.members.me.id, ana);
    assert.deepEqual(channel.members.me.info, { name: "Ana" });
    const { users } = await (await server.get({ path: `/channels/${name}/users` })).json();
    assert.deepEqual(users, [{ id: ana }]);
  });

  // WS-132, WS-133
  test("a watcher learns who is online, who comes and who goes", async (t) => {
    const [ana, bob, eve] = [unique("ana"), unique("bob"), unique("eve")];
    const first = await signIn(t, { id: ana });
    const watcher = await signIn(t, { id: eve, watchlist: [ana, bob] });
    assert.deepEqual(await watcher.watched.next(), ["online", [ana]]);
    assert.deepEqual(await watcher.watched.next(), ["offline", [bob]]);
    const second = await signIn(t, { id: bob });
    assert.deepEqual(await watcher.watched.next(), ["online", [bob]]);
    // A page that is loaded anew does not show.
    first.disconnect();
    await signIn(t, { id: ana });
    second.disconnect();
    assert.deepEqual(await watcher.watched.next(), ["offline", [bob]]);
    assert.equal(watcher.watched.items.length, 4);
  });

  // WS-134
  test("of a watchlist that is too long the first hundred are watched", async (t) => {
    const eve = unique("eve");
    const watchlist = Array.from({ length: 101 }, (_, n) => `${eve}-${n}`);
    const watcher = await signIn(t, { id: eve, watchlist });
    assert.equal((await nextError(watcher)).code, 4302);
    const [kind, ids] = await watcher.watched.next();
    assert.equal(kind, "offline");
    assert.deepEqual(ids, watchlist.slice(0, 100));
  });

  // WS-131, HTTP-65
  test("a terminated user is told 4009, stays away, and may come back when the application connects again", async (t) => {
    const [ana, bob] = [unique("ana"), unique("bob")];
    const first = await signIn(t, { id: ana });
    const second = await signIn(t, { id: ana });
    const other = await signIn(t, { id: bob });
    const member = await connect(t, { member: { user_id: ana } });
    await subscribe(member, unique("presence-of-others"));
    const response = await server.terminateUserConnections(ana);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), {});
    for (const client of [first, second]) {
      assert.equal((await nextError(client)).code, 4009);
      await client.states.first((state) => state === "disconnected");
    }
    assert.equal((await server.terminateUserConnections(unique("nobody"))).status, 200);
    for (const client of [other, member]) await subscribe(client, unique("still-here"));
    first.connect();
    await first.states.first((state) => state === "connected");
    const inbox = new Inbox("an event for the user");
    first.user.bind("greeting", (data) => inbox.put(data));
    // Once before and once after.
    await first.receiving.take(2);
    await server.sendToUser(ana, "greeting", "welcome back");
    assert.equal(await inbox.next(), "welcome back");
  });

  // HTTP-66, WS-128
  test("a user whose id needs escapes in a path is terminated as well", async (t) => {
    const ana = `${unique("ana")}@example.com/ä b`;
    const client = await signIn(t, { id: ana });
    assert.match((await nextError(client)).message, /^Invalid channel name: /, "such a user has no channel");
    const path = `/users/${encodeURIComponent(ana)}/terminate_connections`;
    assert.equal((await server.post({ path, body: {} })).status, 200);
    assert.equal((await nextError(client)).code, 4009);
  });

  // WS-135
  test("where the app asks for it, who shows no authorization is closed and everybody else stays", async (t) => {
    const app = apps.authorized;
    const byApp = serverFor(app);
    const anonymous = await connect(t, { app });
    const user = await connect(t, { app, options: beingUser({ id: unique("ana") }, byApp) });
    user.signin();
    const member = await connect(t, { app });
    await subscribe(member, unique("private-room"));
    assert.deepEqual(await nextError(anonymous), {
      code: 4009,
      message: "Connection not authorized within timeout",
    });
    await anonymous.states.first((state) => state === "disconnected");
    for (const client of [user, member]) await subscribe(client, unique("still-here"));
    const forged = await connect(t, { app, authorize: forgerFor(app) });
    hear(forged.subscribe(unique("private-room")), "pusher:subscription_error");
    await forged.states.first((state) => state === "disconnected");
  });
});
