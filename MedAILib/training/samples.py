"""Samples in an order and with random changes that are a function of seed, epoch and place alone.

So a training that goes on after a kill sees what it would have seen, whatever ran before and in how many processes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Sampler

from MedAILib.progress import Progress
from MedAILib.system_memory import available_memory
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.cases import Case
from MedAILib.training.processes import SharedOrder, own_share, process_count
from MedAILib.training.task import SegmentationTask

# The share of free memory that prepared images may take; the others are prepared anew each time.
CACHED_SHARE = 0.5


class SeededSampler(Sampler[tuple[int, int]]):
    """Shuffles the cases of an epoch, and gives each place of it the seed of its random changes."""

    def __init__(self, cases: int, samples: int, seed: int, epoch: int) -> None:
        self.cases, self.samples, self.seed, self.epoch = cases, samples, seed, epoch

    def __len__(self) -> int:
        return self.cases * self.samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self)) % self.cases
        for place, case in enumerate(order.tolist()):
            yield case, seed_of(self.seed, epoch, place)


class SeededSamples(Dataset):
    """Prepared cases, changed at random by the seed that comes with each index."""

    def __init__(self, prepared: Dataset, steps: Compose) -> None:
        self.prepared, self.steps = prepared, steps

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Tensor]:  # type: ignore[override]
        case, seed = index
        self.steps.set_random_state(seed)
        sample: dict[str, Tensor] = self.steps(dict(self.prepared[case]))
        return sample


class SeededOrder(Sampler[int]):
    """A shuffled order for each epoch, decided by seed and epoch alone.

    Args:
        length: how many images there are.
        seed: of the order.
        epoch: how many epochs are over.
        shares: (length,), how often each image is drawn, in relation; None: each once.
    """

    def __init__(self, length: int, seed: int, epoch: int, shares: Tensor | None = None) -> None:
        self.length, self.seed, self.epoch, self.shares = length, seed, epoch, shares

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1000 * self.epoch)
        self.epoch += 1
        if self.shares is None:
            yield from torch.randperm(self.length, generator=generator).tolist()
        else:
            yield from torch.multinomial(self.shares, self.length, replacement=True, generator=generator).tolist()


def seed_of(*numbers: int) -> int:
    """A seed below 2**32 from several numbers, the same everywhere."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def prepared_cases(task: SegmentationTask, cases: tuple[Case, ...], progress: Progress) -> CacheDataset:
    """Cases as the network wants them, without random changes, kept in memory as far as it goes.

    Raises:
        Cancelled: by `progress`, between two cases.
    """
    files = [{"image": [str(x) for x in c.images], "label": str(c.label), "values": c.values} for c in cases]
    steps = fixed_steps(task)
    progress.step(0, len(cases), "Preparing")
    first = steps(dict(files[0]))
    size = sum(value.nbytes for value in first.values() if isinstance(value, torch.Tensor))
    fits = (
        len(files)
        if (free := available_memory()) is None
        else int(free * CACHED_SHARE / process_count() / max(size, 1))
    )
    prepared = CacheDataset(files, steps, cache_num=min(fits, len(files)), num_workers=1, progress=False)
    progress.step(len(cases), len(cases), "Preparing")
    return prepared


def loader_of(task: SegmentationTask, prepared: CacheDataset, epoch: int) -> DataLoader:
    """Batches of samples from an epoch on, counted from 0; of several processes each has its part of every batch."""
    sampler: Sampler = SeededSampler(len(prepared), task.samples, task.seed, epoch)  # type: ignore[type-arg]
    if process_count() > 1:
        sampler = SharedOrder(sampler, task.batch)
    return DataLoader(
        SeededSamples(prepared, random_steps(task)), batch_size=own_share(task.batch), sampler=sampler, num_workers=0
    )
