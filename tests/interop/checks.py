"""What every Python script of the interoperability tests uses: counted checks and waits.

A script is called with a host and a port, uses its client with default settings, and ends with a
line `N checks`; anything else is a failure.
"""

import sys
import time

# Longer than any expiry or message takes on a busy machine.
DEADLINE = 20.0

_count = 0


def address():
    """Host and port from the command line."""
    return sys.argv[1], int(sys.argv[2])


def same(found, expected, what):
    """One check."""
    global _count
    _count += 1
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")


def raises(kind, text, what, act):
    """Checks that `act` fails with this exception and text."""
    try:
        act()
    except kind as error:
        same(text in str(error), True, f"{what}: {error}")
    else:
        sys.exit(f"{what}: no error")


def eventually(condition, what):
    """Asks until the answer is true; fails when it never is."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.01)
    same(True, True, what)


def done():
    """Says how much was checked."""
    print(f"{_count} checks")
