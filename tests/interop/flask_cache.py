"""Flask-Caching over Redis, with a view that is computed once."""

from flask import Flask
from flask_caching import Cache

from checks import address, done, eventually, same

host, port = address()
app = Flask(__name__)
app.config.update(
    CACHE_TYPE="RedisCache",
    CACHE_REDIS_HOST=host,
    CACHE_REDIS_PORT=port,
    CACHE_KEY_PREFIX="flask_",
)
cache = Cache(app)
calls = []


@app.route("/view")
@cache.cached(timeout=100)
def view():
    calls.append("view")
    return f"computed {len(calls)}"


@cache.memoize(timeout=100)
def double(number):
    calls.append(number)
    return number * 2


with app.app_context():
    cache.clear()
    browser = app.test_client()
    same(browser.get("/view").text, "computed 1", "a view")
    same(browser.get("/view").text, "computed 1", "a view from the cache")
    same((double(4), double(4), double(5)), (8, 8, 10), "memoize")
    same(calls, ["view", 4, 5], "what was computed")
    cache.delete_memoized(double)
    same((double(4), calls[3:]), (8, [4]), "delete_memoized")
    same(cache.set("key", {"a": 1}, timeout=100), True, "set")
    same(cache.add("key", "other"), False, "add")
    same(cache.get("key"), {"a": 1}, "get")
    same(cache.set_many({"x": 1, "y": 2}) is not None, True, "set_many")
    same(cache.get_many("x", "absent", "y"), [1, None, 2], "get_many")
    same(cache.get_dict("x", "y"), {"x": 1, "y": 2}, "get_dict")
    same(cache.has("x"), True, "has")
    same(cache.cache.inc("count", 3), 3, "inc")
    same(cache.cache.dec("count", 1), 2, "dec")
    same(cache.delete("x"), True, "delete")
    same(cache.has("x"), False, "has after delete")
    cache.set("short", "v", timeout=1)
    eventually(lambda: cache.get("short") is None, "a short life ends")
    cache.clear()
    same(cache.get("key"), None, "clear")
done()
