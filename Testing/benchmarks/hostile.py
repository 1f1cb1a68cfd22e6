"""How many hostile models executed anything, and how many honest ones were not run or asked for something.

Usage: python Testing/benchmarks/hostile.py

Every model goes through the library, `medai models info`, `models verify`, `segment` and the worker.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile import EVERY, READ
from judging import Judge
from legitimate import LEGITIMATE


def main() -> int:
    """Print the figures; 1 where one is not as it should be."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["MEDAI_MODELS"], os.environ["MEDAI_CONFIG"] = (
            str(place / "s" / "models"),
            str(place / "s" / "config"),
        )
        (place / "models").mkdir()
        judge = Judge(place / "models", place / "work")
        hostile = {key: judge.judge(make, place / "models" / str(n)) for n, (key, make) in enumerate(EVERY.items())}
        honest = {
            key: judge.judge(lambda folder, mark, make=make: make(folder), place / "models" / f"honest {n}")  # type: ignore[misc]
            for n, (key, make) in enumerate(LEGITIMATE.items())
        }
        judge.close()
    ways = {"library", "segment", "worker"}
    executed = [key for key, verdict in hostile.items() if verdict.executed]
    refused = [key for key, verdict in hostile.items() if ways <= verdict.told.keys()]
    harmless = [key for key, verdict in hostile.items() if not ways & verdict.told.keys()]
    defects = [key for key, verdict in (hostile | honest).items() if verdict.wrong]
    asked = [key for key, verdict in honest.items() if verdict.told or verdict.executed]
    print(f"hostile models: {len(hostile)}; executed: {len(executed)} {executed or ''}")
    print(f"  refused with a sentence on every way: {len(refused)}; read without harm: {len(harmless)}")
    print(f"honest models: {len(honest)}; refused, or asked for trust: {len(asked)} {asked or ''}")
    print(f"tracebacks, or sentences that are none: {len(defects)} {defects or ''}")
    return int(bool(executed or asked or defects or set(harmless) != set(READ)))


if __name__ == "__main__":
    sys.exit(main())
