// A session store of Express over node-redis, driven as express-session drives it.

import { promisify } from "node:util";
import { RedisStore } from "connect-redis";
import { createClient } from "redis";
import { done, eventually, host, port, same } from "./checks.mjs";

const client = createClient({ socket: { host, port } });
client.on("error", (error) => {
  throw error;
});
await client.connect();
await client.flushAll();

const store = new RedisStore({ client });
const call = (name, ...given) => promisify(store[name].bind(store))(...given);
const session = (user, life) => ({ user, cookie: { originalMaxAge: life, expires: new Date(Date.now() + life) } });
// As it comes back: dates are texts.
const stored = (value) => JSON.parse(JSON.stringify(value));

const ann = session("ann", 100_000);
await call("set", "1", ann);
same(await call("get", "1"), stored(ann), "get");
same(await call("get", "2"), null, "get of nothing");
const ttl = await client.ttl("sess:1");
same(ttl > 90 && ttl <= 100, true, "the time of a session");
await call("touch", "1", session("ann", 200_000));
same((await client.ttl("sess:1")) > 100, true, "touch");
for (let number = 2; number <= 150; number += 1) await call("set", `${number}`, session("bob", 100_000));
same(await call("length"), 150, "length");
same((await call("ids")).length, 150, "ids");
same((await call("all")).length, 150, "all");
await call("destroy", "1");
same(await call("get", "1"), null, "destroy");
await call("set", "short", session("eve", 1_000));
await eventually(async () => (await call("get", "short")) === null, "a session ends");
await call("clear");
same(await call("length"), 0, "clear");
await client.close();
done();
