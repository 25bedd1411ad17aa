"""Django's own Redis cache."""

from django.conf import settings

from checks import address, done, eventually, raises, same

host, port = address()
settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://{host}:{port}",
        },
        "third": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://{host}:{port}/3",
            "KEY_PREFIX": "app",
        },
    }
)

from django.core.cache import caches  # noqa: E402  (needs the settings)

for cache in (caches["default"], caches["third"]):
    cache.clear()
    same(cache.get("absent", "default"), "default", "get with a default")
    same(cache.add("key", {"a": [1, 2]}, timeout=100), True, "add")
    same(cache.add("key", "other"), False, "add again")
    same(cache.get("key"), {"a": [1, 2]}, "get")
    same(cache.touch("key", 200), True, "touch")
    same(cache.touch("absent", 200), False, "touch of nothing")
    same(cache.get_or_set("computed", lambda: 42, 100), 42, "get_or_set")
    same(cache.set_many({"a": 1, "b": "two"}, timeout=100), [], "set_many")
    same(cache.get_many(["a", "b", "absent"]), {"a": 1, "b": "two"}, "get_many")
    same(cache.incr("a", 5), 6, "incr")
    same(cache.decr("a"), 5, "decr")
    raises(ValueError, "absent", "incr of nothing", lambda: cache.incr("absent"))
    same(cache.has_key("a"), True, "has_key")
    same(cache.delete("a"), True, "delete")
    same(cache.delete("a"), False, "delete again")
    cache.set("short", "v", timeout=1)
    eventually(lambda: cache.get("short") is None, "a short life ends")
    cache.set("never", "v", timeout=0)
    same(cache.get("never"), None, "a life of nothing")
    cache.set("forever", "v", timeout=None)
    same(cache.get("forever"), "v", "a life without an end")
    cache.delete_many(["b", "forever", "absent"])
    same(cache.get_many(["b", "forever"]), {}, "delete_many")
    cache.clear()
    same(cache.get("key"), None, "clear")
done()
