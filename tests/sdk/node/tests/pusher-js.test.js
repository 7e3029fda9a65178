// What an application built on pusher-js sees, for each major version that is still shipped (PUSHER_JS names it).
// Publishing is done by the Node server SDK. Nothing here knows the wire: only SDK calls and SDK callbacks.
"use strict";

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");
const { OwnNode, apps, balancer, settings, unique } = require("../support/fulmar");
const { Inbox } = require("../support/waiting");
const clients = require("../support/clients");

const version = Number(process.env.PUSHER_JS ?? 8);
const { serverFor, subscribe, hear } = clients;
const connect = (t, rest) => clients.connect(t, { version, ...rest });
const open = (t, rest) => clients.open(t, { version, ...rest });
const server = serverFor();

// What a version does not have cannot be tested with it; that is no test left out, so it is not counted as skipped.
const withMetadata = version >= 7 ? test : () => {};
const withEncryption = clients.VERSIONS[version].encryption ? test : () => {};

/** `code` and `message` of an error, which older versions wrap once more. */
function told(error) {
  return error.data ?? error.error?.data;
}

/** Every kind of data an application publishes, and what pusher-js makes of it. */
const PAYLOADS = [
  ["a plain string", "plain", "plain"],
  ["an empty string", "", ""],
  [
    "an object",
    { message: "hello", nested: { list: [1, 2, null] } },
    { message: "hello", nested: { list: [1, 2, null] } },
  ],
  ["unicode", { text: 'Zoë ☃ 🦉 \u2028 \u0000 "\\/' }, { text: 'Zoë ☃ 🦉 \u2028 \u0000 "\\/' }],
  ["text that is not JSON", '{"half', '{"half'],
  ["text with every escape", '"\\ \b\f\n\r\t </script> \u007f', '"\\ \b\f\n\r\t </script> \u007f'],
  ["a number in a string", "5", 5],
  ["a list", [1, "two", {}], [1, "two", {}]],
  ["10,240 bytes", "x".repeat(10240), "x".repeat(10240)],
  ["10,240 bytes in 2,560 characters of four bytes", "🦉".repeat(2560), "🦉".repeat(2560)],
];

