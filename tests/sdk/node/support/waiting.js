// Waiting without sleeping: every wait has a deadline and says what did not happen. Decides nothing about the protocol.
"use strict";

const DEADLINE_MS = 8000;

/** What `promise` gives, or an error that names `what` was waited for when the deadline passes. */
function within(promise, what, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Collects what callbacks bring, in order, and hands it out to those who wait for it. */
class Inbox {
  constructor(name) {
    this.name = name;
    this.items = [];
    this.taken = 0;
    this.waiting = [];
  }

  /** A callback that keeps the first thing it is called with. */
  get push() {
    return (value) => this.put(value);
  }

  put(item) {
    this.items.push(item);
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** The next item nobody took. */
  next(deadlineMs) {
    return this.first(() => true, deadlineMs);
  }

  /** The next item that fits; those before it are passed over. */
  async first(fits, deadlineMs) {
    const found = async () => {
      for (;;) {
        while (this.taken < this.items.length) {
          const item = this.items[this.taken++];
          if (fits(item)) return item;
        }
        await new Promise((wake) => this.waiting.push(wake));
      }
    };
    return within(found(), `${this.name}; there were ${JSON.stringify(this.items)}`, deadlineMs);
  }

  /** The next `count` items. */
  async take(count) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next());
    return taken;
  }
}

module.exports = { Inbox, within };
