"""A session with redis-py: strings, expiry, transactions, messages, iteration."""

import redis

from checks import address, done, eventually, raises, same

host, port = address()


def strings(client):
    same(client.set("name", "value"), True, "SET")
    same(client.get("name"), b"value", "GET")
    same(client.set("name", "other", nx=True), None, "SET NX of a key that is there")
    same(client.set("name", "other", xx=True, get=True), b"value", "SET XX GET")
    same(client.get("absent"), None, "GET of nothing")
    same(client.mset({"a": "1", "b": "2"}), True, "MSET")
    same(client.mget("a", "absent", "b"), [b"1", None, b"2"], "MGET")
    same(client.msetnx({"a": "9", "c": "9"}), False, "MSETNX")
    same(client.incrby("counter", 40), 40, "INCRBY")
    same(client.incr("counter"), 41, "INCR")
    same(client.decr("counter", 2), 39, "DECRBY")
    same(client.incrbyfloat("float", 0.1), 0.1, "INCRBYFLOAT")
    same(client.incrbyfloat("float", "0.2"), 0.3, "INCRBYFLOAT again")
    same(client.append("name", "!"), 6, "APPEND")
    same(client.strlen("name"), 6, "STRLEN")
    same(client.getrange("name", -3, -1), b"er!", "GETRANGE")
    same(client.setrange("name", 8, "x"), 9, "SETRANGE")
    same(client.get("name"), b"other!\0\0x", "GET after SETRANGE")
    binary = bytes(range(256)) * 100
    same(client.set(binary[:300], binary), True, "SET of binary")
    same(client.get(binary[:300]), binary, "GET of binary")
    same(client.getdel("a"), b"1", "GETDEL")
    same(client.exists("a", "b", "b"), 2, "EXISTS")
    same(client.type("b"), b"string", "TYPE")
    same(client.rename("b", "d"), True, "RENAME")
    same(client.copy("d", "e"), True, "COPY")
    same(client.delete("d", "e", "absent"), 2, "DEL")
    raises(redis.ResponseError, "not an integer", "INCR of a text", lambda: client.incr("name"))


def expiry(client):
    same(client.set("short", "v", px=30), True, "SET PX")
    eventually(lambda: client.get("short") is None, "a short life ends")
    same(client.ttl("short"), -2, "TTL of nothing")
    same(client.set("long", "v", ex=1000), True, "SET EX")
    same(990 < client.ttl("long") <= 1000, True, "TTL")
    same(client.pttl("long") > 990_000, True, "PTTL")
    same(client.expire("long", 2000, gt=True), True, "EXPIRE GT")
    same(client.expire("long", 1500, gt=True), False, "EXPIRE GT of less")
    same(client.persist("long"), True, "PERSIST")
    same(client.ttl("long"), -1, "TTL without one")
    same(client.expireat("long", 33177117420), True, "EXPIREAT")
    same(client.expiretime("long"), 33177117420, "EXPIRETIME")
    same(client.getex("long", persist=True), b"v", "GETEX PERSIST")
    same(client.expire("long", -1), True, "EXPIRE in the past")
    same(client.exists("long"), 0, "it is gone")


def transactions(client):
    with client.pipeline() as pipe:
        same(pipe.set("t", 1).incr("t").get("t").execute(), [True, 2, b"2"], "MULTI")
    with client.pipeline() as pipe:
        pipe.set("text", "x").incr("text").set("after", 1)
        found = pipe.execute(raise_on_error=False)
        same(isinstance(found[1], redis.ResponseError), True, "an error inside")
        same(client.get("after"), b"1", "the rest was executed")
    with client.pipeline() as pipe:
        pipe.watch("t")
        client.set("t", "changed")
        pipe.multi()
        pipe.set("t", "mine")
        raises(redis.WatchError, "", "EXEC after a change", pipe.execute)
    same(client.get("t"), b"changed", "an aborted transaction writes nothing")
    increment = lambda pipe: (pipe.get("n"), pipe.multi(), pipe.incr("n"))
    for round in range(1, 6):
        same(client.transaction(increment, "n"), [round], "transaction()")
    with client.pipeline(transaction=False) as pipe:
        for number in range(100):
            pipe.set(f"p{number}", number)
            pipe.get(f"p{number}")
        same(pipe.execute()[1::2], [b"%d" % n for n in range(100)], "a pipeline")


def messages(client):
    listener = client.pubsub()
    listener.subscribe("news")
    listener.psubscribe("top*")
    kinds = [listener.get_message(timeout=20)["type"] for _ in range(2)]
    same(kinds, ["subscribe", "psubscribe"], "confirmations")
    same(client.publish("news", "one"), 1, "PUBLISH")
    message = listener.get_message(timeout=20)
    same((message["type"], message["channel"], message["data"]), ("message", b"news", b"one"), "message")
    same(client.publish("topic", b"two\r\n"), 1, "PUBLISH to a pattern")
    message = listener.get_message(timeout=20)
    same((message["pattern"], message["data"]), (b"top*", b"two\r\n"), "message of a pattern")
    same(client.pubsub_channels(), [b"news"], "PUBSUB CHANNELS")
    same(client.pubsub_numsub("news", "none"), [(b"news", 1), (b"none", 0)], "PUBSUB NUMSUB")
    listener.unsubscribe()
    listener.punsubscribe()
    kinds = [listener.get_message(timeout=20)["type"] for _ in range(2)]
    same(kinds, ["unsubscribe", "punsubscribe"], "ends")
    listener.close()


def iteration(client):
    client.flushdb()
    names = {b"user:%d" % number for number in range(500)}
    client.mset({name: "x" for name in names} | {"other": "y"})
    same(set(client.scan_iter("user:*", count=50)), names, "SCAN MATCH")
    same(set(client.scan_iter()), names | {b"other"}, "SCAN")
    same(set(client.keys("user:?")), {b"user:%d" % number for number in range(10)}, "KEYS")
    same(client.dbsize(), 501, "DBSIZE")
    same(client.randomkey() in names | {b"other"}, True, "RANDOMKEY")
    other = redis.Redis(host, port, db=3)
    same(other.dbsize(), 0, "another database")
    other.set("there", "1")
    same(client.exists("there"), 0, "databases are apart")
    other.flushdb()
    same(client.dbsize(), 501, "FLUSHDB of one database")
    other.close()


def connection(client):
    same(client.ping(), True, "PING")
    same(client.echo("hello"), b"hello", "ECHO")
    same(client.client_setname("tester"), True, "CLIENT SETNAME")
    same(client.client_getname() in ("tester", b"tester"), True, "CLIENT GETNAME")
    same(client.client_id() > 0, True, "CLIENT ID")
    info = client.info()
    same(info["role"], "master", "INFO role")
    same(info["redis_mode"], "standalone", "INFO redis_mode")
    same(client.config_get("maxmemory-policy"), {"maxmemory-policy": "noeviction"}, "CONFIG GET")
    same(client.command_count() > 50, True, "COMMAND COUNT")
    same(abs(client.time()[0] - __import__("time").time()) < 60, True, "TIME")


for settings in ({}, {"protocol": 2}, {"protocol": 3}):
    client = redis.Redis(host, port, **settings)
    client.flushall()
    for part in (strings, expiry, transactions, messages, iteration, connection):
        part(client)
    client.close()
done()