describe(`pusher-js ${version}: connecting`, { concurrency: true }, () => {
  // WS-3, WS-18, WS-19
  test("a client connects and learns a socket id", async (t) => {
    const client = await connect(t);
    assert.match(client.connection.socket_id, /^\d+\.\d+$/);
  });

  // WS-5, WS-11
  test("an unknown key is told 4001 and the client stays away", async (t) => {
    const client = open(t, { app: { ...apps.everything, key: "key-of-nobody" } });
    assert.equal(told(await client.errors.next()).code, 4001);
    await client.states.first((state) => state === "disconnected");
    assert.ok(!client.connection.retryTimer, "no retry is scheduled");
  });

  // WS-5
  test("a disabled app is told 4003 and the client stays away", async (t) => {
    const client = open(t, { app: apps.disabled });
    assert.equal(told(await client.errors.next()).code, 4003);
    await client.states.first((state) => state === "disconnected");
  });

  // WS-9
  test("a connection over the quota is told 4004, and a freed slot is free", async (t) => {
    const first = await connect(t, { app: apps.single });
    const second = open(t, { app: apps.single });
    assert.equal(told(await second.errors.next()).code, 4004);
    await second.states.first((state) => state === "disconnected");
    first.disconnect();
    await first.states.first((state) => state === "disconnected");
    // The close may still be on its way when the next one asks, so asking again is allowed; being refused is not.
    let answer;
    for (let tries = 0; answer !== "connected" && tries < 50; tries += 1) {
      const third = open(t, { app: apps.single });
      answer = await third.states.first((state) => state === "connected" || state === "disconnected");
      third.disconnect();
    }
    assert.equal(answer, "connected");
  });

  // WS-33, WS-36, WS-37
  test("an idle client with a short activity timeout pings, is answered and is never dropped", async (t) => {
    const client = await connect(t, { port: settings.brisk_port });
    const messages = new Inbox("a frame of the connection");
    client.connection.bind("message", (message) => messages.put(message.event));
    await messages.first((event) => event === "pusher:pong");
    await messages.first((event) => event === "pusher:pong");
    assert.deepEqual(client.states.items.slice(client.states.items.indexOf("connected")), ["connected"]);
    const channel = await subscribe(client, unique("after-idling"));
    const heard = hear(channel, "still-here");
    await serverFor(apps.everything, { port: String(settings.brisk_port) }).trigger(channel.name, "still-here", "yes");
    assert.equal(await heard.next(), "yes");
  });

  // WS-63, T-22
  test("after a crash and restart of the node it is back in seconds, with a new id and its channels", async (t) => {
    const node = await OwnNode.start(t);
    const ownServer = serverFor(apps.everything, { port: String(node.port) });
    const client = await connect(t, { port: node.port, member: { user_id: "ana" } });
    const channels = [];
    for (const prefix of ["restart", "private-restart", "presence-restart"])
      channels.push(await subscribe(client, unique(prefix)));
    const heard = channels.map((channel) => hear(channel, "again"));
    const answers = channels.map((channel) => hear(channel, "pusher:subscription_succeeded"));
    const oldId = client.connection.socket_id;

    await node.kill();
    await node.run();
    await client.states.first((state) => state === "connected", 5000);
    for (const answer of answers) await answer.next();
    assert.notEqual(client.connection.socket_id, oldId);
    await ownServer.trigger(
      channels.map(({ name }) => name),
      "again",
      "once",
    );
    for (const inbox of heard) assert.equal(await inbox.next(), "once");
  });

  // WS-117, OPS-23, WS-63
  test("told to move by a node that goes away, it is on the next node at once with its subscriptions", async (t) => {
    const [old, next] = [await OwnNode.start(t), await OwnNode.start(t)];
    const entrance = await balancer(t, old.port);
    const client = await connect(t, { port: entrance.port });
    const channel = await subscribe(client, unique("private-moving"));
    const [answers, heard] = [hear(channel, "pusher:subscription_succeeded"), hear(channel, "event")];
    entrance.target = next.port;
    const ended = old.stop();
    await answers.next(5000);
    assert.deepEqual(new Set(client.errors.items.map((error) => told(error).code)), new Set([4200]));
    await serverFor(apps.everything, { port: String(next.port) }).trigger(channel.name, "event", "on the next node");
    assert.equal(await heard.next(), "on the next node");
    assert.equal(await ended, 0);
  });

  // WS-30
  test("an event the protocol does not know is answered with an error and the connection stays", async (t) => {
    const client = await connect(t);
    client.send_event("nonsense", {});
    const { code, message } = told(await client.errors.next());
    assert.equal(code, null);
    assert.equal(message, "Unsupported event received on socket: nonsense");
    await subscribe(client, unique("after-nonsense"));
  });
});

