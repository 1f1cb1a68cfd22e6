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

SHEET = "samples.png"
COLUMNS, MADE_ROWS, REAL_ROWS, GAP = 10, 4, 2, 6
WIDTH = 840  # of the sheet, at least, in pixels


@dataclass(frozen=True, eq=False)
class GeneratorRecord:
    """What a card says of how a generator came about.

    Args:
        pictures: those it learnt from (N, 1, I, J), 0 to 1.
        made: some of its own, of the same shape.
        part: of the data that they are from; empty where it has no parts.
        numbers: the type that the networks computed in.
        stopping: how many more pictures decided when to stop.
    """

    task: GenerationTask
    pictures: Tensor
    made: Tensor
    command: str
    machine: str
    part: str
    numbers: str
    stopping: int = 0


def sample_sheet(made: NDArray[np.float32], real: NDArray[np.float32]) -> bytes:
    """A PNG: four rows of made pictures (N, 1, I, J), a white line, two rows of real ones."""
    rows = [_row(made[COLUMNS * n : COLUMNS * (n + 1), 0]) for n in range(MADE_ROWS)]
    gap = np.full((GAP, rows[0].shape[1]), 255, np.uint8)
    rows += [gap, *(_row(real[COLUMNS * n : COLUMNS * (n + 1), 0]) for n in range(REAL_ROWS))]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(stream, format="PNG")
    return stream.getvalue()


def _row(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pictures (N, I, J) side by side, I to the right and J downwards, enlarged to whole pixels."""
    wide = np.ones((pictures.shape[2], COLUMNS * pictures.shape[1]), np.float32)
    if len(pictures):
        lines = np.concatenate([*pictures.transpose(0, 2, 1)], axis=1)
        wide[:, : lines.shape[1]] = lines
    zoom = -(-WIDTH // wide.shape[1])
    return (wide * 255).round().astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)


def alikeness(made: Tensor, real: Tensor) -> dict[str, float]:
    """How near made pictures (N, 1, I, J) come to real ones as a set, and how much they differ among themselves.

    "mmd" is the maximum mean discrepancy (Gretton et al. 2012, MONAI's), 0 for the same distribution, and "mmd_real"
    that of one half of the real ones from the other, which is as near as it gets. The others are the mean structural
    similarity of pairs: that of made ones near that of real ones is good; above it, the generator repeats itself.
    """
    count = min(len(made), len(real)) // 2 * 2
    return {
        "mmd": float(MMDMetric()(made[: count // 2], real[: count // 2])),
        "mmd_real": float(MMDMetric()(real[0:count:2], real[1:count:2])),
        "alike_made": _alike(made[:count]),
        "alike_real": _alike(real[:count]),
    }


def _alike(pictures: Tensor) -> float:
    window = min(11, *pictures.shape[2:])
    similar = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=window - 1 + window % 2)
    with torch.inference_mode():
        return float(torch.as_tensor(similar(pictures[0::2], pictures[1::2])).mean())


def write_generator_card(record: GeneratorRecord) -> str:
    """Markdown of a generator's model card."""
    task = record.task
    figures = alikeness(record.made, record.pictures)
    limits = "\n".join(f"- {text}" for text in task.warnings)
    references = "\n".join(f"- {text}" for text in task.references)
    label = f" of the label '{task.label}'" if task.label else ""
    part = f" of the part '{record.part}'" if record.part else ""
    stopped = (
        f" {record.stopping} more pictures decided when to stop, after {task.patience} epochs without gain: of every "
        "tenth epoch's\naverages those were taken whose pictures came nearest to these."
        if record.stopping
        else ""
    )
    effect = task.effect or "Not measured."
    return f"""# {task.title}

{task.description}{", learnt from those" + label if label else ""}.

**{task.intended_use}**

![Made pictures above, those it learnt from below]({SHEET})

Above the white line: made. Below: pictures that it learnt from.

## Input and output

{task.latent} random numbers of a normal distribution make a grey picture of {task.size} x {task.size} pixels, 0 to 1.

## Limits

{limits}
- What it makes is as narrow as what it learnt from, and may repeat single pictures of it.

## Data

{task.data_source}. {len(record.pictures)} pictures{label}{part}. Licence of the weights, as derived from the data:
{task.licence}.

## Training

```
{record.command}
```

A DCGAN: seed {task.seed}, {task.epochs} epochs in batches of {task.batch}, Adam with a learning rate of
{task.learning_rate:g} for both networks; the generator's weights are averaged over training (decay
{task.ema_decay:g}), {record.numbers}. Machine: {record.machine}.{stopped}

## Validation

| measure | value |
|---|---|
| maximum mean discrepancy, made from real pictures (0: the same distribution) | {figures["mmd"]:.4f} |
| the same, one half of the real pictures from the other | {figures["mmd_real"]:.4f} |
| structural similarity of two made pictures, mean | {figures["alike_made"]:.3f} |
| structural similarity of two real pictures, mean | {figures["alike_real"]:.3f} |

The real pictures are those it learnt from. The discrepancy is an estimate that may fall below 0.

## As augmentation

{effect}

## References

{references}
"""
