"""What every kind of training shares: where and how long it goes, its falling rate, its averaged weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


@dataclass(frozen=True)
class TrainingRun:
    """Where and how one training goes.

    Args:
        folder: of its checkpoints and curves.
        epochs: its length.
        device: where it computes.
        resume: go on from the last whole epoch.
        initial: a bundle whose weights it starts from.
        data_sha256: of all voxels, so that a resume on changed data is noticed; "" where not known.
        groups: what cases share, so that the cases kept for stopping share nothing with the others.
        start: weights by name of this very network that it starts from, instead of a bundle's.
        cases: of what comes without names: of the images to learn from, and of those that decide when to stop.
    """

    folder: Path
    epochs: int
    device: str = "cpu"
    resume: bool = False
    initial: Path | None = None
    data_sha256: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    start: dict[str, Tensor] | None = None
    cases: tuple[tuple[str, ...], ...] = ()


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average for `AveragedModel` that forgets faster at first, (1 + n) / (10 + n) after n steps.

    So that after few steps it is not mostly the weights that training began with.
    """

    def update(averaged: Any, current: Any, count: Any) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    return update


def falling(schedule: str, done: float) -> float:
    """What the learning rate is multiplied by when the share `done` of all steps is done."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 if schedule == "constant" else (1 - done) ** 0.9
