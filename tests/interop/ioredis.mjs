// A session with ioredis: strings, expiry, transactions, messages, iteration, a script.

import { Redis } from "ioredis";
import { Inbox, done, eventually, fails, host, port, same } from "./checks.mjs";

const client = new Redis(port, host);
await client.flushall();

// Strings.
same(await client.set("name", "value"), "OK", "SET");
same(await client.get("name"), "value", "GET");
same(await client.set("name", "other", "NX"), null, "SET NX of a key that is there");
same(await client.set("name", "other", "XX", "GET"), "value", "SET XX GET");
same(await client.mset({ a: "1", b: "2" }), "OK", "MSET");
same(await client.mget("a", "absent", "b"), ["1", null, "2"], "MGET");
same(await client.incrby("counter", 40), 40, "INCRBY");
same(await client.incrbyfloat("float", 0.1), "0.1", "INCRBYFLOAT");
same(await client.append("name", "!"), 6, "APPEND");
same(await client.getBuffer("name"), Buffer.from("other!"), "GET of bytes");
same(await client.getdel("a"), "1", "GETDEL");
same(await client.exists("a", "b", "b"), 2, "EXISTS");
same(await client.del("b", "absent"), 1, "DEL");
await fails("not an integer", "INCR of a text", () => client.incr("name"));

// Expiry.
same(await client.set("short", "v", "PX", 30), "OK", "SET PX");
await eventually(async () => (await client.get("short")) === null, "a short life ends");
same(await client.setex("long", 1000, "v"), "OK", "SETEX");
const ttl = await client.ttl("long");
same(ttl > 990 && ttl <= 1000, true, "TTL");
same(await client.persist("long"), 1, "PERSIST");
same(await client.pexpireat("long", 33177117420000), 1, "PEXPIREAT");
same(await client.pexpiretime("long"), 33177117420000, "PEXPIRETIME");

// Transactions and pipelines.
const results = await client.multi().set("t", "1").incr("t").get("t").exec();
same(results, [[null, "OK"], [null, 2], [null, "2"]], "MULTI");
const other = new Redis(port, host);
await client.watch("t");
await other.set("t", "changed");
same(await client.multi().set("t", "mine").exec(), null, "EXEC after a change");
same(await client.get("t"), "changed", "an aborted transaction writes nothing");
await fails("EXECABORT", "EXEC after an error", () => client.multi().call("SET", "t").exec());
const pipeline = client.pipeline();
for (let number = 0; number < 100; number += 1) pipeline.set(`p${number}`, number).get(`p${number}`);
const replies = await pipeline.exec();
same(replies.length, 200, "replies of a pipeline");
same(replies.every(([error, reply], at) => !error && (at % 2 === 0 || reply === `${(at - 1) / 2}`)), true, "a pipeline");

// Messages.
const inbox = new Inbox();
const listener = new Redis(port, host);
listener.on("message", (channel, message) => inbox.put([channel, message]));
listener.on("pmessage", (pattern, channel, message) => inbox.put([pattern, channel, message]));
same(await listener.subscribe("news"), 1, "SUBSCRIBE");
same(await listener.psubscribe("top*"), 2, "PSUBSCRIBE");
same(await client.publish("news", "one"), 1, "PUBLISH");
same(await inbox.take("a message"), ["news", "one"], "message");
same(await client.publish("topic", "two"), 1, "PUBLISH to a pattern");
same(await inbox.take("a message of a pattern"), ["top*", "topic", "two"], "message of a pattern");
same(await listener.unsubscribe("news"), 1, "UNSUBSCRIBE");
same(await listener.punsubscribe("top*"), 0, "PUNSUBSCRIBE");

// Iteration.
await client.flushdb();
const names = Array.from({ length: 300 }, (_, number) => `user:${number}`);
await client.mset(names.flatMap((name) => [name, "x"]));
const found = new Set();
for await (const keys of client.scanStream({ match: "user:*", count: 50 })) {
  keys.forEach((key) => found.add(key));
}
same(found, new Set(names), "SCAN MATCH");
same(await client.dbsize(), 300, "DBSIZE");

// A lock's script, by its digest after the first time.
client.defineCommand("unlock", {
  numberOfKeys: 1,
  lua: `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`,
});
await client.set("lock", "token");
same(await client.unlock("lock", "somebody else's"), 0, "unlock with a wrong token");
same(await client.unlock("lock", "token"), 1, "unlock");

for (const one of [client, other, listener]) one.disconnect();
done();
