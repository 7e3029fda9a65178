// What a customer's server sees through the official Node SDK: answers, counts, refusals.
"use strict";

const assert = require("node:assert/strict");
const http = require("node:http");
const { describe, test } = require("node:test");
const HttpPusher = require("pusher");
const { apps, settings, unique } = require("../support/fulmar");
const { connect, hear, serverFor, subscribe } = require("../support/clients");

const server = serverFor();
const json = async (response) => (await response).json();

/** The error the SDK reports for a refused call. */
async function refusalOf(call) {
  const error = await call.then(
    () => assert.fail("the call was accepted"),
    (problem) => problem,
  );
  assert.equal(error.name, "PusherRequestError");
  return error;
}

describe("pusher for Node: publishing", { concurrency: true }, () => {
  // HTTP-2, HTTP-22
  test("a publish is answered with an empty object as JSON", async () => {
    const response = await server.trigger(unique("node"), "event", { message: "hello" });
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type"), /^application\/json/);
    assert.deepEqual(await response.json(), {});
  });

  // HTTP-30, HTTP-43
  test("info brings the counts of each channel", async (t) => {
    const [open, presence, empty] = [unique("info"), unique("presence-info"), unique("info")];
    for (let i = 0; i < 2; i += 1) {
      const client = await connect(t, { member: { user_id: "one and the same" } });
      await subscribe(client, open);
      await subscribe(client, presence);
    }
    const answer = await json(
      server.trigger([open, presence, empty], "event", "x", { info: "user_count,subscription_count" }),
    );
    assert.equal(answer.channels[open].subscription_count, 2);
    assert.equal(answer.channels[presence].user_count, 1);
    assert.equal(answer.channels[empty].subscription_count, 0);
    assert.equal(answer.channels[open].user_count, undefined);
  });

  // HTTP-35
  test("info in a batch brings one entry for each event, in order", async (t) => {
    const [open, presence] = [unique("batch-info"), unique("presence-batch-info")];
    const client = await connect(t, { member: { user_id: "ana" } });
    await subscribe(client, open);
    await subscribe(client, presence);
    const answer = await json(
      server.triggerBatch([
        { channel: presence, name: "event", data: "1", info: "user_count" },
        { channel: open, name: "event", data: "2" },
        { channel: open, name: "event", data: "3", info: "subscription_count" },
      ]),
    );
    assert.deepEqual(answer, { batch: [{ user_count: 1 }, {}, { subscription_count: 1 }] });
  });

  // HTTP-32
  test("ten events make a batch, eleven are refused with 400", async () => {
    const events = (count) => Array.from({ length: count }, () => ({ channel: "batch", name: "event", data: "x" }));
    assert.deepEqual(await json(server.triggerBatch(events(10))), {});
    assert.equal((await refusalOf(server.triggerBatch(events(11)))).status, 400);
  });

  // HTTP-26
  test("a hundred channels are accepted", async () => {
    const names = Array.from({ length: 100 }, (_, i) => `hundred-${i}`);
    assert.deepEqual(await json(server.trigger(names, "event", "x")), {});
  });

  // HTTP-27
  test("an event for a user is accepted", async () => {
    assert.deepEqual(await json(server.sendToUser("user-7", "event", "x")), {});
  });

  // HTTP-1
  test("many calls go over one kept connection", async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    let sockets = 0;
    const createConnection = agent.createConnection;
    agent.createConnection = function counted(...rest) {
      sockets += 1;
      return createConnection.apply(this, rest);
    };
    const kept = serverFor(apps.everything, { agent });
    for (let i = 0; i < 20; i += 1) assert.deepEqual(await json(kept.trigger("kept-alive", "event", { i })), {});
    await refusalOf(kept.trigger("kept-alive", "pusher:reserved", ""));
    assert.deepEqual(await json(kept.trigger("kept-alive", "event", "after a refusal")), {});
    agent.destroy();
    assert.equal(sockets, 1);
  });

  // HTTP-18
  test("a client made from a URL works, and so does the secret before a rotation", async () => {
    const { id, key } = apps.rotated;
    const made = HttpPusher.forURL(
      `http://${key}:secret-before-the-rotation@${settings.host}:${settings.port}/apps/${id}`,
    );
    assert.deepEqual(await json(made.trigger("url", "event", "x")), {});
  });
});

