// What a person's browser sees: pusher-js as the web build in real Chromium, and the node's own demo page.
"use strict";

const assert = require("node:assert/strict");
const { after, before, describe, test } = require("node:test");
const { chromium } = require("playwright-core");
const { OwnNode, apps, settings, unique } = require("../support/fulmar");
const { serveSite } = require("../support/site");
const { serverFor } = require("../support/clients");

// `launch` makes an empty profile of its own and removes it; --no-sandbox because tests may run as root.
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];
const DEADLINE_MS = 20000; // A new page alone can take seconds where cores are few.
const server = serverFor();
let browser;
let site;

before(async () => {
  site = await serveSite(server);
  browser = await chromium.launch({ executablePath: settings.chromium, args: FLAGS, timeout: 30000 });
});

after(async () => {
  await browser?.close();
  site?.closeAllConnections();
  site?.close();
});

/** A page of the customer's site in a profile of its own. */
async function visit(t, { host = "127.0.0.1", context: wishes = {} } = {}) {
  const context = await browser.newContext(wishes);
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(`http://${host}:${site.address().port}/`);
  return page;
}

function pageOptions({ port = settings.port, user = "ana", ...rest } = {}) {
  return {
    cluster: "mt1",
    wsHost: "127.0.0.1",
    wsPort: port,
    wssPort: port,
    forceTLS: false,
    enabledTransports: ["ws", "wss"],
    channelAuthorization: { endpoint: "/pusher/auth", params: { user_id: user } },
    ...rest,
  };
}

/** Opens a client in the page without waiting for anything. */
function open(page, { app = apps.everything, ...rest } = {}) {
  return page.evaluate(([key, options]) => window.openClient(key, options), [app.key, pageOptions(rest)]);
}

/** The first entry of the page's log from index `from` on that has all of `wanted`. */
async function logged(page, wanted, from = 0) {
  const find = ([pattern, start]) =>
    window.log.slice(start).find((entry) => Object.entries(pattern).every(([key, value]) => entry[key] === value));
  try {
    return await (await page.waitForFunction(find, [wanted, from], { polling: 20, timeout: DEADLINE_MS })).jsonValue();
  } catch (problem) {
    const log = await page.evaluate(() => JSON.stringify(window.log)).catch(() => "(the page is gone)");
    throw new Error(`no ${JSON.stringify(wanted)} in the page's log: ${log}`, { cause: problem });
  }
}

async function connected(t, wishes) {
  const page = await visit(t, wishes);
  await open(page, wishes);
  await logged(page, { state: "connected" });
  return page;
}

/** Subscribes in the page and gives what `subscription_succeeded` brought. */
async function join(page, name, ...events) {
  await page.evaluate(([channel, wanted]) => window.join(channel, wanted), [name, events]);
  return (await logged(page, { channel: name, event: "pusher:subscription_succeeded" })).data;
}

const heard = async (page, channel, event, from) => (await logged(page, { channel, event }, from)).data;

