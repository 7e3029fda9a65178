// Runs in the browser: opens pusher-js clients and writes down what they say, for the test to read.
"use strict";

window.log = [];

window.openClient = (key, options) => {
  const client = new Pusher(key, options);
  client.connection.bind("state_change", ({ current }) => window.log.push({ state: current }));
  client.connection.bind("error", (error) => window.log.push({ error: error.data ?? error.error?.data ?? null }));
  client.connection.bind("message", ({ event }) => window.log.push({ message: event }));
  window.client = client;
};

window.join = (name, events) => {
  const channel = window.client.subscribe(name);
  for (const event of ["pusher:subscription_succeeded", "pusher:subscription_error", ...events]) {
    channel.bind(event, (data) => window.log.push({ channel: name, event, data: plain(data) }));
  }
};

// The roster of pusher-js holds methods, which a test cannot be handed.
function plain(data) {
  return data === undefined ? null : JSON.parse(JSON.stringify(data));
}
