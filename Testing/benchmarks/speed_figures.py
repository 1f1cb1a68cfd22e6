"""What is wanted of MedAI's speed, and what the runs of `speed.py` came to: a line for each figure."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from speed_plan import BARE, FEW, HALF, MANY, NNUNET, ONCE, OPENVINO, OURS, STOCK, Way

Run = dict[str, Any]
Cost = Callable[[Run], float]
GIB = 2**30
# Of 118 classes on 512 x 512 x 600: the window that nnU-Net plans for such images, and the spacing.
LARGE_SHAPE, LARGE_SPACING, LARGE_WINDOW = (600, 512, 512), (1.5, 0.8, 0.8), (128, 128, 128)


@dataclass(frozen=True)
class Figure:
    """One line: what, what is wanted, what was measured, and whether that is enough (None where it is not measured).

    `by_clock` says so of seconds, where `reached` is of CPU-seconds.
    """

    what: str
    wanted: str
    measured: str
    reached: bool | None
    by_clock: bool = False

    @property
    def answer(self) -> str:
        """In the table's last column."""
        if self.reached is None:
            return ""
        return "yes" if self.reached else "by the clock" if self.by_clock else "no"


def cost(run: Run) -> float:
    """What is compared: CPU-seconds, which other programs on the machine change little; seconds on a GPU."""
    return float(run["wall"] if run["device"] != "cpu" else run["cpu"])


def besides(run: Run) -> float:
    """The cost of all but the network."""
    return _but_network(run["stages"] if run["device"] != "cpu" else run["stages_cpu"])


def wait_besides(run: Run) -> float:
    """The seconds, by the clock, of all but the network."""
    return _but_network(run["stages"])


def wait(run: Run) -> float:
    """The seconds that a user waits."""
    return float(run["wall"])


def _but_network(stages: dict[str, float]) -> float:
    return float(sum(seconds for name, seconds in stages.items() if name != "network"))


def figures(runs: list[Run], device: str) -> list[Figure]:
    """The figures that concern a device."""
    here = [run for run in runs if run["device"] == device]
    found = [*_on_cpu(here), *_memory(here)] if device == "cpu" else [*_on_gpu(here)]
    return sorted([*found, *_overhead(here)], key=lambda one: one.what[0])


def lines(found: Iterable[Figure]) -> list[str]:
    """As a table of Markdown."""
    rows = [f"| {one.what} | {one.wanted} | {one.measured} | {one.answer} |" for one in found]
    return ["| Figure | Wanted | Measured | Reached |", "| --- | --- | --- | --- |", *rows]


def _on_cpu(runs: list[Run]) -> Iterator[Figure]:
    for scene in _scenes(runs):
        one = [run for run in runs if run["part"] == "programs" and run["scene"]["name"] == scene]
        if _of(one, NNUNET.title) and scene != MANY:
            yield _ratio(f"1. {scene}: whole, float32", one, (NNUNET, OURS), 1.7, 0.999)
            yield _ratio(f"1. {scene}: whole, OpenVINO float32", one, (NNUNET, OPENVINO), 2.5, 0.999)
            yield _ratio(f"1. {scene}: whole, bfloat16", one, (NNUNET, HALF), 3.3, 0.99)
            yield _ratio(f"1. {scene}: all but the network", one, (NNUNET, OURS), 15, None, (besides, wait_besides))
        elif _of(one, STOCK.title):
            yield _ratio(f"2. {scene}: whole, float32", one, (STOCK, OURS), 1.5, 0.999)
            yield _peak(f"2. {scene}: peak memory", one)
        elif scene == MANY:
            yield _ratio(f"3. {scene}: whole, float32", one, (NNUNET, OURS), 4, 0.999)


def _on_gpu(runs: list[Run]) -> Iterator[Figure]:
    for scene in _scenes(runs):
        one = [run for run in runs if run["part"] == "programs" and run["scene"]["name"] == scene]
        least = {FEW: 2.0, MANY: 5.0}.get(scene)
        if least is not None:
            yield _ratio(f"4. {scene}: whole, on a GPU", one, (NNUNET, OURS), least, 0.999)