describe(`pusher-js ${version}: channels and events`, { concurrency: true }, () => {
  for (const [what, sent, expected] of PAYLOADS) {
    // WS-65, HTTP-24, HTTP-25
    test(`${what} arrives as it was published`, async (t) => {
      const channel = await subscribe(await connect(t), unique("data"));
      const heard = hear(channel, "event");
      await server.trigger(channel.name, "event", sent);
      assert.deepEqual(await heard.next(), expected);
    });
  }

  // HTTP-23
  for (const name of [
    "App\\Events\\OrderShipped",
    "order.shipped",
    "Füße ☃",
    "client-from-the-server",
    "a".repeat(200),
  ]) {
    test(`an event named ${name.slice(0, 40)} arrives under that name`, async (t) => {
      const channel = await subscribe(await connect(t), unique("names"));
      const heard = hear(channel, name);
      await server.trigger(channel.name, name, { id: 7 });
      assert.deepEqual(await heard.next(), { id: 7 });
    });
  }

  // WS-66, HTTP-26
  test("one call for several channels reaches each subscription once", async (t) => {
    const client = await connect(t);
    const channels = [];
    for (let i = 0; i < 3; i += 1) channels.push(await subscribe(client, unique("multi")));
    const heard = channels.map((channel) => hear(channel, "event"));
    const names = channels.map(({ name }) => name);
    await server.trigger([...names, names[0], unique("nobody-is-here")], "event", "to all");
    await server.trigger(names, "event", "fence");
    for (const inbox of heard) assert.deepEqual(await inbox.take(2), ["to all", "fence"]);
  });

  // HTTP-34, DEL-2
  test("a batch arrives in its order", async (t) => {
    const client = await connect(t);
    const [one, other] = [await subscribe(client, unique("batch")), await subscribe(client, unique("batch"))];
    const heard = [hear(one, "event"), hear(other, "event")];
    const event = (channel, data) => ({ channel: channel.name, name: "event", data });
    await server.triggerBatch([
      event(one, "1"),
      event(other, "2"),
      event(one, "3"),
      event(other, "4"),
      event(one, "5"),
    ]);
    assert.deepEqual(await heard[0].take(3), [1, 3, 5]);
    assert.deepEqual(await heard[1].take(2), [2, 4]);
  });

  // WS-67
  test("the connection that published is left out and every other one hears", async (t) => {
    const [sender, other] = [await connect(t), await connect(t)];
    const name = unique("exclusion");
    const [own, theirs] = [hear(await subscribe(sender, name), "event"), hear(await subscribe(other, name), "event")];
    await server.trigger(name, "event", "for others", { socket_id: sender.connection.socket_id });
    await server.trigger(name, "event", "for all");
    assert.deepEqual(await theirs.take(2), ["for others", "for all"]);
    assert.equal(await own.next(), "for all");
  });

  // WS-31, WS-60, DEL-11
  test("after an unsubscribe the channel is silent", async (t) => {
    const client = await connect(t);
    const left = await subscribe(client, unique("left"));
    const kept = await subscribe(client, unique("kept"));
    const messages = new Inbox("a frame of the connection");
    client.connection.bind("message", (message) => messages.put(message));
    client.unsubscribe(left.name);
    await subscribe(client, unique("later")); // Its answer shows that the unsubscribe has been processed.
    await server.trigger([left.name, kept.name], "event", "late");
    await messages.first((message) => message.event === "event" && message.channel === kept.name);
    assert.ok(!messages.items.some(({ channel }) => channel === left.name), "nothing of the channel came");
  });

  // WS-62, T-23
  test("subscribing, leaving and subscribing in one burst ends subscribed, once", async (t) => {
    const client = await connect(t);
    const name = unique("burst");
    for (let i = 0; i < 5; i += 1) {
      client.subscribe(name);
      client.unsubscribe(name);
    }
    const channel = await subscribe(client, name);
    const heard = hear(channel, "event");
    await server.trigger(name, "event", "1");
    await server.trigger(name, "event", "2");
    assert.deepEqual(await heard.take(2), [1, 2]);
    assert.deepEqual(client.errors.items, []);
  });

  // WS-62
  test("leaving and coming back several times leaves one working subscription each time", async (t) => {
    const client = await connect(t);
    const name = unique("revolving");
    for (let round = 0; round < 5; round += 1) {
      const heard = hear(await subscribe(client, name), "event");
      await server.trigger(name, "event", { round });
      assert.deepEqual(await heard.next(), { round });
      client.unsubscribe(name);
    }
    assert.deepEqual(client.errors.items, []);
  });

  // WS-59
  test("a second subscribe sent by hand is refused and the first one stays the only one", async (t) => {
    const client = await connect(t);
    const channel = await subscribe(client, unique("twice"));
    const heard = hear(channel, "event");
    client.send_event("pusher:subscribe", { channel: channel.name });
    assert.equal(told(await client.errors.next()).message, `Existing subscription to channel ${channel.name}`);
    await server.trigger(channel.name, "event", "1");
    await server.trigger(channel.name, "event", "2");
    assert.deepEqual(await heard.take(2), [1, 2]);
  });

  // WS-61
  test("leaving by hand a channel that was never joined is answered and harmless", async (t) => {
    const client = await connect(t);
    const name = unique("never");
    client.send_event("pusher:unsubscribe", { channel: name });
    const { message } = told(await client.errors.next());
    assert.equal(message, `No current subscription to channel ${name}, or subscription in progress`);
    await subscribe(client, name);
  });

  // WS-44
  test("an invalid channel name is refused and the connection stays", async (t) => {
    const client = await connect(t);
    client.subscribe("no spaces here");
    assert.equal(told(await client.errors.next()).code, null);
    await subscribe(client, unique("valid"));
  });

  // WS-44
  test("a channel name of 164 characters with every allowed sign works", async (t) => {
    const name = `${unique("a_-=@,.;Z9")}-`.padEnd(164, "x");
    const channel = await subscribe(await connect(t), name);
    const heard = hear(channel, "event");
    await server.trigger(name, "event", "long");
    assert.equal(await heard.next(), "long");
  });

  // DEL-13
  test("another app's channel of the same name is another channel", async (t) => {
    const name = unique("shared-name");
    const ours = hear(await subscribe(await connect(t), name), "event");
    const theirs = hear(await subscribe(await connect(t, { app: apps.plain }), name), "event");
    await serverFor(apps.plain).trigger(name, "event", "theirs");
    await server.trigger(name, "event", "ours");
    assert.equal(await ours.next(), "ours");
    assert.equal(await theirs.next(), "theirs");
  });
});

