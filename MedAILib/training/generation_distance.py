"""How near a generator's pictures come to real ones that it has not learnt from, which tells when to stop.

A generator's loss says how it stands against the discriminator, not how good its pictures are. So pictures are kept
aside, and the made ones compared with them as sets: the maximum mean discrepancy (Gretton et al. 2012, MONAI's) of what
a network of random weights sees in them. Such features need no weights from elsewhere, and tell sets of pictures that
are no photographs apart better than those learnt from photographs (Naeem et al. 2020, arXiv:2002.09797).
"""

from itertools import pairwise

import numpy as np
import torch
from monai.metrics import MMDMetric
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from MedAILib.errors import InputError

KEPT = 5  # one of so many pictures is kept aside
FEWEST = 10
MADE = 256  # pictures that are judged, about
CHANNELS = (1, 32, 64, 128)
SEED = 0


def kept_aside(pictures: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 1, I, J) to learn from, and those that decide when to stop.

    Raises:
        InputError: there are too few.
    """
    if len(pictures) < FEWEST:
        raise InputError(
            f"There are {len(pictures)} pictures, too few to keep some aside and stop early by them; give "
            "--set patience=0."
        )
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    count = len(pictures) // KEPT
    return pictures[order[count:].sort().values], pictures[order[:count].sort().values]


class Distance:
    """How far made pictures are, as a set, from those kept aside; 0 for the same distribution, and about it by chance.

    Args:
        learnt: pictures (N, 1, I, J), 0 to 1, whose features have mean 0 and standard deviation 1.
        kept: those to compare with.
    """

    def __init__(self, learnt: Tensor, kept: Tensor) -> None:
        draws = torch.Generator().manual_seed(SEED)
        self._layers = nn.ModuleList()
        for wide, wider in pairwise(CHANNELS):
            layer = nn.Conv2d(wide, wider, 3, stride=2, padding=1)
            nn.init.normal_(layer.weight, 0.0, (2 / (9 * wide)) ** 0.5, generator=draws)
            nn.init.normal_(layer.bias, 0.0, 0.1, generator=draws)  # type: ignore[arg-type]  # it has one
            self._layers.append(layer)
        found = self._seen(learnt)
        self._mean, self._spread = found.mean(dim=0), found.std(dim=0).clamp_min(1e-6)
        self._kept = kept[:MADE]
        self._compare = MMDMetric(self._features)

    @property
    def wanted(self) -> int:
        """How many made pictures it compares with: as many as are kept, or some times as many."""
        return len(self._kept) * max(MADE // len(self._kept), 1)

    def __call__(self, made: Tensor) -> float:
        """The distance of `wanted` made pictures (N, 1, I, J), 0 to 1: the mean over parts as large as what is kept."""
        return float(np.mean([float(self._compare(self._kept, part)) for part in made.split(len(self._kept))]))

    def _features(self, pictures: Tensor) -> Tensor:
        """(N, features), whose squared distances are means over features."""
        return (self._seen(pictures) - self._mean) / self._spread / len(self._mean) ** 0.5

    @torch.no_grad()
    def _seen(self, pictures: Tensor) -> Tensor:
        """Mean and standard deviation of each channel of each layer."""
        found = []
        for layer in self._layers:
            pictures = leaky_relu(layer(pictures), 0.2)
            found += [pictures.mean(dim=(2, 3)), pictures.flatten(2).std(dim=2, correction=0)]
        return torch.cat(found, dim=1)
