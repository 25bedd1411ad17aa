// node-redis and ioredis over TLS: by default they believe a CA and check the node's name. Called with the
// CA's file too.

import { readFileSync } from "node:fs";
import Redis from "ioredis";
import { createClient } from "redis";
import { Inbox, done, fails, host, port, same } from "./checks.mjs";

const ca = readFileSync(process.argv[4]);
const large = Buffer.alloc(2 << 20, 7);

const first = createClient({ socket: { host, port, tls: true, ca } });
first.on("error", (error) => {
  throw error;
});
await first.connect();
same(await first.set("name", "value"), "OK", "SET of node-redis");
same(await first.get("name"), "value", "GET of node-redis");
same(await first.multi().incr("n").incr("n").exec(), [1, 2], "MULTI of node-redis");
const inbox = new Inbox();
const listener = first.duplicate();
listener.on("error", (error) => {
  throw error;
});
await listener.connect();
await listener.subscribe("news", (message) => inbox.put(message));
same(await first.publish("news", "hello"), 1, "PUBLISH of node-redis");
same(await inbox.take("the message"), "hello", "message of node-redis");
await listener.close();

const second = new Redis({ host, port, tls: { ca } });
same(await second.get("name"), "value", "GET of ioredis");
same(await second.set("large", large), "OK", "SET of 2 MiB");
same((await second.getBuffer("large")).equals(large), true, "GET of 2 MiB");
same(await second.del("name", "large", "n"), 3, "DEL of ioredis");

const unknown = createClient({ socket: { host, port, tls: true, reconnectStrategy: false } });
unknown.on("error", () => {});
await fails("certificate", "a CA that it does not know", () => unknown.connect());
second.disconnect();
await first.close();
done();