describe(`pusher-js ${version}: private and presence channels`, { concurrency: true }, () => {
  // WS-48, WS-49, WS-50
  test("a private channel accepts a signature of the server SDK", async (t) => {
    const channel = await subscribe(await connect(t), unique("private-ok"));
    const heard = hear(channel, "event");
    await server.trigger(channel.name, "event", "secret");
    assert.equal(await heard.next(), "secret");
  });

  // WS-53
  test("a signature by the secret before a rotation is accepted", async (t) => {
    const before = { ...apps.rotated, secret: "secret-before-the-rotation" };
    await subscribe(await connect(t, { app: before }), unique("private-before"));
    await subscribe(await connect(t, { app: apps.rotated }), unique("private-after"));
  });

  // WS-55, WS-57
  for (const prefix of ["private-forged", "presence-forged", "private-cache-forged"]) {
    test(`a wrong signature on ${prefix} reaches the channel's listeners and costs nothing else`, async (t) => {
      const client = await connect(t, { authorize: clients.forgerFor(apps.everything) });
      const channel = client.subscribe(unique(prefix));
      const refusals = hear(channel, "pusher:subscription_error");
      const refusal = await refusals.next();
      assert.equal(refusal.type, "AuthError");
      assert.equal(refusal.status, 401);
      assert.equal(typeof refusal.error, "string");
      assert.ok(client.errors.items.length === 1 && told(client.errors.items[0]).code === null);
      await subscribe(client, unique("public-after-refusal"));
    });
  }

  // WS-54
  test("a signature made for another socket is refused", async (t) => {
    const other = await connect(t);
    const authorize = ({ channelName }, callback) =>
      callback(null, server.authorizeChannel(other.connection.socket_id, channelName));
    const client = await connect(t, { authorize });
    const refusals = hear(client.subscribe(unique("private-stolen")), "pusher:subscription_error");
    assert.equal((await refusals.next()).status, 401);
  });

  // WS-78, WS-82, WS-83, WS-84
  test("members come and go as users, not as connections", async (t) => {
    const name = unique("presence-room");
    const ana = await subscribe(await connect(t, { member: { user_id: "ana", user_info: { name: "Ana ☃" } } }), name);
    assert.equal(ana.members.count, 1);
    assert.deepEqual(ana.members.me, { id: "ana", info: { name: "Ana ☃" } });
    const [added, removed] = [hear(ana, "pusher:member_added"), hear(ana, "pusher:member_removed")];

    const phone = await connect(t, { member: { user_id: "bob", user_info: { name: "Bob" } } });
    const laptop = await connect(t, { member: { user_id: "bob", user_info: { name: "Bob" } } });
    const onPhone = await subscribe(phone, name);
    const ownAdded = hear(onPhone, "pusher:member_added");
    assert.deepEqual(await added.next(), { id: "bob", info: { name: "Bob" } });
    assert.equal(onPhone.members.count, 2);
    assert.deepEqual(onPhone.members.get("ana"), { id: "ana", info: { name: "Ana ☃" } });
    const onLaptop = await subscribe(laptop, name);
    assert.equal(onLaptop.members.count, 2);

    phone.disconnect(); // Bob stays, by his laptop.
    await subscribe(await connect(t, { member: { user_id: "eve" } }), name);
    assert.equal((await added.next()).id, "eve");
    assert.deepEqual(removed.items, []);
    laptop.unsubscribe(name);
    assert.deepEqual(await removed.next(), { id: "bob", info: { name: "Bob" } });
    assert.equal(ana.members.count, 2);
    assert.deepEqual(ownAdded.items, []);
  });

  // WS-80, T-8
  test("a numeric user id is a string everywhere", async (t) => {
    const name = unique("presence-numbers");
    const first = await subscribe(await connect(t, { member: { user_id: "watcher" } }), name);
    const added = hear(first, "pusher:member_added");
    const second = await subscribe(await connect(t, { member: { user_id: 10 } }), name);
    assert.equal((await added.next()).id, "10");
    assert.ok(second.members.get("10"));
    const { users } = await (await server.get({ path: `/channels/${name}/users` })).json();
    assert.deepEqual(users.map(({ id }) => id).sort(), ["10", "watcher"]);
  });

  // WS-39, WS-83
  test("a client that goes away without leaving is removed", async (t) => {
    const name = unique("presence-vanish");
    const stays = await subscribe(await connect(t, { member: { user_id: "stays" } }), name);
    const removed = hear(stays, "pusher:member_removed");
    const goes = await connect(t, { member: { user_id: "goes" } });
    await subscribe(goes, name);
    goes.disconnect();
    assert.equal((await removed.next()).id, "goes");
  });

  // WS-79, WS-87
  for (const [what, member] of [
    ["user_info above 1,024 bytes", { user_id: "large", user_info: { text: "x".repeat(1024) } }],
    ["a user id above 128 characters", { user_id: "x".repeat(129) }],
    ["no user id", { user_info: {} }],
  ]) {
    test(`a member with ${what} is refused and the connection goes on`, async (t) => {
      const client = await connect(t, { member });
      const refusals = hear(client.subscribe(unique("presence-refused")), "pusher:subscription_error");
      assert.equal(typeof (await refusals.next()).error, "string");
      await subscribe(client, unique("after-the-refusal"));
    });
  }

  // WS-86
  test("a user beyond the limit is refused, another connection of a present user is not", async (t) => {
    const name = unique("presence-full");
    await subscribe(await connect(t, { app: apps.small, member: { user_id: "first" } }), name);
    const late = await connect(t, { app: apps.small, member: { user_id: "late" } });
    const refusals = hear(late.subscribe(name), "pusher:subscription_error");
    assert.equal(typeof (await refusals.next()).error, "string");
    const again = await subscribe(await connect(t, { app: apps.small, member: { user_id: "first" } }), name);
    assert.equal(again.members.count, 1);
  });
});