describe("pusher for Node: queries", { concurrency: true }, () => {
  // HTTP-36, HTTP-37, HTTP-43
  test("the channels of a prefix are listed with their users, and no others", async (t) => {
    const prefix = unique("presence-list");
    const client = await connect(t, { member: { user_id: "ana" } });
    await subscribe(client, `${prefix}-a`);
    await subscribe(client, `${prefix}-b`);
    await subscribe(client, unique("elsewhere"));
    await subscribe(await connect(t, { member: { user_id: "bob" } }), `${prefix}-a`);
    const params = { filter_by_prefix: prefix, info: "user_count" };
    assert.deepEqual(await json(server.get({ path: "/channels", params })), {
      channels: { [`${prefix}-a`]: { user_count: 2 }, [`${prefix}-b`]: { user_count: 1 } },
    });
  });

  // HTTP-36
  test("no channels are an empty object", async () => {
    const params = { filter_by_prefix: unique("nothing") };
    assert.deepEqual(await json(server.get({ path: "/channels", params })), { channels: {} });
  });

  // HTTP-39, HTTP-45
  test("one channel tells whether it is occupied and what it was asked", async (t) => {
    const name = unique("presence-one");
    const path = `/channels/${name}`;
    assert.deepEqual(await json(server.get({ path, params: { info: "user_count" } })), {
      occupied: false,
      user_count: 0,
    });
    const client = await connect(t, { member: { user_id: "ana" } });
    await subscribe(client, name);
    await subscribe(await connect(t, { member: { user_id: "ana" } }), name);
    assert.deepEqual(await json(server.get({ path, params: { info: "user_count,subscription_count" } })), {
      occupied: true,
      subscription_count: 2,
      user_count: 1,
    });
  });

  // HTTP-40
  test("the cached event of a cache channel can be read", async () => {
    const name = unique("cache-read");
    const read = () => json(server.get({ path: `/channels/${name}`, params: { info: "cache" } }));
    assert.deepEqual(await read(), { occupied: false, cache: null });
    await server.trigger(name, "event", { kept: "Zoë" });
    const { cache } = await read();
    assert.equal(cache.data, JSON.stringify({ kept: "Zoë" }));
    assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1700 && cache.ttl <= 1800, `ttl ${cache.ttl}`);
  });

  // HTTP-41
  test("the users of a presence channel are distinct and have string ids", async (t) => {
    const name = unique("presence-users");
    const users = async () => (await json(server.get({ path: `/channels/${name}/users` }))).users;
    assert.deepEqual(await users(), []);
    for (const user_id of [7, "ana", 7]) await subscribe(await connect(t, { member: { user_id } }), name);
    assert.deepEqual((await users()).map(({ id }) => id).sort(), ["7", "ana"]);
  });
});

describe("pusher for Node: refusals", { concurrency: true }, () => {
  // HTTP-19, HTTP-20
  test("a wrong secret is 401 with the string to sign and without any secret", async () => {
    const error = await refusalOf(serverFor({ ...apps.everything, secret: "wrong" }).trigger("c", "event", "x"));
    assert.equal(error.status, 401);
    assert.match(error.body, /^Invalid signature: you should have sent .*\n$/s);
    assert.match(error.body, new RegExp(`/apps/${apps.everything.id}/events`));
    assert.ok(!error.body.includes(apps.everything.secret));
  });

  // HTTP-18, HTTP-19
  test("an unknown key, or one of another app, is 401", async () => {
    const unknown = await refusalOf(serverFor({ ...apps.everything, key: "nobody" }).trigger("c", "event", "x"));
    assert.equal(unknown.status, 401);
    assert.equal(unknown.body, "Unknown auth_key\n");
    const foreign = { ...apps.everything, id: apps.plain.id };
    assert.equal((await refusalOf(serverFor(foreign).trigger("c", "event", "x"))).status, 401);
  });

  // HTTP-46
  test("a disabled app is 403", async () => {
    assert.equal((await refusalOf(serverFor(apps.disabled).trigger("c", "event", "x"))).status, 403);
  });

  // HTTP-23
  test("a reserved event name is 400 in plain text", async () => {
    for (const name of ["pusher:event", "pusher_internal:event", "pusher-notification"]) {
      const error = await refusalOf(server.trigger("c", name, "x"));
      assert.equal(error.status, 400);
      assert.match(error.body, /'pusher' namespace is reserved.*\n$/);
    }
  });

  // HTTP-25
  test("data of 10,241 bytes is 413 and 10,240 are accepted", async () => {
    assert.deepEqual(await json(server.trigger("c", "event", "é".repeat(5120))), {});
    const error = await refusalOf(server.trigger("c", "event", `${"é".repeat(5120)}x`));
    assert.equal(error.status, 413);
    assert.match(error.body, /10240/);
  });

  // HTTP-29, HTTP-33, DEL-6
  test("a batch with one bad event reaches nobody", async (t) => {
    const name = unique("atomic");
    const heard = hear(await subscribe(await connect(t), name), "event");
    const batch = [
      { channel: name, name: "event", data: "good" },
      { channel: name, name: "event", data: "x".repeat(10241) },
    ];
    assert.equal((await refusalOf(server.triggerBatch(batch))).status, 413);
    await server.trigger(name, "event", "fence");
    assert.equal(await heard.next(), "fence");
  });

  // HTTP-37, HTTP-39, HTTP-41, HTTP-42
  test("questions that do not apply are 400", async () => {
    const questions = [
      { path: "/channels", params: { info: "user_count" } },
      { path: "/channels/public", params: { info: "user_count" } },
      { path: "/channels/public", params: { info: "cache" } },
      { path: "/channels/public/users" },
      { path: "/channels/presence-x/users", params: { info: "user_count" } },
    ];
    for (const question of questions)
      assert.equal((await refusalOf(server.get(question))).status, 400, JSON.stringify(question));
  });

  // HTTP-6
  test("an unknown path is 404", async () => {
    assert.equal((await refusalOf(server.get({ path: "/nothing" }))).status, 404);
  });
});
