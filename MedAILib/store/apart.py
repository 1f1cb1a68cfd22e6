"""Adds a model in a process of its own, for a window that must not wait: `python -m MedAILib.store.apart SOURCE`.

How it goes is said as `MedAILib.watched` has it. Stops when standard input ends; a store that is half changed then is
cleared up with its next change.
"""

import sys

from MedAILib.progress import Progress
from MedAILib.store.adding import add_model
from MedAILib.store.arrival import Wishes, find_source
from MedAILib.watched import watched


def main(source: str) -> None:
    """Add what an address, a path or a name of the catalogue means."""

    def work(progress: Progress) -> str:
        return add_model(find_source(source), Wishes(), progress).record.name

    watched(work)


if __name__ == "__main__":
    main(sys.argv[1])
