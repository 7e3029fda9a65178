// A customer's web site on loopback: a page, the browser builds of the SDKs from node_modules, and the authorization
// endpoint that pusher-js asks. Serves nothing else.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const MODULES = path.join(__dirname, "..", "node_modules");
const SCRIPTS = {
  "/pusher.js": path.join(MODULES, "pusher-js/dist/web/pusher-with-encryption.min.js"),
  "/pusher.worker.js": path.join(MODULES, "pusher-js/dist/worker/pusher.worker.min.js"),
  "/echo.js": path.join(MODULES, "laravel-echo/dist/echo.iife.js"),
  "/page.js": path.join(__dirname, "page.js"),
  "/worker.js": path.join(__dirname, "worker.js"),
};
const PAGE = `<!doctype html><meta charset="utf-8"><title>A customer's page</title><link rel="icon" href="data:,">
<script src="/pusher.js"></script><script src="/echo.js"></script><script src="/page.js"></script>`;

/** Serves on a free port until the returned server is closed; `server` signs what the endpoint is asked for. */
async function serveSite(server) {
  const site = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://site");
    if (request.method === "POST" && pathname === "/pusher/auth") return authorize(server, request, response);
    if (pathname === "/") return answer(response, 200, "text/html; charset=utf-8", PAGE);
    if (SCRIPTS[pathname])
      return answer(response, 200, "text/javascript; charset=utf-8", fs.readFileSync(SCRIPTS[pathname]));
    return answer(response, 404, "text/plain", "");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  return site;
}

async function authorize(server, request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  const channel = form.get("channel_name");
  if (channel.includes("forbidden")) return answer(response, 403, "application/json", "{}");
  const user = form.get("user_id");
  const member = channel.startsWith("presence-") ? { user_id: user, user_info: { name: `user ${user}` } } : undefined;
  const granted = server.authorizeChannel(form.get("socket_id"), channel, member);
  if (channel.includes("forged")) granted.auth = granted.auth.replace(/[0-9a-f]{8}$/, "00000000");
  return answer(response, 200, "application/json", JSON.stringify(granted));
}

function answer(response, status, type, body) {
  response.writeHead(status, { "content-type": type });
  response.end(body);
}

module.exports = { serveSite };
