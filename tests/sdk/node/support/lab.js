// One official SDK of the outage lab, on its own: either the Node server SDK, which publishes, or pusher-js, which subscribes.
// It notes what happens, one JSON object a line, and judges nothing. Started as `node lab.js SETTINGS`, ended by SIGTERM.
"use strict";

const settings = JSON.parse(process.argv[2]);
const EVERY_MS = 200;

const note = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

function publish() {
  const Pusher = require("pusher");
  const { id, key, secret, host, port, channel } = settings;
  const pusher = new Pusher({ appId: id, key, secret, host, port: String(port), useTLS: false, timeout: 5000 });
  let sent = 0;
  const under = new Set();
  const timer = setInterval(() => {
    const [number, at] = [++sent, Date.now()];
    const call = pusher.trigger(channel, "lab", { number }).then(
      (answer) => note({ sent: number, at, status: answer.status, took: Date.now() - at }),
      (problem) => note({ sent: number, at, status: problem.status ?? null, took: Date.now() - at }),
    );
    under.add(call);
    call.then(() => under.delete(call));
  }, EVERY_MS);
  process.on("SIGTERM", async () => {
    clearInterval(timer);
    await Promise.all(under);
    process.exit(0);
  });
}

function subscribe() {
  const Pusher = require("pusher-js");
  const { key, host, port, channel } = settings;
  const pusher = new Pusher(key, {
    cluster: "", wsHost: host, wsPort: port, wssPort: port, forceTLS: false, enabledTransports: ["ws"], enableStats: false,
  });
  let isUp = false;
  pusher.connection.bind("state_change", ({ current }) => {
    if (isUp && current !== "connected") {
      isUp = false;
      note({ down: Date.now(), state: current });
    }
  });
  const room = pusher.subscribe(channel);
  room.bind("pusher:subscription_succeeded", () => {
    isUp = true;
    note({ up: Date.now() });
  });
  room.bind("lab", ({ number }) => note({ got: number, at: Date.now() }));
}

({ publisher: publish, subscriber: subscribe })[settings.role]();
