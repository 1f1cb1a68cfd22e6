"""The picture of what a classifier's training sees: clips are drawn by their middle frame, volumes by a slice of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from clips import frame_network, heart_task
from matplotlib.figure import Figure

from MedAILib.training.classification_samples import COLUMNS, draw_class_samples
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData

FRAMES = 5


def task_of(**changes: Any) -> ClassificationTask:
    told = {key: value for key, value in heart_task(frames=FRAMES).items() if key != "kind"}
    return replace(ClassificationTask(**told), **changes)  # type: ignore[arg-type]


def clips_of(*shape: int) -> ClassData:
    """Four clips of random frames that are all different."""
    images = torch.rand(4, FRAMES, *shape, generator=torch.Generator().manual_seed(0))
    names = tuple(str(n) for n in range(4))
    return ClassData(images, np.array([0, 1, 0, 1]), names, ("",) * 4, ("",) * 4)


def panel(figure: Figure, row: int, column: int) -> np.ndarray:
    return np.asarray(figure.axes[row * COLUMNS + column].images[0].get_array())


def scaled(picture: torch.Tensor) -> np.ndarray:
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low)).T.numpy()


def test_a_clip_of_pictures_is_drawn_by_its_middle_frame() -> None:
    data = clips_of(1, 24, 20)
    figure = draw_class_samples(task_of(size=[24, 20]), data)
    assert panel(figure, 1, 0) == pytest.approx(scaled(data.images[1, FRAMES // 2, 0]))


def test_a_clip_of_volumes_is_drawn_by_the_middle_slice_of_its_middle_frame() -> None:
    data = clips_of(1, 16, 14, 10)
    changes = {"size": [16, 14, 10], "orientation": "RAS", "network": frame_network(2) | {"spatial_dims": 3}}
    figure = draw_class_samples(task_of(**changes), data)
    assert panel(figure, 2, 0) == pytest.approx(scaled(data.images[2, FRAMES // 2, 0, ..., 5]))


def test_all_frames_of_a_clip_are_drawn_changed_alike() -> None:
    data = clips_of(1, 12, 12)
    data.images[:] = data.images[:, :1]  # clips that stand still
    still = task_of(size=[12, 12], augmentation={"flip": [0, 1], "rotate": 20, "gamma": 0.3})
    one = replace(still, frames=0, network=frame_network(2))
    alone = replace(data, images=data.images[:, 0])
    for column in range(1, COLUMNS):
        drawn = panel(draw_class_samples(still, data), 0, column)
        assert drawn == pytest.approx(panel(draw_class_samples(one, alone), 0, column), abs=1e-3)
