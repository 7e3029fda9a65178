// A pusher-js client for suites whose language has no client SDK. Subscribes to the channels named on the command line,
// prints `{"ready":SOCKET_ID}` once all are joined and then one JSON line for each event of the server. `--member ID`
// before the names is the user of presence channels, a number where it looks like one. Ends when its input does.
"use strict";

const { optionsFor } = require("./clients");
const { apps } = require("./fulmar");
const Pusher = require("pusher-js");

const names = process.argv.slice(2);
const user = names[0] === "--member" ? names.splice(0, 2)[1] : undefined;
const member = user && { user_id: /^\d+$/.test(user) ? Number(user) : user };
const client = new Pusher(apps.everything.key, optionsFor({ member }));
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

let missing = names.length;
for (const name of names) {
  const channel = client.subscribe(name);
  channel.bind("pusher:subscription_succeeded", () => {
    missing -= 1;
    if (missing === 0) print({ ready: client.connection.socket_id });
  });
  channel.bind_global((event, data) => {
    if (!event.startsWith("pusher:")) print({ channel: name, event, data });
  });
}
process.stdin.on("end", () => process.exit(0)).resume();
