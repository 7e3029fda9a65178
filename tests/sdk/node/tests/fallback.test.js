// pusher-js forced onto each of its HTTP fallback transports: the conversations it has over WebSockets, and what only
// these transports have. In Node and, as the web build, in Chromium; the peer beside them speaks WebSocket.
"use strict";

const assert = require("node:assert/strict");
const { after, before, describe, test } = require("node:test");
const { chromium } = require("playwright-core");
const { OwnNode, apps, balancer, settings, unique } = require("../support/fulmar");
const { serveSite } = require("../support/site");
const { Inbox, within } = require("../support/waiting");
const clients = require("../support/clients");

const { hear, serverFor, subscribe } = clients;
const server = serverFor();
const TRANSPORTS = ["xhr_streaming", "xhr_polling"];
const STREAM_UNITS_MAX = 256 * 1024; // Beyond it pusher-js asks for the next stream.

/** What forces pusher-js onto `transport` at `port`. */
function forced(transport, port = settings.port) {
  return { enabledTransports: [transport], httpHost: settings.host, httpPort: port, httpsPort: port };
}

/** Gives a client the time to ask for what comes next: between two polls it is nowhere to be seen. */
async function settled(port = settings.port) {
  for (let round = 0; round < 5; round += 1) await serverFor(apps.everything, { port: String(port) }).get({ path: "/channels" });
}

/** Waits until a client listens: one of its receive requests is among `open`, and stays there while the node answers others. */
async function receiving(open, port) {
  let stays = new Set();
  const found = async () => {
    for (let rounds = 0; rounds < 3; rounds = stays.size ? rounds + 1 : 0) {
      if (!stays.size) stays = new Set(open);
      await settled(port);
      stays = new Set([...stays].filter((request) => open.has(request)));
    }
  };
  await within(found(), "a receive request that stays open");
}

for (const transport of TRANSPORTS) {
  for (const version of [8, 7, 4]) {
    const connect = (t, { port, ...rest } = {}) =>
      clients.connect(t, { version, port, options: forced(transport, port), ...rest });
    const open = (t, { port, ...rest } = {}) =>
      clients.open(t, { version, port, options: forced(transport, port), ...rest });

    describe(`pusher-js ${version} in Node over ${transport}`, { concurrency: 4 }, () => {
      // FB-1, FB-3, FB-5
      test("every kind of channel is joined and hears what is published, in order", async (t) => {
        const client = await connect(t, { member: { user_id: "ann", user_info: { name: "Ann" } } });
        for (const name of [unique("public"), unique("private-a"), unique("presence-a"), unique("cache-a")]) {
          const channel = await subscribe(client, name);
          const heard = hear(channel, "event");
          for (let number = 0; number < 20; number += 1) await server.trigger(name, "event", { number, text: "Zoë ☃ 🦉 \u2028\n\"" });
          const numbers = (await heard.take(20)).map((data) => (assert.equal(data.text, "Zoë ☃ 🦉 \u2028\n\""), data.number));
          assert.deepEqual(numbers, [...Array(20).keys()]);
        }
        assert.equal(client.connection.state, "connected");
      });

      // FB-3, FB-6
      test("client events go both ways between it and a WebSocket", async (t) => {
        const [here, there] = [await connect(t, { member: { user_id: "here" } }), await clients.connect(t, { member: { user_id: "there" } })];
        const name = unique("presence-talk");
        const [mine, theirs] = [await subscribe(here, name), await subscribe(there, name)];
        const [toMe, toThem] = [hear(mine, "client-talk"), hear(theirs, "client-talk")];
        assert.ok(mine.trigger("client-talk", { from: "here" }));
        assert.deepEqual(await toThem.next(), { from: "here" });
        assert.ok(theirs.trigger("client-talk", { from: "there" }));
        assert.deepEqual(await toMe.next(), { from: "there" });
      });

      // FB-3
      test("a publish that excludes its socket does not reach it", async (t) => {
        const client = await connect(t);
        const channel = await subscribe(client, unique("excluded"));
        const heard = hear(channel, "event");
        await server.trigger(channel.name, "event", "not for it", { socket_id: client.connection.socket_id });
        await server.trigger(channel.name, "event", "for all");
        assert.equal(await heard.next(), "for all");
      });

      // FB-3, FB-13
      test("a client that disconnects leaves its channels at once", async (t) => {
        const [here, there] = [await connect(t, { member: { user_id: "here" } }), await clients.connect(t, { member: { user_id: "there" } })];
        const name = unique("presence-leaving");
        const theirs = await subscribe(there, name);
        const [added, removed] = [hear(theirs, "pusher:member_added"), hear(theirs, "pusher:member_removed")];
        await subscribe(here, name);
        assert.equal((await added.next()).id, "here");
        await settled();
        here.disconnect();
        assert.equal((await removed.next(5000)).id, "here");
      });

      // FB-10, FB-16
      test("more than 256 KiB are received in order and without loss", async (t) => {
        const client = await connect(t);
        const channel = await subscribe(client, unique("flood"));
        const heard = hear(channel, "event");
        const socket = client.connection.socket_id;
        const text = "äbc\"🦉".repeat(900);
        for (let number = 0; number < 90; number += 1) await server.trigger(channel.name, "event", { number, text });
        const numbers = (await heard.take(90)).map(({ number }) => number);
        assert.deepEqual(numbers, [...Array(90).keys()]);
        assert.ok(90 * text.length > STREAM_UNITS_MAX);
        assert.equal(client.connection.socket_id, socket, "it is still the same session");
        assert.deepEqual(client.errors.items, []);
      });

      // FB-21
      test("a draining node sends it to the next one, where it is subscribed again", async (t) => {
        const [old, next] = [await OwnNode.start(t), await OwnNode.start(t)];
        const entrance = await balancer(t, old.port);
        const client = await connect(t, { port: entrance.port });
        const channel = await subscribe(client, unique("private-moving"));
        const [answers, heard] = [hear(channel, "pusher:subscription_succeeded"), hear(channel, "event")];
        await receiving(entrance.receives, old.port);
        entrance.target = next.port;
        const ended = old.stop();
        await answers.next();
        const codes = client.errors.items.map((error) => (error.data ?? error.error?.data).code);
        assert.ok(codes.includes(4200), `${codes}`);
        await serverFor(apps.everything, { port: String(next.port) }).trigger(channel.name, "event", "on the next node");
        assert.equal(await heard.next(), "on the next node");
        assert.equal(await ended, 0);
      });

      // FB-3
      test("after a crash and restart of the node it is back with its channels", async (t) => {
        const node = await OwnNode.start(t);
        const client = await connect(t, { port: node.port });
        const channel = await subscribe(client, unique("private-restart"));
        const [answers, heard] = [hear(channel, "pusher:subscription_succeeded"), hear(channel, "event")];
        await node.kill();
        await node.run();
        await answers.next(30000); // A try that meets no node is followed by the next after 15 s.
        await serverFor(apps.everything, { port: String(node.port) }).trigger(channel.name, "event", "again");
        assert.equal(await heard.next(), "again");
      });

      // FB-2
      test("an unknown key is told 4001 and stays away", async (t) => {
        const client = open(t, { app: { ...apps.everything, key: "key-of-nobody" } });
        const error = await client.errors.next();
        assert.equal((error.data ?? error.error?.data).code, 4001);
        await client.states.first((state) => state === "disconnected");
      });

      // FB-15
      test("it stays connected on a node that pings after two seconds of silence", async (t) => {
        const client = await connect(t, { port: settings.brisk_port });
        const channel = await subscribe(client, unique("quiet"));
        // The node waits 4 s in all; only then is the silence proven harmless.
        await within(new Promise((resolve) => setTimeout(resolve, 5000)), "the silence");
        const heard = hear(channel, "event");
        await serverFor(apps.everything, { port: String(settings.brisk_port) }).trigger(channel.name, "event", "still here");
        assert.equal(await heard.next(), "still here");
        assert.deepEqual(client.states.items.filter((state) => state !== "connecting"), ["connected"]);
      });
    });
  }
}

