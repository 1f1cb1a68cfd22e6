"""One training in several processes, a GPU each, as `torchrun` starts them: who each is, its share, their common end.

PyTorch's distributed data parallelism under MONAI's trainers: all processes see the same data and hold the same
weights, each learns from its part of every batch, and gradients are averaged. The first alone writes, tells and judges.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from MedAILib.errors import DeviceError, InputError, MedAIError, ToldError
from MedAILib.models.device import find_device
from MedAILib.progress import Cancelled

T = TypeVar("T")
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, in the environment
LONGEST_WAIT = timedelta(days=7)  # for the first process, while it judges on the cases kept aside
LONGEST_MEETING = timedelta(minutes=10)  # of processes that may read their libraries from a slow disk
ENDED = "ended"
_MEETINGS = itertools.count()


def asked_processes(environment: Mapping[str, str] | None = None) -> int:
    """How many processes `torchrun` has started for this training; 1 where it has not been started so.

    Raises:
        InputError: the environment's numbers are none.
    """
    told = os.environ if environment is None else environment
    if not set(TOLD) <= set(told):
        return 1
    try:
        ranks, world = [int(told[key]) for key in ("RANK", "LOCAL_RANK")], int(told["WORLD_SIZE"])
    except ValueError:
        ranks, world = [-1], 0
    if world < 1 or not all(0 <= rank < world for rank in ranks):
        given = ", ".join(f"{key}={told[key]}" for key in TOLD[:3])
        raise InputError(f"The environment has {given}, which are no processes of one training; start it by torchrun.")
    return world


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_number() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes files, tells the user and judges; one alone is."""
    return process_number() == 0


def own_device(name: str) -> torch.device:
    """The device of a name for this process: of several processes each has a GPU of its own, or all the CPU.

    Raises:
        DeviceError: no such device here, or too few of them.
    """
    if asked_processes() == 1:
        return find_device(name)
    here, gpus = _processes_here(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        find_device(name)
        raise DeviceError(f"--device {name} is one device, and {here} processes train; give --device cuda.")
    if gpus < here:
        raise DeviceError(f"{here} processes need a GPU each, and there are {gpus}; start fewer, or give --device cpu.")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Within this, the processes that `torchrun` started are one training; a single process is left as it is.

    What ends one of them ends all: the sentence of the first that fails reaches the others.

    Raises:
        MedAIError: another process failed, or ended without a word.
        ToldError: another process has told the same already.
    """
    if asked_processes() == 1:
        yield
        return
    store = _meet(device)
    try:
        idist.get_rank()  # ignite's trainers look at the processes, too: all at once
        yield
    except MedAIError as error:
        first = _tell(store, str(error))
        if first is not None and first[0] != process_number() and first[1] == str(error):
            raise ToldError(str(error)) from error
        raise
    except (Cancelled, KeyboardInterrupt) as error:  # torchrun ends the others by a signal
        if reason := _told_by_another(store):
            raise reason from error
        raise
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise _told_by_another(store) or InputError(
            "Another process of this training ended without a word (killed, or out of memory); start all again with "
            "--resume."
        ) from error
    finally:
        if (ending := sys.exc_info()[1]) is not None and not isinstance(ending, MedAIError):
            _tell(store, f"{type(ending).__name__}: {ending}".rstrip(": "))
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Return when every process has come here."""
    if process_count() > 1:
        dist.barrier()


def mean_over_processes(value: float) -> float:
    """The mean of a number that every process has; as it is where there is one process."""
    if process_count() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64, device=_meeting_place())
    dist.all_reduce(total)
    return float(total) / process_count()


def said_by_first(value: float) -> float:
    """The first process's number, on all of them."""
    if process_count() == 1:
        return value
    said = torch.tensor([value], dtype=torch.float64, device=_meeting_place())
    dist.broadcast(said, src=0)
    return float(said)


