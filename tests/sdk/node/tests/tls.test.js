// What clients see of TLS with a certificate that nobody signed; the runner lets this child accept it.
"use strict";

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");
const { apps, settings, unique } = require("../support/fulmar");
const { connect, hear, open, serverFor, subscribe, VERSIONS } = require("../support/clients");

const skip = !settings.tls_port && "no openssl on this machine to make a certificate with";
const secure = { app: apps.tls_only, options: { wssPort: settings.tls_port } };
const server = serverFor(apps.tls_only, { useTLS: true, port: String(settings.tls_port) });

describe("TLS", { concurrency: true }, () => {
  for (const version of Object.keys(VERSIONS)) {
    // WS-7
    test(
      `pusher-js ${version} is told 4000 by an app that is TLS only and comes back over wss at once`,
      { skip },
      async (t) => {
        const client = open(t, { ...secure, version });
        const error = await client.errors.next();
        assert.equal((error.data ?? error.error?.data).code, 4000);
        await client.states.first((state) => state === "connected", 5000);
        await subscribe(client, unique("private-over-tls"));
      },
    );
  }

  // OPS-19
  test("clients and the server SDK meet over TLS from the start", { skip }, async (t) => {
    const client = await connect(t, { ...secure, options: { ...secure.options, forceTLS: true } });
    const channel = await subscribe(client, unique("secure"));
    const heard = hear(channel, "event");
    await server.trigger(channel.name, "event", { over: "TLS" });
    assert.deepEqual(await heard.next(), { over: "TLS" });
    const { channels } = await (
      await server.get({ path: "/channels", params: { filter_by_prefix: channel.name } })
    ).json();
    assert.deepEqual(channels, { [channel.name]: {} });
  });
});
