"""How tests wait: for a condition, or for the best of several attempts; so no slow or halted machine breaks them."""

import time
from collections.abc import Callable

LIMIT_S = 240.0  # far above what anything takes, for machines under load and such as stop for a while


def until(condition: Callable[[], object], limit: float = LIMIT_S) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def quickest(attempt: Callable[[], float], promised_s: float, attempts: int = 5) -> float:
    """Seconds that something takes where the machine lets it: the best of some attempts, until one keeps the promise.

    Args:
        attempt: does it once, and says how long what is promised took.
        promised_s: what it is to stay below.
        attempts: at most.
    """
    best = attempt()
    for _ in range(attempts - 1):
        if best < promised_s:
            break
        best = min(best, attempt())
    return best
