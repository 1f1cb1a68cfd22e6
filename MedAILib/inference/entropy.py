"""How sure a model is at a voxel: the entropy of what it finds likely there."""

import math

import torch
from torch import Tensor


def entropy(likely: Tensor, exclusive: bool) -> Tensor:
    """Entropy at each voxel, 0 (sure) to 1 (anything is as likely as anything else).

    Args:
        likely: (N, ...), 0 to 1.
        exclusive: they are of N classes of which one is right; else of N structures, and the least sure one counts.

    Returns:
        (...) float32; 0 where nothing is likely at all.
    """
    likely = likely.float()
    if exclusive:
        found = torch.special.entr(likely).sum(dim=0) / math.log(max(len(likely), 2))
    else:
        found = (torch.special.entr(likely) + torch.special.entr(1 - likely)).amax(dim=0) / math.log(2)
    return torch.as_tensor(found.clamp(0, 1))
