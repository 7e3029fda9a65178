// pusher-js in the versions that applications still ship, and the Node server SDK, each configured in its own dialect.
"use strict";

const HttpPusher = require("pusher");
const { apps, settings } = require("./fulmar");
const { Inbox } = require("./waiting");

/** The documented 32 bytes 00..1f: the server library keeps them, the node under test never sees them. */
const MASTER_KEY_BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/** How each major version is loaded, and how it is given an authorizer. */
const VERSIONS = {
  8: {
    load: () => require("pusher-js"),
    encryption: true,
    authorization: (ask) => ({ channelAuthorization: { customHandler: ask } }),
  },
  7: { load: () => require("pusher-js-7"), encryption: true, authorization: legacyAuthorizer },
  4: { load: () => require("pusher-js-4"), encryption: false, authorization: legacyAuthorizer },
};

function legacyAuthorizer(ask) {
  const authorizer = (channel) => ({
    authorize: (socketId, callback) => ask({ socketId, channelName: channel.name }, callback),
  });
  return { authorizer };
}

/** The customer's server: the Node server SDK with the credentials of `app`. */
function serverFor(app = apps.everything, options = {}) {
  const { id, key, secret } = app;
  return new HttpPusher({
    appId: id,
    key,
    secret,
    host: settings.host,
    port: String(settings.port),
    useTLS: false,
    encryptionMasterKeyBase64: MASTER_KEY_BASE64,
    ...options,
  });
}

/** What the customer's authorization endpoint does; `member` is the presence data of the user who asks. */
function authorizerFor(server, member) {
  return ({ socketId, channelName }, callback) => {
    const isPresence = channelName.startsWith("presence-");
    callback(null, server.authorizeChannel(socketId, channelName, isPresence ? member : undefined));
  };
}

/** An authorizer whose signatures were made with another secret. */
function forgerFor(app) {
  return authorizerFor(serverFor({ ...app, secret: "a secret that nobody configured" }), { user_id: "forger" });
}

/** Options of a client of any version for the node at `port`. */
function optionsFor({ app = apps.everything, version = 8, port = settings.port, member, authorize, options = {} }) {
  const ask = authorize ?? authorizerFor(serverFor(app), member);
  return {
    cluster: "mt1",
    wsHost: settings.host,
    wsPort: port,
    wssPort: port,
    forceTLS: false,
    disableStats: true,
    enabledTransports: ["ws", "wss"],
    ...VERSIONS[version].authorization(ask),
    ...options,
  };
}

/** Opens a connection that ends with the test. `errors` and `states` see everything from the first moment on. */
function open(t, { app = apps.everything, version = 8, ...rest } = {}) {
  const Pusher = VERSIONS[version].load();
  const client = new Pusher(app.key, optionsFor({ app, version, ...rest }));
  t.after(() => client.disconnect());
  client.errors = new Inbox("an error of the connection");
  client.states = new Inbox("a state of the connection");
  client.connection.bind("error", client.errors.push);
  client.connection.bind("state_change", ({ current }) => client.states.put(current));
  return client;
}

/** Opens a connection and waits until it is established. */
async function connect(t, settingsOfClient) {
  const client = open(t, settingsOfClient);
  await client.states.first((state) => state === "connected");
  return client;
}

/** Subscribes and waits for the answer; `channel.answer` is what `subscription_succeeded` brought. */
async function subscribe(client, name) {
  const answers = new Inbox(`subscription_succeeded of ${name}`);
  const channel = client.subscribe(name);
  channel.bind("pusher:subscription_succeeded", (data) => answers.put(data));
  channel.answer = await answers.next();
  return channel;
}

/** An inbox of the data that `event` brings to the channel. */
function hear(channel, event) {
  const inbox = new Inbox(`${event} on ${channel.name}`);
  channel.bind(event, (data) => inbox.put(data));
  return inbox;
}

module.exports = {
  MASTER_KEY_BASE64,
  VERSIONS,
  authorizerFor,
  connect,
  forgerFor,
  hear,
  open,
  optionsFor,
  serverFor,
  subscribe,
};
