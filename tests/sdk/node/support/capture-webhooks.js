// Makes a node tell everything a webhook can tell, and writes down each request exactly as it arrived: the suites of all
// languages then ask their libraries whether they take it. Prints nothing; the argument is the file to write.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const { settings } = require("./fulmar");
const { Inbox, within } = require("./waiting");
const { optionsFor, serverFor } = require("./clients");
const Pusher = require("pusher-js");

const { port, receiver_port: receiverPort, kinds } = settings.hooks;
const server = serverFor(undefined, { port: String(port) });

/** Answers every request with 200 and keeps it. */
function receive(requests) {
  const receiver = http.createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      requests.put({ headers: request.headers, body: Buffer.concat(pieces).toString("utf8") });
      response.end();
    });
  });
  return new Promise((resolve) => receiver.listen(receiverPort, "127.0.0.1", () => resolve(receiver)));
}

/** Comes, says something, signs in, and goes. */
async function visit() {
  const authenticate = ({ socketId }, callback) => callback(null, server.authenticateUser(socketId, { id: "ana" }));
  const options = { userAuthentication: { customHandler: authenticate } };
  const client = new Pusher(server.config.token.key, optionsFor({ port, member: { user_id: "ana" }, options }));
  const joined = (name) =>
    new Promise((resolve) => client.subscribe(name).bind("pusher:subscription_succeeded", resolve));
  await Promise.all([joined("presence-hooks"), joined("cache-hooks"), joined("hooks")]);
  client.channel("presence-hooks").trigger("client-typing", { text: "Zoë ☃", nested: [1, { a: true }] });
  client.channel("presence-hooks").trigger("client-plain", "no JSON at all");
  client.signin();
  await client.user.signinDonePromise;
  client.disconnect();
}

async function main(file) {
  const requests = new Inbox("webhooks of every kind");
  const receiver = await receive(requests);
  await visit();
  const seen = new Set();
  const kept = [];
  while (kinds.some((kind) => !seen.has(kind))) {
    const request = await requests.next();
    kept.push(request);
    for (const event of JSON.parse(request.body).events) seen.add(event.name);
  }
  fs.writeFileSync(file, JSON.stringify(kept));
  receiver.close();
}

within(main(process.argv[2]), "everything a webhook can tell", 30000).then(
  () => process.exit(0),
  (problem) => {
    console.error(problem);
    process.exit(1);
  },
);