describe("pusher-js in Chromium", { concurrency: 4 }, () => {
  // WS-1, WS-65, WS-119
  test("a page hears what the server publishes", async (t) => {
    const page = await connected(t);
    const name = unique("page");
    await join(page, name, "event");
    await server.trigger(name, "event", { text: "Zoë ☃ 🦉 </script>", list: [1, null] });
    assert.deepEqual(await heard(page, name, "event"), { text: "Zoë ☃ 🦉 </script>", list: [1, null] });
  });

  // WS-50, WS-57
  test("the site's endpoint lets a page into a private channel; a forged answer of it shows in the page", async (t) => {
    const page = await connected(t);
    await join(page, unique("private-page"));
    const forged = unique("private-forged");
    await page.evaluate((name) => window.join(name, []), forged);
    const { data } = await logged(page, { channel: forged, event: "pusher:subscription_error" });
    assert.equal(data.status, 401);
    await join(page, unique("private-after"));
  });

  // WS-39, WS-82, WS-83
  test("a second page joins, reloads and closes, and the first one sees each of it", async (t) => {
    const name = unique("presence-pages");
    const ana = await connected(t, { user: "ana" });
    await join(ana, name, "pusher:member_added", "pusher:member_removed");
    const bob = await connected(t, { user: "bob" });
    assert.equal((await join(bob, name)).count, 2);
    assert.deepEqual(await heard(ana, name, "pusher:member_added"), { id: "bob", info: { name: "user bob" } });
    await bob.reload();
    assert.equal((await heard(ana, name, "pusher:member_removed")).id, "bob");
    const before = await ana.evaluate(() => window.log.length);
    await open(bob, { user: "bob" });
    await join(bob, name);
    assert.equal((await heard(ana, name, "pusher:member_added", before)).id, "bob");
    await bob.close();
    assert.equal((await heard(ana, name, "pusher:member_removed", before)).id, "bob");
  });

  // WS-69, WS-74
  test("pages talk to each other by client events", async (t) => {
    const name = unique("presence-talk");
    const [ana, bob] = [await connected(t, { user: "ana" }), await connected(t, { user: "bob" })];
    await join(ana, name);
    await join(bob, name, "client-typing");
    await ana.evaluate((channel) => window.client.channel(channel).trigger("client-typing", { text: "…" }), name);
    assert.deepEqual(await heard(bob, name, "client-typing"), { text: "…" });
  });

  // WS-92, WS-96
  test("encrypted and cache channels work in a page", async (t) => {
    const page = await connected(t);
    const [sealed, kept] = [unique("private-encrypted-page"), unique("cache-page")];
    await server.trigger(kept, "event", "kept");
    await join(page, kept, "event");
    assert.equal(await heard(page, kept, "event"), "kept");
    await join(page, sealed, "event");
    await server.trigger(sealed, "event", { secret: true });
    assert.deepEqual(await heard(page, sealed, "event"), { secret: true });
  });

  // WS-63
  test("after a crash and restart of the node the page is back with its channels", async (t) => {
    const node = await OwnNode.start(t);
    const page = await connected(t, { port: node.port });
    const name = unique("private-page-restart");
    await join(page, name, "event");
    const before = await page.evaluate(() => window.log.length);
    await node.kill();
    await node.run();
    await logged(page, { channel: name, event: "pusher:subscription_succeeded" }, before);
    await serverFor(apps.everything, { port: String(node.port) }).trigger(name, "event", "again");
    assert.equal(await heard(page, name, "event", before), "again");
  });

  // WS-5
  test("a page with an unknown key is told 4001 and stays away", async (t) => {
    const page = await visit(t);
    await open(page, { app: { key: "key-of-nobody" } });
    assert.equal((await logged(page, { state: "disconnected" })).state, "disconnected");
    assert.ok((await page.evaluate(() => window.log)).some(({ error }) => error?.code === 4001));
  });

  // WS-8
  test("only pages of an allowed origin connect", async (t) => {
    await connected(t, { app: apps.origins, host: "127.0.0.1" });
    const stranger = await visit(t, { host: "localhost" });
    await open(stranger, { app: apps.origins });
    await logged(stranger, { state: "disconnected" });
    assert.ok((await stranger.evaluate(() => window.log)).some(({ error }) => error?.code === 4009));
  });

  // WS-7
  test(
    "a page is told 4000 by an app that is TLS only and comes back over wss",
    { skip: !settings.tls_port && "no openssl" },
    async (t) => {
      const page = await connected(t, {
        app: apps.tls_only,
        wssPort: settings.tls_port,
        context: { ignoreHTTPSErrors: true },
      });
      assert.ok((await page.evaluate(() => window.log)).some(({ error }) => error?.code === 4000));
    },
  );

  // WS-34, WS-36, WS-37
  test("a page that sends nothing itself is kept alive by the browser's answers to pings", async (t) => {
    const page = await visit(t);
    await page.evaluate(
      ([key, port]) => {
        // No SDK: it would send pings of its own. Its close is what must not be logged.
        const silent = new WebSocket(`ws://127.0.0.1:${port}/app/${key}?protocol=7`);
        silent.onclose = ({ code }) => window.log.push({ closed: code });
        silent.onmessage = ({ data }) => window.log.push({ silent: JSON.parse(data).event });
      },
      [apps.everything.key, settings.brisk_port],
    );
    await logged(page, { silent: "pusher:connection_established" });
    await open(page, { port: settings.brisk_port });
    // Three pings of the SDK's client take longer than the node waits for a silent one (2 s and 2 s more).
    for (let from = 0, pongs = 0; pongs < 3; pongs += 1) {
      await logged(page, { message: "pusher:pong" }, from);
      from = await page.evaluate(() => window.log.findLastIndex(({ message }) => message === "pusher:pong") + 1);
    }
    assert.ok(!(await page.evaluate(() => window.log)).some(({ closed }) => closed !== undefined));
  });

  // WS-65
  test("the worker build works in a Web Worker", async (t) => {
    const page = await visit(t);
    const name = unique("worker");
    const { channelAuthorization, ...options } = pageOptions();
    await page.evaluate(
      (start) => {
        const worker = new Worker("/worker.js");
        worker.onmessage = ({ data }) => window.log.push(data);
        worker.postMessage(start);
      },
      { key: apps.everything.key, options, name },
    );
    await logged(page, { worker: "subscribed" });
    await server.trigger(name, "event", { in: "a worker" });
    assert.deepEqual((await logged(page, { worker: "heard" })).data, { in: "a worker" });
  });

  // HTTP-23, WS-65
  test("laravel-echo as a script tag hears an event class", async (t) => {
    const page = await visit(t);
    const name = unique("echo-page");
    await page.evaluate(
      ([key, options, channel]) => {
        const echo = new (Echo.default ?? Echo)({ broadcaster: "pusher", key, ...options });
        echo
          .channel(channel)
          .subscribed(() => window.log.push({ echo: "subscribed" }))
          .listen("OrderShipped", (data) => window.log.push({ echo: "heard", data }));
      },
      [apps.everything.key, pageOptions(), name],
    );
    await logged(page, { echo: "subscribed" });
    await server.trigger(name, "App\\Events\\OrderShipped", { id: 7 });
    assert.deepEqual((await logged(page, { echo: "heard" })).data, { id: 7 });
  });
});