describe(`pusher-js ${version}: client events`, { concurrency: true }, () => {
  // WS-69, WS-73
  test("a client event reaches the others on a private channel, whatever its data, and not its sender", async (t) => {
    const name = unique("private-chat");
    const [ana, bob] = [await subscribe(await connect(t), name), await subscribe(await connect(t), name)];
    const [own, theirs] = [hear(ana, "client-said"), hear(bob, "client-said")];
    const said = [{ text: "Zoë ☃" }, "plain", [1, 2], 5, true, ""];
    for (const data of said) ana.trigger("client-said", data);
    assert.deepEqual(await theirs.take(said.length), said);
    bob.trigger("client-said", "back");
    assert.equal(await own.next(), "back");
  });

  // WS-74
  withMetadata("on a presence channel the receiver learns who sent it", async (t) => {
    const name = unique("presence-chat");
    const ana = await subscribe(await connect(t, { member: { user_id: 7 } }), name);
    const bob = await subscribe(await connect(t, { member: { user_id: "bob" } }), name);
    const heard = new Inbox("a client event with metadata");
    bob.bind("client-said", (data, metadata) => heard.put({ data, metadata }));
    ana.trigger("client-said", { x: 1 });
    assert.deepEqual(await heard.next(), { data: { x: 1 }, metadata: { user_id: "7" } });
  });

  // WS-68, T-13
  withMetadata("an event of the server names no sender", async (t) => {
    const channel = await subscribe(await connect(t, { member: { user_id: "ana" } }), unique("presence-plain"));
    const heard = new Inbox("an event with metadata");
    channel.bind("event", (data, metadata) => heard.put({ data, metadata: metadata ?? {} }));
    await server.trigger(channel.name, "event", "x");
    assert.deepEqual(await heard.next(), { data: "x", metadata: {} });
  });

  // WS-75
  test("more than ten in a second are dropped with 4301 and the connection stays", async (t) => {
    const name = unique("private-flood");
    const [sender, receiver] = [await connect(t), await connect(t)];
    const channel = await subscribe(sender, name);
    const heard = hear(await subscribe(receiver, name), "client-n");
    for (let i = 0; i < 30; i += 1) channel.trigger("client-n", { i });
    assert.equal(told(await sender.errors.next()).code, 4301);
    assert.equal((await heard.take(10))[9].i, 9);
    await subscribe(sender, unique("after-the-flood"));
    assert.equal(sender.connection.state, "connected");
  });

  // WS-72, WS-76
  test("a client event without data or with too much of it is refused and the next one is delivered", async (t) => {
    const name = unique("private-sizes");
    const client = await connect(t);
    const channel = await subscribe(client, name);
    const heard = hear(await subscribe(await connect(t), name), "client-said");
    channel.trigger("client-said");
    assert.equal(told(await client.errors.next()).message, "Invalid client event (must contain channel and data)");
    channel.trigger("client-said", "x".repeat(10241));
    assert.match(told(await client.errors.next()).message, /10240/);
    channel.trigger("client-said", "y".repeat(10240));
    assert.equal(await heard.next(), "y".repeat(10240));
  });

  // WS-70
  test("an app without client events says so", async (t) => {
    const client = await connect(t, { app: apps.plain });
    const channel = await subscribe(client, unique("private-mute"));
    channel.trigger("client-said", {});
    const { code, message } = told(await client.errors.next());
    assert.equal(code, null);
    assert.match(message, /^To send client events, you must enable this feature/);
  });

  // WS-71, T-32
  test("a client event on a public channel or one not joined is refused", async (t) => {
    const client = await connect(t);
    const channel = await subscribe(client, unique("public"));
    client.send_event("client-said", {}, channel.name);
    assert.equal(told(await client.errors.next()).code, null);
    const other = unique("private-not-joined");
    client.send_event("client-said", {}, other);
    const { message } = told(await client.errors.next());
    assert.equal(message, `Cannot broadcast client event (connection not subscribed to channel ${other})`);
  });
});

