// What an application's own server makes of webhooks, with the official Node library. The requests were captured from a
// running node moments ago.
"use strict";

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");
const { settings } = require("../support/fulmar");
const { serverFor } = require("../support/clients");

const { captured, kinds } = settings.hooks;
const server = serverFor();
const accepted = captured.map(({ headers, body }) => server.webhook({ headers, rawBody: body }));

describe("webhooks", () => {
  // HOOK-1, HOOK-2, HOOK-3, trap T-43
  test("the Node library takes every request", () => {
    for (const [n, webhook] of accepted.entries()) {
      assert.ok(webhook.isValid(), captured[n].body);
      assert.ok(Math.abs(Date.now() - webhook.getTime().getTime()) < 300000);
    }
  });

  // HOOK-5
  test("every kind of event is among them, with its fields", () => {
    const events = accepted.flatMap((webhook) => webhook.getEvents());
    const of = (name, fields = {}) => events.find((e) => e.name === name && Object.keys(fields).every((f) => e[f] === fields[f]));
    for (const kind of kinds) assert.ok(of(kind), kind);
    for (const name of ["channel_occupied", "channel_vacated"]) assert.deepEqual(of(name, { channel: "hooks" }), { name, channel: "hooks" });
    for (const name of ["member_added", "member_removed"])
      assert.deepEqual(of(name), { name, channel: "presence-hooks", user_id: "ana" });
    assert.deepEqual(of("cache_miss"), { name: "cache_miss", channel: "cache-hooks" });
    assert.deepEqual(of("subscription_count", { channel: "hooks" }), { name: "subscription_count", channel: "hooks", subscription_count: 1 });
    for (const name of ["user_online", "user_offline"]) assert.deepEqual(of(name), { name, user_id: "ana" });
  });

  // HOOK-4, HOOK-5, trap T-44
  test("what a client said is a string, whatever it was", () => {
    const events = accepted.flatMap((webhook) => webhook.getEvents()).filter((event) => event.name === "client_event");
    const [typing, plain] = ["client-typing", "client-plain"].map((name) => events.find((e) => e.event === name));
    assert.deepEqual(JSON.parse(typing.data), { text: "Zoë ☃", nested: [1, { a: true }] });
    assert.equal(plain.data, "no JSON at all");
    assert.deepEqual([typing.user_id, typing.channel], ["ana", "presence-hooks"]);
    assert.match(typing.socket_id, /^\d+\.\d+$/);
  });

  // HOOK-2
  test("one changed byte is noticed", () => {
    const [{ headers, body }] = captured;
    assert.equal(server.webhook({ headers, rawBody: `${body} ` }).isValid(), false);
  });

  // HOOK-18
  test("every event has an id of its own", () => {
    const ids = captured.flatMap(({ headers }) => headers["x-fulmar-event-ids"].split(","));
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(ids.length, accepted.flatMap((webhook) => webhook.getEvents()).length);
  });
});
