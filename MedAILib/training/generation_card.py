"""The model card of a trained generator: what it learnt from, how alike its pictures are, and a sheet of them."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import MMDMetric, SSIMMetric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from MedAILib.training.generation_task import GenerationTask

COLUMNS, MADE_ROWS, REAL_ROWS, ZOOM, GAP = 10, 4, 2, 3, 6


@dataclass(frozen=True, eq=False)
class GeneratorRecord:
    """What a card says of how a generator came about.

    Args:
        pictures: those it learnt from (N, 1, H, W), 0 to 1.
        made: some of its own, of the same shape.
        sheet: the name of the file with samples beside the card.
    """

    task: GenerationTask
    pictures: Tensor
    made: Tensor
    command: str
    machine: str
    sheet: str


def sample_sheet(made: NDArray[np.float32], real: NDArray[np.float32]) -> bytes:
    """A PNG: four rows of made pictures (N, 1, I, J), a white line, two rows of real ones."""
    rows = [_row(made[COLUMNS * n : COLUMNS * (n + 1), 0]) for n in range(MADE_ROWS)]
    gap = np.full((GAP, rows[0].shape[1]), 255, np.uint8)
    rows += [gap, *(_row(real[COLUMNS * n : COLUMNS * (n + 1), 0]) for n in range(REAL_ROWS))]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(stream, format="PNG")
    return stream.getvalue()


def _row(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pictures (N, I, J) side by side, rows downwards, enlarged."""
    lines = np.concatenate([*pictures.transpose(0, 2, 1)], axis=1)
    wide = np.zeros((lines.shape[0], COLUMNS * pictures.shape[1]), np.float32)
    wide[:, : lines.shape[1]] = lines
    return np.kron((wide * 255).round().astype(np.uint8), np.ones((ZOOM, ZOOM), np.uint8))


def alikeness(made: Tensor, real: Tensor) -> dict[str, float]:
    """How near made pictures (N, 1, I, J) come to real ones as a set, and how much they differ among themselves.

    MMD is the maximum mean discrepancy (Gretton et al. 2012, MONAI's), 0 for the same distribution. "Alike" is the mean
    structural similarity of pairs: near that of the real ones is good; above it, the generator repeats itself.
    """
    count = min(len(made), len(real)) // 2 * 2
    return {
        "MMD": float(MMDMetric()(made[:count], real[:count])),
        "alike_made": _alike(made[:count]),
        "alike_real": _alike(real[:count]),
    }


def _alike(pictures: Tensor) -> float:
    similar = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=min(11, *pictures.shape[2:]))
    with torch.inference_mode():
        return float(similar(pictures[0::2], pictures[1::2]).mean())


def write_generator_card(record: GeneratorRecord) -> str:
    """Markdown of a generator's model card."""
    task = record.task
    figures = alikeness(record.made, record.pictures)
    limits = "\n".join(f"- {text}" for text in task.warnings)
    references = "\n".join(f"- {text}" for text in task.references)
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

![Made pictures above, those it learnt from below]({record.sheet})

## Input and output

{task.latent} random numbers of a normal distribution make a grey picture of {task.size} x {task.size} pixels, 0 to 1.

## Limits

{limits}
- What it makes is as narrow as what it learnt from, and may repeat single pictures of it.

## Data

{task.data_source}. {len(record.pictures)} pictures. Licence of the weights, as derived from the data: {task.licence}.

## Training

`{record.command}` on {record.machine}; seed {task.seed}, {task.epochs} epochs, batches of {task.batch}, Adam with a
learning rate of {task.learning_rate:g}; the generator's weights are averaged over training (decay {task.ema_decay:g}).

| measure | value |
|---|---|
| maximum mean discrepancy from the training pictures (0: the same distribution) | {figures["MMD"]:.4f} |
| structural similarity of two made pictures, mean | {figures["alike_made"]:.3f} |
| structural similarity of two real pictures, mean | {figures["alike_real"]:.3f} |

## References

{references}
"""