describe(`pusher-js ${version}: cache channels, counts, encryption`, { concurrency: true }, () => {
  for (const prefix of ["cache", "private-cache", "presence-cache"]) {
    // WS-92, WS-93, WS-95
    test(`${prefix}: an empty cache is a miss, a filled one brings the last event, whomever it excluded`, async (t) => {
      const client = await connect(t, { member: { user_id: "ana" } });
      const name = unique(prefix);
      const first = client.subscribe(name);
      const [misses, live] = [hear(first, "pusher:cache_miss"), hear(first, "event")];
      await misses.next();
      await server.trigger(name, "event", { n: 1 });
      await server.trigger(name, "event", { n: 2 }, { socket_id: client.connection.socket_id });
      assert.deepEqual(await live.next(), { n: 1 });

      const late = await connect(t, { member: { user_id: "late" } });
      const order = new Inbox("what a late subscriber sees");
      const second = late.subscribe(name);
      for (const event of ["pusher:subscription_succeeded", "pusher:cache_miss", "event"]) {
        second.bind(event, (data) => order.put([event, event === "event" ? data : undefined]));
      }
      assert.deepEqual(await order.take(2), [
        ["pusher:subscription_succeeded", undefined],
        ["event", { n: 2 }],
      ]);
    });
  }

  // WS-93
  test("publishing fills the cache of a channel nobody listens to; client events do not", async (t) => {
    const name = unique("private-cache-quiet");
    await server.trigger(name, "kept", "from the server");
    const [ana, bob] = [await subscribe(await connect(t), name), await subscribe(await connect(t), name)];
    const heard = hear(bob, "client-said");
    ana.trigger("client-said", "not kept");
    await heard.next();
    const late = (await connect(t)).subscribe(name);
    assert.equal(await hear(late, "kept").next(), "from the server");
  });

  // WS-88, WS-89
  test("subscribers are told how many they are", async (t) => {
    const name = unique("counted");
    const first = await connect(t);
    const channel = first.subscribe(name);
    const inbox = hear(channel, "pusher:subscription_count");
    if (version < 7) {
      // Versions before 7.1 keep the count to themselves; what counts is that it does them no harm.
      first.connection.bind("message", ({ event, data }) => event.endsWith(":subscription_count") && inbox.put(data));
    }
    assert.equal((await inbox.next()).subscription_count, 1);
    const second = await connect(t);
    second.subscribe(name);
    assert.equal((await inbox.next()).subscription_count, 2);
    second.disconnect();
    assert.equal((await inbox.next()).subscription_count, 1);
    if (version >= 7) assert.equal(channel.subscriptionCount, 1);
  });

  // WS-88
  test("with counts off nobody is told", async (t) => {
    const client = await connect(t, { app: apps.plain });
    const messages = new Inbox("a frame of the connection");
    client.connection.bind("message", ({ event }) => messages.put(event));
    const channel = await subscribe(client, unique("uncounted"));
    await serverFor(apps.plain).trigger(channel.name, "event", "x");
    assert.equal(await messages.first((event) => event !== "pusher_internal:subscription_succeeded"), "event");
  });

  for (const prefix of ["private-encrypted", "private-encrypted-cache"]) {
    // WS-96
    withEncryption(`${prefix}: what the server SDK seals the client opens`, async (t) => {
      const name = unique(prefix);
      const channel = await subscribe(await connect(t), name);
      const heard = hear(channel, "event");
      await server.trigger(name, "event", { secret: "Zoë ☃" });
      assert.deepEqual(await heard.next(), { secret: "Zoë ☃" });
    });
  }

  // WS-92, WS-96
  withEncryption("a late subscriber of an encrypted cache channel opens the kept event", async (t) => {
    const name = unique("private-encrypted-cache-late");
    await server.trigger(name, "event", { kept: true });
    const channel = (await connect(t)).subscribe(name);
    assert.deepEqual(await hear(channel, "event").next(), { kept: true });
  });

  // WS-55, WS-57
  withEncryption("a refused encrypted subscribe is an error of the connection alone", async (t) => {
    const forger = clients.serverFor({ ...apps.everything, secret: "another secret" });
    const client = await connect(t, { authorize: clients.authorizerFor(forger) });
    client.subscribe(unique("private-encrypted-forged"));
    assert.equal(told(await client.errors.next()).code, null);
    await subscribe(client, unique("after-the-refusal"));
  });

  // WS-71
  withEncryption("client events on an encrypted channel are refused", async (t) => {
    const client = await connect(t);
    const channel = await subscribe(client, unique("private-encrypted-mute"));
    client.send_event("client-said", {}, channel.name);
    assert.equal(told(await client.errors.next()).code, null);
  });
});