describe("the demo page in Chromium", () => {
  // HTTP-57
  test("a person presses the button and sees the message arrive, and nothing is fetched from elsewhere", async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const [foreign, broken] = [[], []];
    page.on(
      "request",
      (request) => new URL(request.url()).host === `127.0.0.1:${settings.demo_port}` || foreign.push(request.url()),
    );
    page.on("pageerror", (problem) => broken.push(problem.message));
    await page.goto(`http://127.0.0.1:${settings.demo_port}/`);
    await page.getByRole("status").getByText("subscribed").waitFor();
    const received = page.getByRole("list", { name: "Messages received" }).getByRole("listitem");
    const button = page.getByRole("button", { name: "Send a message" });
    await button.click();
    await received.filter({ hasText: "Hello number 1" }).waitFor();
    await button.click();
    await received.filter({ hasText: "Hello number 2" }).waitFor();
    assert.equal(await received.count(), 2);
    assert.deepEqual({ foreign, broken }, { foreign: [], broken: [] });
  });

  // HTTP-57
  test("the page hears what the server SDK publishes with the snippet's options", async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    await page.goto(`http://127.0.0.1:${settings.demo_port}/`);
    await page.getByRole("status").getByText("subscribed").waitFor();
    await page.getByRole("tab", { name: "Node.js" }).click();
    const snippet = await page.getByRole("tabpanel").textContent();
    const option = (name) => new RegExp(`${name}: "([^"]*)"`).exec(snippet)[1];
    // The secret is printed at start and must not be in the page.
    const demo = { id: option("appId"), key: option("key"), secret: "demo-secret" };
    assert.ok(!(await page.content()).includes(demo.secret));
    await serverFor(demo, { host: option("host"), port: option("port") }).trigger("my-channel", "my-event", {
      message: "from the SDK",
    });
    await page.getByRole("listitem").filter({ hasText: "my-event: from the SDK" }).waitFor();
  });

  // HTTP-57
  test("a node without the demo app has no such page", async () => {
    assert.equal((await fetch(`http://127.0.0.1:${settings.port}/`)).status, 404);
  });
});
