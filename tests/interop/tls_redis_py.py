"""redis-py over TLS: by default it believes a CA and checks the node's name. Called with the CA's file too."""

import ssl
import sys

import redis

from checks import address, done, raises, same

host, port = address()
ca = sys.argv[3]

client = redis.Redis(host=host, port=port, ssl=True, ssl_ca_certs=ca)
same(client.set("name", "value"), True, "SET")
same(client.get("name"), b"value", "GET")
large = bytes(range(256)) * 8192
same(client.set("large", large), True, "SET of 2 MiB")
same(client.get("large") == large, True, "GET of 2 MiB")
with client.pipeline(transaction=True) as pipe:
    same(pipe.incr("n").incr("n").execute(), [1, 2], "MULTI")
with client.pubsub() as listener:
    listener.subscribe("news")
    same(listener.get_message(timeout=20)["type"], "subscribe", "SUBSCRIBE")
    same(client.publish("news", "hello"), 1, "PUBLISH")
    same(listener.get_message(timeout=20)["data"], b"hello", "message")
url = redis.Redis.from_url(f"rediss://{host}:{port}/1?ssl_ca_certs={ca}")
same(url.get("name"), None, "GET in another database")

unknown = redis.Redis(host=host, port=port, ssl=True)
raises(redis.ConnectionError, "certificate verify failed", "a CA that it does not know", unknown.ping)
plain = redis.Redis(host=host, port=port)
raises(redis.RedisError, "TLS", "no TLS", plain.ping)
client.delete("name", "large", "n")
done()