def _ratio(
    what: str,
    runs: list[Run],
    pair: tuple[Way, Way],
    least: float,
    equal: float | None,
    of: tuple[Cost, Cost] = (cost, wait),
) -> Figure:
    """How many times as much the first program costs as the second: by what is compared, and by the clock."""
    wanted = f"{least:g} x" + (f", {equal:.1%} equal labels" if equal else "")
    slow, fast = (_of(runs, way.title) for way in pair)
    if not slow or not fast:
        return Figure(what, wanted, "not measured", None)
    times, by_clock = (median(map(one, slow)) / max(median(map(one, fast)), 1e-9) for one in of)
    same = equal is None or min(run["agreement"] for run in fast) >= equal
    said = f"{times:.2f} x, {by_clock:.2f} x by the clock"
    if equal:
        most = median(map(cost, slow)) / max(median(cost(run) - besides(run) for run in fast), 1e-9)
        agreement = min(run["agreement"] for run in fast)
        said += f" ({most:.2f} x if all but the network took nothing)"
        said += f"; {agreement:.3%} equal labels, by {_engine(fast[-1])}"
    return Figure(what, wanted, said, times >= least and same, by_clock >= least and same)


def _engine(run: Run) -> str:
    return str(run["said"].get("engine", "PyTorch"))


def _peak(what: str, runs: list[Run]) -> Figure:
    slow, fast = _of(runs, STOCK.title), _of(runs, OURS.title)
    if not slow or not fast:
        return Figure(what, "at most half", "not measured", None)
    one, other = (median(run["peak_bytes"] for run in group) for group in (fast, slow))
    more = [median(run["peak_bytes"] - run["held_bytes"] for run in group) for group in (fast, slow)]
    said = (
        f"{one / GIB:.2f} of {other / GIB:.2f} GiB ({one / other:.0%}); beyond the opened model "
        f"{more[0] / GIB:.2f} of {more[1] / GIB:.2f} GiB ({more[0] / max(more[1], 1):.0%})"
    )
    return Figure(what, "at most half", said, one <= other / 2)


def _memory(runs: list[Run]) -> Iterator[Figure]:
    large = [run for run in runs if run["part"] == "memory" and run["way"] == ONCE.title]
    what = "3. 118 classes, 512 x 512 x 600"
    if not large:
        yield Figure(f"{what}: peak memory", "12 GiB", "not measured", None)
        return
    last = max(large, key=lambda run: run["scene"]["shape"][0])
    size, peak = " x ".join(str(n) for n in last["scene"]["shape"][::-1]), last["peak_bytes"]
    yield Figure(f"{what}: peak memory", "12 GiB", f"{peak / GIB:.2f} GiB ({size})", peak <= 12 * GIB)
    first = min(large, key=lambda run: run["scene"]["shape"][0])
    if first is not last:
        # The image itself and its labels are in memory whole; beyond that nothing grows with slices.
        voxels = float(np.prod(last["scene"]["shape"]) - np.prod(first["scene"]["shape"]))
        grown = (peak - first["peak_bytes"]) / voxels
        said = f"{grown:.1f} bytes for each voxel more; sums of all classes would be {4 * last['scene']['classes']}"
        yield Figure(f"{what}: growth with slices", "flat beyond the slab", said, grown < last["scene"]["classes"])
    main, gpu = foretold(Path(last["model"]))
    yield Figure(f"{what}: main memory, foretold", "12 GiB", f"{main / GIB:.2f} GiB", main <= 12 * GIB)
    yield Figure(f"{what}: a GPU's memory, foretold", "16 GiB", f"{gpu / GIB:.2f} GiB", gpu <= 16 * GIB)


def foretold(model: Path) -> tuple[int, int]:
    """Bytes of main memory, and of a GPU's, that MedAI foretells for a large CT with a usual window."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from MedAILib.estimate import demand
    from MedAILib.read_spec import read_spec
    from MedAILib.request import RunOptions
    from MedAILib.volume import Geometry

    spec = replace(read_spec(model), patch=LARGE_WINDOW, spacing_mm=(1.5, 1.5, 1.5))
    geometry = Geometry(LARGE_SHAPE, np.diag([*LARGE_SPACING[::-1], 1.0]))
    parts = demand(spec, geometry, np.int16, RunOptions())
    return parts.on_cpu(), parts.on_gpu(True)


def _overhead(runs: list[Run]) -> Iterator[Figure]:
    for scene in _scenes(runs):
        one = [run for run in runs if run["scene"]["name"] == scene]
        ours, bare = _of(one, OURS.title), _of(one, BARE.title)
        if not ours:
            continue
        share = median(besides(run) / max(cost(run) - besides(run), 1e-9) for run in ours)
        said = f"{share:.1%} in the same run"
        if bare:
            said += f", {median(map(cost, ours)) / median(map(cost, bare)) - 1:.1%} against a loop of its own"
        # The loop of its own is noisier than both halves of one run.
        yield Figure(f"5. {scene}: overhead around the bare network", "5 %", said, share <= 0.05)


def _scenes(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run["scene"]["name"] for run in runs if run["part"] == "programs"))


def _of(runs: list[Run], way: str) -> list[Run]:
    return [run for run in runs if run["way"] == way]
