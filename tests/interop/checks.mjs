// What every Node script of the interoperability tests uses: counted checks and waits. A script is
// called with a host and a port, uses its client with default settings, and ends with a line
// `N checks`; anything else is a failure.

import { isDeepStrictEqual, inspect } from "node:util";

// Longer than any expiry or message takes on a busy machine.
const DEADLINE_MS = 20_000;

let count = 0;

export const [host, port] = [process.argv[2], Number(process.argv[3])];

export function same(found, expected, what) {
  count += 1;
  if (!isDeepStrictEqual(found, expected)) {
    throw new Error(`${what}: ${inspect(found)} instead of ${inspect(expected)}`);
  }
}

export async function fails(text, what, act) {
  try {
    await act();
  } catch (error) {
    return same(`${error.name}: ${error.message}`.includes(text), true, `${what}: ${error}`);
  }
  throw new Error(`${what}: no error`);
}

export async function eventually(condition, what) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
  count += 1;
}

// What arrives, to be taken one by one.
export class Inbox {
  #items = [];
  #wake = () => {};

  put(item) {
    this.#items.push(item);
    this.#wake();
  }

  async take(what) {
    const late = new Promise((_, reject) =>
      setTimeout(() => reject(new Error(`never came: ${what}`)), DEADLINE_MS).unref(),
    );
    while (this.#items.length === 0) {
      await Promise.race([new Promise((wake) => (this.#wake = wake)), late]);
    }
    return this.#items.shift();
  }
}

export function done() {
  console.log(`${count} checks`);
}