describe("pusher-js in Chromium", { skip: !settings.chromium && "no Chromium" }, () => {
  let browser;
  let site;

  before(async () => {
    site = await serveSite(server);
    browser = await chromium.launch({
      executablePath: settings.chromium, timeout: 30000,
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"],
    });
  });

  after(async () => {
    await browser?.close();
    site?.closeAllConnections();
    site?.close();
  });

  for (const transport of TRANSPORTS) {
    /** A page with a client whose connection is established, and what it says, in order. */
    async function connected(t, { port, user = "ana", app = apps.everything, until = "connected", secure = false } = {}) {
      const context = await browser.newContext({ ignoreHTTPSErrors: true }); // The certificate is one that nobody signed.
      t.after(() => context.close());
      const page = await context.newPage();
      page.receives = new Inbox("receive requests");
      page.open = new Set(); // Receive requests that have no end yet.
      page.on("request", (request) => {
        const path = new URL(request.url()).pathname;
        if (request.method() !== "POST" || !/\/xhr(_streaming)?$/.test(path)) return;
        page.receives.put(path);
        page.open.add(request);
      });
      page.on("requestfinished", (request) => page.open.delete(request));
      page.on("requestfailed", (request) => page.open.delete(request));
      await page.goto(`http://127.0.0.1:${site.address().port}/`);
      await page.evaluate(([key, options]) => window.openClient(key, options), [app.key, {
        cluster: "mt1", wsHost: settings.host, forceTLS: secure, ...forced(transport, port),
        channelAuthorization: { endpoint: "/pusher/auth", params: { user_id: user } },
      }]);
      await logged(page, { state: until });
      return page;
    }

    describe(`over ${transport}`, { concurrency: 4 }, () => {
      // FB-3, FB-4
      test("a page of another origin joins every kind of channel and hears what is published", async (t) => {
        const page = await connected(t);
        for (const name of [unique("page"), unique("private-page"), unique("presence-page")]) {
          await join(page, name, "event");
          for (let number = 0; number < 10; number += 1) await server.trigger(name, "event", { number, text: "Zoë ☃ 🦉" });
          await logged(page, { channel: name, count: 10 });
          assert.deepEqual(await numbers(page, name), [...Array(10).keys()]);
        }
      });

      // FB-3, FB-13
      test("client events go both ways between a page and a WebSocket, which sees the page close", async (t) => {
        const there = await clients.connect(t, { member: { user_id: "there" } });
        const page = await connected(t, { user: "here" });
        const name = unique("presence-page-talk");
        const theirs = await subscribe(there, name);
        const [talk, removed] = [hear(theirs, "client-talk"), hear(theirs, "pusher:member_removed")];
        await join(page, name, "client-talk");
        await page.evaluate((channel) => window.client.channel(channel).trigger("client-talk", { from: "here" }), name);
        assert.deepEqual(await talk.next(), { from: "here" });
        theirs.trigger("client-talk", { from: "there" });
        assert.deepEqual((await logged(page, { channel: name, event: "client-talk" })).data, { from: "there" });
        await receiving(page.open);
        await page.close();
        assert.equal((await removed.next(10000)).id, "here");
      });

      // FB-10
      test("a page receives more than 256 KiB in order and without loss", async (t) => {
        const page = await connected(t);
        const name = unique("page-flood");
        await join(page, name, "event");
        const socket = await page.evaluate(() => window.client.connection.socket_id);
        const text = "äbc\"🦉".repeat(900);
        for (let number = 0; number < 90; number += 1) await server.trigger(name, "event", { number, text });
        await logged(page, { channel: name, count: 90 });
        assert.deepEqual(await numbers(page, name), [...Array(90).keys()]);
        assert.equal(await page.evaluate(() => window.client.connection.socket_id), socket);
        assert.ok(page.receives.items.length >= 2, "the page asked for the next stream");
        assert.equal(new Set(page.receives.items).size, 1, "of the same session");
      });

      // FB-21
      test("a draining node sends a page to the next one", async (t) => {
        const [old, next] = [await OwnNode.start(t), await OwnNode.start(t)];
        const entrance = await balancer(t, old.port);
        const page = await connected(t, { port: entrance.port });
        const name = unique("private-page-moving");
        await join(page, name, "event");
        await receiving(page.open, old.port);
        const from = await page.evaluate(() => window.log.length);
        entrance.target = next.port;
        const ended = old.stop();
        await logged(page, { channel: name, event: "pusher:subscription_succeeded" }, from);
        await serverFor(apps.everything, { port: String(next.port) }).trigger(name, "event", { number: 7 });
        assert.deepEqual((await logged(page, { channel: name, event: "event" }, from)).data, { number: 7 });
        assert.ok((await page.evaluate(() => window.log)).some(({ error }) => error?.code === 4200));
        assert.equal(await ended, 0);
      });

      // FB-3
      test("after a crash and restart of the node a page is back with its channels", async (t) => {
        const node = await OwnNode.start(t);
        const page = await connected(t, { port: node.port });
        const name = unique("private-page-restart");
        await join(page, name, "event");
        const from = await page.evaluate(() => window.log.length);
        await node.kill();
        await node.run();
        await logged(page, { channel: name, event: "pusher:subscription_succeeded" }, from);
      });

      // FB-1, FB-3
      test("a page connects over TLS", { skip: !settings.tls_port && "no openssl" }, async (t) => {
        const page = await connected(t, { port: settings.tls_port, secure: true });
        const name = unique("private-secure");
        await join(page, name, "event");
        await server.trigger(name, "event", { number: 1 });
        assert.deepEqual((await logged(page, { channel: name, event: "event" })).data, { number: 1 });
      });

      // FB-2
      test("a page with an unknown key is told 4001 and stays away", async (t) => {
        const page = await connected(t, { app: { key: "key-of-nobody" }, until: "disconnected" });
        assert.ok((await page.evaluate(() => window.log)).some(({ error }) => error?.code === 4001));
      });
    });
  }

  /** Waits for the first entry of the page's log from `from` on that fits; with `count`, for so many events. */
  async function logged(page, { count, ...wanted }, from = 0) {
    const find = ([pattern, start, many]) => {
      const fits = (entry) => Object.entries(pattern).every(([key, value]) => entry[key] === value);
      const found = window.log.slice(start).filter(fits);
      return found.length >= many && found[0];
    };
    const pattern = count ? { ...wanted, event: "event" } : wanted;
    try {
      return await (await page.waitForFunction(find, [pattern, from, count ?? 1], { polling: 20, timeout: 30000 })).jsonValue();
    } catch (problem) {
      const log = await page.evaluate(() => JSON.stringify(window.log).slice(-3000)).catch(() => "(the page is gone)");
      throw new Error(`no ${JSON.stringify(pattern)} in the page's log: ${log}`, { cause: problem });
    }
  }

  async function join(page, name, ...events) {
    await page.evaluate(([channel, wanted]) => window.join(channel, wanted), [name, events]);
    await logged(page, { channel: name, event: "pusher:subscription_succeeded" });
  }

  function numbers(page, name) {
    return page.evaluate((channel) => window.log.filter((entry) => entry.channel === channel && entry.event === "event").map((entry) => entry.data.number), name);
  }
});
