// What the suites know about the nodes under test, and nodes of their own that they may kill. Every process started
// here is ended by its id when the test is over.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const { within } = require("./waiting");

const settings = JSON.parse(fs.readFileSync(process.env.FULMAR_SDK_SETTINGS, "utf8"));
const { apps } = settings;

let names = 0;

/** A channel name that no other test uses: `prefix` and what is unique to this process and call. */
function unique(prefix) {
  names += 1;
  return `${prefix}-${process.pid}-${names}`;
}

/** A port of loopback that was free a moment ago. */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** A node of the test's own, on one port for its whole life, however often it is killed and started again. */
class OwnNode {
  static async start(t, app = apps.everything) {
    const node = new OwnNode(app, await freePort());
    t.after(() => node.kill());
    await node.run();
    return node;
  }

  constructor(app, port) {
    this.app = app;
    this.port = port;
  }

  async run() {
    const { id, key, secret } = this.app;
    const flags = ["serve", "--host", "127.0.0.1", "--port", String(this.port), "--app", `${id}:${key}:${secret}`];
    const env = { ...process.env, FULMAR_SHUTDOWN__DRAIN_S: "1" };
    this.process = spawn(settings.binary, flags, { cwd: settings.folder, stdio: "ignore", env });
    await within(this.accepts(), `a node that accepts on port ${this.port}`, 10000);
  }

  async accepts() {
    while (!(await canConnect(this.port))) {
      if (this.process.exitCode !== null) throw new Error(`the node ended with ${this.process.exitCode}`);
    }
  }

  /** Tells the node to go away as an operator does, and gives its exit code. */
  async stop() {
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    return within(gone, "the end of a node told to go away", 20000);
  }

  /** Ends the node without a word to its clients, as a crash would. */
  async kill() {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await within(gone, "the end of a killed node");
  }
}

/** How a fallback client asks for what comes next. */
const RECEIVE = /^POST \/[^ ?]*\/xhr(_streaming)?\?/;

/** A load balancer: passes each new connection to the port it is told at that moment, and sees which receives are open. */
async function balancer(t, firstPort) {
  const sockets = new Set();
  const receives = new Set();
  const server = net.createServer((client) => {
    const upstream = net.connect(balancing.target, "127.0.0.1");
    client.on("data", (bytes) => {
      const asked = RECEIVE.exec(bytes.subarray(0, 512).toString("latin1"));
      if (!asked) return;
      const receive = { isStream: Boolean(asked[1]) };
      receives.add(receive);
      client.once("close", () => receives.delete(receive));
      // A poll is over with its answer, a stream with its connection.
      if (!receive.isStream) upstream.once("data", () => receives.delete(receive));
    });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ]) {
      sockets.add(one);
      one.on("error", () => other.destroy()).on("close", () => sockets.delete(one) && other.destroy());
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const balancing = { port: server.address().port, target: firstPort, receives };
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return balancing;
}

function canConnect(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true) || socket.destroy());
    // Refused at once while the node starts: the next try follows a little later.
    socket.once("error", () => setTimeout(() => resolve(false), 20));
  });
}

module.exports = { OwnNode, apps, balancer, freePort, settings, unique };
