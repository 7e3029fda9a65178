// Turns the events of node's test runner into the lines that `tests/sdk/run` counts: one `PASS`, `FAIL` or `SKIP` per
// test, nothing for the `describe` around it unless that itself broke.

import { inspect } from "node:util";

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type === "test:stdout" || type === "test:stderr") yield data.message;
    if (type !== "test:pass" && type !== "test:fail") continue;
    const failed = type === "test:fail";
    if (isContainer(data) && !(failed && !hasFailedChild(data))) continue;
    const verdict = data.skip !== undefined ? "SKIP" : failed ? "FAIL" : "PASS";
    const reason = typeof data.skip === "string" ? ` (${data.skip})` : "";
    yield `${verdict} ${data.name}${reason}\n`;
    if (failed) yield `${describe(data.details.error)}\n`;
  }
}

function isContainer({ details, name }) {
  return details.type === "suite" || name.endsWith(".test.js");
}

function hasFailedChild({ details }) {
  return details.error?.failureType === "subtestsFailed";
}

function describe(error) {
  const cause = error?.cause ?? error;
  return cause instanceof Error ? cause.stack : inspect(cause);
}
