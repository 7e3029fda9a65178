// Runs in a Web Worker: one client of pusher-js' worker build that tells the page what its channel hears.
"use strict";

importScripts("/pusher.worker.js");

onmessage = ({ data: { key, options, name } }) => {
  const channel = new Pusher(key, options).subscribe(name);
  channel.bind("pusher:subscription_succeeded", () => postMessage({ worker: "subscribed" }));
  channel.bind("event", (data) => postMessage({ worker: "heard", data }));
};