def own_share(batch: int, least: int = 1) -> int:
    """How many samples of a batch are each process's.

    Raises:
        InputError: a batch that can't be divided, or would leave a process fewer than `least`.
    """
    processes = process_count()
    if processes > 1 and (batch % processes or batch // processes < least):
        fits = max(least, round(batch / processes)) * processes
        raise InputError(
            f"A batch of {batch} can't be divided among {processes} processes"
            + (f" with {least} samples each" if least > 1 else "")
            + f"; give --set batch={fits}, or another multiple of {processes}."
        )
    return batch // processes


def joined(
    network: nn.Module, device: torch.device, some_unused: bool = False, several_passes: bool = False
) -> nn.Module:
    """A network whose gradients are averaged over the processes; as it is where there is one process.

    Args:
        network: on its device.
        device: of this process.
        some_unused: a step may leave parameters without gradients.
        several_passes: the network sees more than one batch before its gradients are computed; what its norms count
            stays each process's own then.
    """
    if process_count() == 1:
        return network
    places = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=places, find_unused_parameters=some_unused, broadcast_buffers=not several_passes
    )


class SharedOrder(Sampler):  # type: ignore[type-arg]  # of whatever the order gives
    """What of each batch of an order is this process's: all processes together take what one process would.

    A last batch that is not full is filled up from the order's beginning, so that each process has its share; with
    `drop_last` it is left out.

    Args:
        order: the same on all processes.
        batch: its size over all processes, a multiple of their number.
        drop_last: leave an incomplete batch out.
    """

    def __init__(self, order: Sampler, batch: int, drop_last: bool = False) -> None:  # type: ignore[type-arg]
        self.order, self.batch, self.drop_last = order, batch, drop_last
        self.share = own_share(batch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch)  # type: ignore[arg-type]
        return (whole + (1 if rest and not self.drop_last else 0)) * self.share

    def __iter__(self) -> Iterator[object]:
        every = list(self.order)
        for start in range(0, len(self) // self.share * self.batch, self.batch):
            first = start + process_number() * self.share
            yield from (every[place % len(every)] for place in range(first, first + self.share))


def own_part(batch: list[T], whole: int, begun: list[T]) -> list[T]:
    """What of a batch is this process's, filled up to `whole` from what the epoch began with."""
    share = own_share(whole)
    full = [*batch, *(begun[n % len(begun)] for n in range(whole - len(batch)))]
    return full[process_number() * share : (process_number() + 1) * share]


def own_seed(seed: int) -> int:
    """A seed for what each process draws by itself; the first's, and a single process's, is the seed as it is."""
    return seed + 7_919 * process_number()


def _meeting_place() -> torch.device:
    """Where tensors have to be for the processes to exchange them."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _processes_here() -> int:
    """How many of the processes are on this computer."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))


def _meet(device: torch.device) -> dist.Store:
    """Wait for the other processes, and form one group with them.

    Returns:
        where they leave words for each other.

    Raises:
        InputError: they don't come.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, number, count = next(dist.rendezvous("env://", timeout=LONGEST_MEETING))
        store = dist.PrefixStore(f"medai {next(_MEETINGS)}", store)  # a process may train more than once
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=LONGEST_WAIT)
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(
            f"The {os.environ['WORLD_SIZE']} processes of this training did not all meet at {place}; start them "
            "together, by torchrun."
        ) from error
    return store


def _tell(store: dist.Store, text: str) -> tuple[int, str] | None:
    """Leave for the others why this process ends.

    Returns:
        who was first to say why, and what; None where it can't be known any more.
    """
    own = f"{process_number()} {text}"
    try:
        said = store.compare_set(ENDED, "", own).decode()
    except dist.DistError:
        return None
    number, _, reason = said.partition(" ")
    return int(number), reason


def _told_by_another(store: dist.Store) -> MedAIError | None:
    """What another process has left before it ended."""
    try:
        for _ in range(20):  # its word may be under way still
            if store.check([ENDED]):
                break
            time.sleep(0.1)
        else:
            return None
        said = store.get(ENDED).decode()
    except dist.DistError:
        return None
    number, _, reason = said.partition(" ")
    if int(number) == process_number():
        return None
    return InputError(f"Process {process_number()} of {process_count()} ends, since process {number} did: {reason}")
