"""What a classifier that knows pictures by heart takes for none of its kind: `strange_pictures.py MODEL DATA.npz`.

DATA is the MedMNIST file that it learnt from (train and val). Of each kind of picture: how many are above the model's
limit, and the area under the ROC curve of their strangeness against that of the known pictures, each judged as if it
and its mirror image were not known. `--volumes` adds slices of your own, three ways through each.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from MedAILib.bundle_spec import bundle_spec
from MedAILib.models.bundle import weighted_network
from MedAILib.models.kernel_classifier import KernelClassifier
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.store import find_model
from MedAILib.plans import read_any_plan
from MedAILib.training.kernel_lesson import apart_from_others

Pictures = NDArray[Any]  # (N, rows, columns)


def known_pictures(path: Path) -> Pictures:
    with np.load(path) as content:
        return np.concatenate([content["train_images"], content["val_images"]]).astype(float)


def strange_kinds(known: Pictures, rng: np.random.Generator) -> Iterator[tuple[str, Pictures]]:
    """Kinds of pictures by name, of the known ones' size."""
    size = known.shape[1]
    noise = rng.normal(size=(100, size, size))
    yield "white noise", noise
    yield "smooth noise", gaussian_filter(noise, (0, size / 9, size / 9))
    taken = known[rng.permutation(len(known))[:150]]
    yield "known pictures inverted", 255 - taken
    yield "known pictures upside down", taken[:, ::-1]
    yield "known pictures turned by 90 degrees", np.rot90(taken, axes=(1, 2))
    brain = np.asarray(load_mni152_template(1).get_fdata())
    yield "brain MR, axial", resized([brain[:, :, k].T[::-1] for k in range(30, 150, 2)], size)
    yield (
        "photographs",
        resized([part for picture in load_sample_images().images for part in parts(picture, rng)], size),
    )


def parts(picture: Pictures, rng: np.random.Generator) -> Iterator[Pictures]:
    """Fifty squares of a photograph, grey."""
    grey = picture.mean(axis=2)
    for _ in range(50):
        side = int(rng.integers(64, min(grey.shape)))
        top, left = (int(rng.integers(length - side + 1)) for length in grey.shape)
        yield grey[top : top + side, left : left + side]


def slices_of(path: Path, size: int) -> Pictures:
    """Some slices along each axis of a volume file, without those that are nearly plain."""
    values = np.clip(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(float), -200, None)
    wanted = [np.linspace(0, length - 1, 12)[1:-1].astype(int) for length in values.shape]
    found = [np.take(values, k, axis) for axis, places in enumerate(wanted) for k in places]
    return resized([part for part in found if part.std() > 0.1 * values.std()], size)


def resized(pictures: list[Pictures], size: int) -> Pictures:
    """By area, as the model does it."""
    whole = [torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32)) for picture in pictures]
    return np.stack([F.interpolate(part[None, None], (size, size), mode="area")[0, 0].numpy() for part in whole])


@torch.inference_mode()
def strangeness(network: MeanClassifier, pictures: Pictures) -> NDArray[np.float64]:
    """The energy of what a network says (N,)."""
    values = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    values = (values - values.mean((1, 2), keepdim=True)) / values.std((1, 2), keepdim=True, correction=0)
    return np.asarray(-network(values.transpose(1, 2)[:, None]).logsumexp(dim=1).double().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--volumes", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    plan = read_any_plan(find_model(options.model))
    classes, network = bundle_spec(plan).classes, weighted_network(plan).eval()
    if classes is None or classes.out_of_distribution is None or not isinstance(network, MeanClassifier):
        parser.error("the model is no mean of classifiers with an out-of-distribution score")
    machine = next((part for part in network.members if isinstance(part, KernelClassifier)), None)
    if machine is None:
        parser.error("the model knows no pictures by heart")
    limit, known = classes.out_of_distribution.threshold, known_pictures(options.data)
    own = apart_from_others(machine, len(network.mirrors) + 1)
    kinds = dict(strange_kinds(known, np.random.default_rng(0)))
    if options.volumes:
        kinds["slices of volumes"] = np.concatenate([slices_of(path, known.shape[1]) for path in options.volumes])
    print(
        f"limit {limit:g}; of {len(own)} known pictures, each as if not known, {np.mean(own > limit):.1%} are above it"
    )
    for name, pictures in kinds.items():
        found = strangeness(network, pictures)
        area = roc_auc_score(np.repeat([0, 1], [len(own), len(found)]), np.concatenate([own, found]))
        print(f"{name:36s} {len(found):4d} pictures, {np.mean(found > limit):4.0%} above the limit, area {area:.3f}")


if __name__ == "__main__":
    main()
