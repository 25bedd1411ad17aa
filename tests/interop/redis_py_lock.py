"""redis-py's Lock, which is made of SET NX PX and three scripts."""

import threading

import redis
from redis.exceptions import LockError, LockNotOwnedError

from checks import address, done, eventually, raises, same

host, port = address()
client = redis.Redis(host, port)
client.flushall()

# One at a time.
first, second = client.lock("lock", timeout=100), client.lock("lock", timeout=100)
same(first.acquire(blocking=False), True, "acquire")
same(second.acquire(blocking=False), False, "a second acquire")
same((first.locked(), first.owned(), second.owned()), (True, True, False), "locked and owned")
same(first.extend(100), True, "extend")
same(client.ttl("lock") > 100, True, "the time after extend")
same(first.extend(50, replace_ttl=True), True, "extend to")
same(client.ttl("lock") <= 50, True, "the time after extend to")
same(first.reacquire(), True, "reacquire")
same(50 < client.ttl("lock") <= 100, True, "the time after reacquire")
raises(LockError, "", "release of somebody else's lock", second.release)
first.release()
same(client.exists("lock"), 0, "release")

# A lock that ran out belongs to the next one.
short = client.lock("lock", timeout=0.03)
same(short.acquire(), True, "acquire a short one")
same(second.acquire(blocking_timeout=20), True, "acquire after it ran out")
raises(LockNotOwnedError, "", "extend after it ran out", lambda: short.extend(10))
raises(LockNotOwnedError, "", "reacquire after it ran out", short.reacquire)
raises(LockNotOwnedError, "", "release after it ran out", short.release)
second.release()

# Threads that exclude each other: a counter without one lost update.
client.set("counter", 0)


def count():
    own = redis.Redis(host, port)
    for _ in range(10):
        with own.lock("mutex", timeout=60, sleep=0.005):
            own.set("counter", int(own.get("counter")) + 1)
    own.close()


threads = [threading.Thread(target=count) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
same(client.get("counter"), b"40", "updates under the lock")
eventually(lambda: client.exists("mutex") == 0, "the lock is free at the end")
done()
