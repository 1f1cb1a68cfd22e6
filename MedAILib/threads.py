"""How the threads of a computation wait for each other."""

import os
from collections.abc import MutableMapping

# Turns that a thread waits at work before it sleeps; by itself the library makes it some hundred thousand.
SPINS = "1000"


def wait_asleep(environment: MutableMapping[str, str] | None = None) -> None:
    """Let threads that wait for others sleep, instead of keeping the processor busy; before PyTorch is loaded.

    On a computer that does other things too, threads that wait busily take the time that those they wait for need:
    three times the processor's time was seen. What the user has set stays.
    """
    known = os.environ if environment is None else environment
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(known):
        known["GOMP_SPINCOUNT"] = SPINS
