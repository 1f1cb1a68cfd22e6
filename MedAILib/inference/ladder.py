"""What gives way, step by step, when a run would take more memory than there is; every step is told to the user.

In order: sums of windows in main memory, smaller windows where the model allows, the CPU. The numbers of `estimate`
are compared with what the system and the GPU's driver say is free, before the run; what runs out all the same in the
middle of a run leads to the next step, too. Images are prepared where sums are, or on the CPU where a GPU has no room
for that alone.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from MedAILib.errors import InputError
from MedAILib.estimate import Demand
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.place import CPU, preparing_place
from MedAILib.progress import Progress
from MedAILib.system_memory import available_memory

Done = TypeVar("Done")
ON_CPU = "the model runs on the CPU, which is slower"
PREPARED_ON_CPU = "the image is prepared on the CPU"
# A window is never made smaller than this many voxels along an axis.
SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Rung:
    """One way to run.

    Args:
        device: where the network runs.
        sums: where overlapping windows are added up.
        window: the windows' size along the network's axes, in voxels.
        steps: what gave way to come here, for the user.
    """

    device: torch.device
    sums: torch.device
    window: tuple[int, ...]
    steps: tuple[str, ...] = ()

    def then(self, step: str, **changes: object) -> "Rung":
        """A rung further down."""
        return replace(self, steps=(*self.steps, step), **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Memory:
    """What is there, in bytes; None where that is not known.

    Args:
        main: main memory that is available.
        gpu: the GPU's memory that is free, or kept by PyTorch and not in use.
    """

    main: int | None
    gpu: int | None = None


def rungs(device: torch.device, window: tuple[int, ...], multiple: tuple[int, ...] | None) -> Iterator[Rung]:
    """Ways to run from the fastest to the most frugal.

    Args:
        device: what the user asked for.
        window: the model's own window.
        multiple: sizes of windows that its network takes are multiples of these; None where it takes its own alone.
    """
    rung = Rung(device, device, window)
    yield rung
    if device.type != "cpu":
        rung = rung.then("overlapping windows are added up in main memory", sums=CPU)
        yield rung
    frugal = rung
    for smaller in _smaller(window, multiple):
        text = f"windows of {_size(smaller)} instead of {_size(window)} voxels, which may change labels a little"
        frugal = replace(rung.then(text), window=smaller)
        yield frugal
    if device.type != "cpu":
        rung = rung.then(ON_CPU, device=CPU)
        yield rung
        for smaller in _smaller(window, multiple):
            text = f"windows of {_size(smaller)} instead of {_size(window)} voxels, which may change labels a little"
            yield replace(rung.then(text), window=smaller)


def climb_down(
    ways: Iterator[Rung],
    need: Callable[[Rung], Demand] | None,
    attempt: Callable[[Rung], Done],
    progress: Progress,
    have: Callable[[torch.device], Memory] | None = None,
) -> tuple[Done, Rung]:
    """Run in the first way that fits and goes through; each thing that gives way is a warning of `progress`.

    Args:
        ways: as `rungs` gives them.
        need: what a way takes; None where it can't be foretold.
        attempt: runs.
        progress: is told.
        have: what there is, for a device; None asks the system.

    Raises:
        InputError: no way fits into what there is; says how much is needed and what to do.
        MemoryError, RuntimeError: memory ran out in the most frugal way, too.
    """
    told: set[str] = set()
    short, least, failure = "", None, None
    for rung in ways:
        if need is not None:
            demand, memory = need(rung), (have or free_memory)(rung.device)
            lacking = _lacking(rung, demand, memory)
            if lacking:
                short = short or lacking
                least = lacking
                continue
        for step in rung.steps:
            if step not in told:
                told.add(step)
                progress.warn(f"Memory is short ({short}): {step}.")
        try:
            return attempt(rung), rung
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Its frames hold the tensors of the way that failed; the reason alone is kept.
            failure = MemoryError(str(error).split("\n")[0])
        short = f"it ran out on {'the CPU' if rung.device.type == 'cpu' else 'the GPU'}"
        _let_go()
    if failure is not None:
        raise failure
    raise InputError(
        f"There is not enough memory for this run ({least}); give a region of interest, close other programs, or run "
        "on a computer with more memory."
    )


def or_on_cpu(
    device: torch.device,
    attempt: Callable[[torch.device], Done],
    progress: Progress,
    need: Demand | None = None,
    have: Callable[[torch.device], Memory] | None = None,
) -> tuple[Done, tuple[str, ...]]:
    """Run on a device, and on the CPU where a GPU's memory does not suffice; `progress` is warned then.

    This is for models whose windows are their own.

    Args:
        device: what the user asked for.
        attempt: runs.
        progress: is told.
        need: what a run takes; None where it can't be foretold.
        have: what there is, for a device; None asks the system.

    Returns:
        What `attempt` made, and what gave way, for provenance.

    Raises:
        InputError: it fits nowhere; says how much is needed and what to do. Nothing has been computed.
        MemoryError, RuntimeError: memory ran out on the CPU, too.
    """
    if need is not None:
        ways = iter([Rung(device, device, ())])
        if device.type != "cpu":
            ways = iter([Rung(device, device, ()), Rung(CPU, CPU, (), (ON_CPU,))])
        done, rung = climb_down(ways, lambda _: need, lambda rung: attempt(rung.device), progress, have)
        return done, rung.steps
    try:
        return attempt(device), ()
    except (RuntimeError, MemoryError) as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    _let_go()
    progress.warn(f"Memory is short (it ran out on the GPU): {ON_CPU}.")
    return attempt(CPU), (ON_CPU,)


class Preparing:
    """Prepares the images of one run where they are needed, and all of them on the CPU once a GPU had no room for one.

    Args:
        progress: is warned where a GPU's memory does not suffice.
        have: what there is, for a device; None asks the system.

    Attributes:
        gave_way: what gave way, for provenance.
    """

    def __init__(self, progress: Progress, have: Callable[[torch.device], Memory] | None = None) -> None:
        self._progress, self._have = progress, have
        self.gave_way: tuple[str, ...] = ()

    def __call__(
        self, device: torch.device, attempt: Callable[[torch.device], Done], need: Demand | None = None
    ) -> Done:
        """What `attempt` makes of one image.

        Args:
            device: where the image is to lie while the network runs.
            attempt: prepares on a device.
            need: what a run takes; None where it can't be foretold.
        """
        place = preparing_place(device)
        if place.type == "cpu" or self.gave_way:
            return attempt(CPU)
        there = (self._have or free_memory)(place).gpu
        wanted = None if need is None else need.preparing_on_gpu()
        if wanted is not None and there is not None and wanted > there:
            short = _short("the GPU's memory", wanted, there)
        else:
            try:
                return attempt(place)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            short = "it ran out on the GPU"
            _let_go()
        self._progress.warn(f"Memory is short ({short}): {PREPARED_ON_CPU}.")
        self.gave_way = (PREPARED_ON_CPU,)
        return attempt(CPU)


def free_memory(device: torch.device) -> Memory:
    """What there is for a run on a device."""
    if device.type != "cuda":
        return Memory(available_memory())
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Memory(available_memory(), free + kept)


def _lacking(rung: Rung, demand: Demand, memory: Memory) -> str:
    """What is too little for a way to run, in words; empty where all fits. The weights are already in their place."""
    if rung.device.type == "cpu":
        wanted = [("main memory", demand.on_cpu() - demand.weights - demand.input, memory.main)]
    else:
        on_gpu = rung.sums.type != "cpu"
        wanted = [
            ("the GPU's memory", demand.on_gpu(on_gpu) - demand.weights, memory.gpu),
            ("main memory", demand.beside_gpu(on_gpu) - demand.input, memory.main),
        ]
    for what, needed, there in wanted:
        if there is not None and needed > there:
            return _short(what, needed, there)
    return ""


def _short(what: str, needed: int, there: int) -> str:
    return f"about {needed / 2**30:.1f} GiB of {what} are needed, {there / 2**30:.1f} GiB are free"


def _smaller(window: tuple[int, ...], multiple: tuple[int, ...] | None) -> Iterator[tuple[int, ...]]:
    """Windows of half the size, and half of that: along the longest axis each time, in sizes that the network takes."""
    if multiple is None:
        return
    size = list(window)
    while True:
        least = [max(SMALLEST_SIDE, 2 * step) for step in multiple]
        possible = [axis for axis in range(3) if size[axis] > least[axis]]
        if not possible:
            return
        axis = max(possible, key=lambda a: size[a])
        half = -(-size[axis] // (2 * multiple[axis])) * multiple[axis]
        if half >= size[axis]:
            return
        size[axis] = max(half, least[axis])
        yield (size[0], size[1], size[2])


def _size(window: tuple[int, ...]) -> str:
    return " x ".join(str(n or "all") for n in window)


def _let_go() -> None:
    """Free what the way that failed has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
