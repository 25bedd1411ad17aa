// A session with node-redis: strings, expiry, transactions, messages, iteration.

import { createClient } from "redis";
import { Inbox, done, eventually, fails, host, port, same } from "./checks.mjs";

async function connect(settings) {
  const client = createClient({ socket: { host, port }, ...settings });
  client.on("error", (error) => {
    throw error;
  });
  return client.connect();
}

async function strings(client) {
  same(await client.set("name", "value"), "OK", "SET");
  same(await client.get("name"), "value", "GET");
  same(await client.set("name", "other", { condition: "NX" }), null, "SET NX of a key that is there");
  same(await client.set("name", "other", { condition: "XX", GET: true }), "value", "SET XX GET");
  same(await client.get("absent"), null, "GET of nothing");
  same(await client.mSet({ a: "1", b: "2" }), "OK", "MSET");
  same(await client.mGet(["a", "absent", "b"]), ["1", null, "2"], "MGET");
  same(await client.mSetNX({ a: "9", c: "9" }), 0, "MSETNX");
  same(await client.incrBy("counter", 40), 40, "INCRBY");
  same(await client.decr("counter"), 39, "DECR");
  same(await client.incrByFloat("float", 0.1), "0.1", "INCRBYFLOAT");
  same(await client.append("name", "!"), 6, "APPEND");
  same(await client.strLen("name"), 6, "STRLEN");
  same(await client.getRange("name", -3, -1), "er!", "GETRANGE");
  same(await client.getDel("a"), "1", "GETDEL");
  same(await client.exists(["a", "b", "b"]), 2, "EXISTS");
  same(await client.type("b"), "string", "TYPE");
  same(await client.del(["b", "absent"]), 1, "DEL");
  await fails("not an integer", "INCR of a text", () => client.incr("name"));
}

async function expiry(client) {
  same(await client.set("short", "v", { expiration: { type: "PX", value: 30 } }), "OK", "SET PX");
  await eventually(async () => (await client.get("short")) === null, "a short life ends");
  same(await client.ttl("short"), -2, "TTL of nothing");
  same(await client.setEx("long", 1000, "v"), "OK", "SETEX");
  const ttl = await client.ttl("long");
  same(ttl > 990 && ttl <= 1000, true, "TTL");
  same(await client.expire("long", 2000, "GT"), 1, "EXPIRE GT");
  same(await client.persist("long"), 1, "PERSIST");
  same(await client.ttl("long"), -1, "TTL without one");
  same(await client.expireAt("long", 33177117420), 1, "EXPIREAT");
  same(await client.expireTime("long"), 33177117420, "EXPIRETIME");
  same(await client.expire("long", -1), 1, "EXPIRE in the past");
  same(await client.exists("long"), 0, "it is gone");
}

async function transactions(client) {
  same(await client.multi().set("t", "1").incr("t").get("t").exec(), ["OK", 2, "2"], "MULTI");
  const other = await connect({});
  await client.watch("t");
  await other.set("t", "changed");
  await fails("watched keys", "EXEC after a change", () => client.multi().set("t", "mine").exec());
  same(await client.get("t"), "changed", "an aborted transaction writes nothing");
  await client.watch("t");
  same(await client.multi().set("t", "mine").exec(), ["OK"], "EXEC without a change");
  const many = Array.from({ length: 1000 }, (_, number) => number);
  await Promise.all(many.map((number) => client.set(`p${number}`, `${number}`)));
  const found = await Promise.all(many.map((number) => client.get(`p${number}`)));
  same(found, many.map(String), "a pipeline");
  await other.close();
}

async function messages(client) {
  const inbox = new Inbox();
  const listener = await client.duplicate().connect();
  await listener.subscribe("news", (message, channel) => inbox.put([channel, message]));
  await listener.pSubscribe("top*", (message, channel) => inbox.put([channel, message]));
  same(await client.publish("news", "one"), 1, "PUBLISH");
  same(await inbox.take("a message"), ["news", "one"], "message");
  same(await client.publish("topic", "two"), 1, "PUBLISH to a pattern");
  same(await inbox.take("a message of a pattern"), ["topic", "two"], "message of a pattern");
  same(await client.pubSubChannels(), ["news"], "PUBSUB CHANNELS");
  await listener.unsubscribe("news");
  await listener.pUnsubscribe("top*");
  await listener.close();
}

async function iteration(client) {
  await client.flushDb();
  const names = Array.from({ length: 300 }, (_, number) => `user:${number}`);
  await client.mSet(Object.fromEntries(names.map((name) => [name, "x"])));
  await client.set("other", "y");
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: "user:*", COUNT: 50 })) {
    keys.forEach((key) => found.add(key));
  }
  same(found, new Set(names), "SCAN MATCH");
  same(await client.dbSize(), 301, "DBSIZE");
  same((await client.keys("user:?")).length, 10, "KEYS");
  same((await client.info("replication")).includes("role:master"), true, "INFO");
}

for (const settings of [{}, { RESP: 2 }, { RESP: 3 }]) {
  const client = await connect(settings);
  await client.flushAll();
  for (const part of [strings, expiry, transactions, messages, iteration]) await part(client);
  await client.close();
}
done();
