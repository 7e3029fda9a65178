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
    this.process = spawn(settings.binary, flags, { cwd: settings.folder, stdio: "ignore" });
    await within(this.accepts(), `a node that accepts on port ${this.port}`, 10000);
  }

  async accepts() {
    while (!(await canConnect(this.port))) {
      if (this.process.exitCode !== null) throw new Error(`the node ended with ${this.process.exitCode}`);
    }
  }

  /** Ends the node without a word to its clients, as a crash would. */
  async kill() {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await within(gone, "the end of a killed node");
  }
}

function canConnect(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true) || socket.destroy());
    // Refused at once while the node starts: the next try follows a little later.
    socket.once("error", () => setTimeout(() => resolve(false), 20));
  });
}

module.exports = { OwnNode, apps, freePort, settings, unique };
