"""Judge what `nnunet_training.py` has trained: one evaluation for both programs' labels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunet_training_watch import Trained
from nnunets import predictor, silence

from MedAILib.models.bundle import BundleModel
from MedAILib.models.weights import load_weights
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.training.cases import Case
from MedAILib.training.evaluate import Evaluation, evaluate_segmentation
from MedAILib.training.segmentation_export import Bundle, write_bundle
from MedAILib.training.task import SegmentationTask
from MedAILib.volume import Volume

CPU = torch.device("cpu")


class NnunetPredictor:
    """nnU-Net's own predictor as a model that the evaluation runs: the labels are its own.

    Args:
        result: the folder that nnU-Net has trained into.
        spec: of a model of the same labels.
        checkpoint: which weights.
    """

    def __init__(self, result: Path, spec: ModelSpec, checkpoint: str = "checkpoint_final.pth") -> None:
        self.spec = replace(spec, name="nnU-Net", title="nnU-Net")
        self._own = predictor()
        with silence():
            self._own.initialize_from_trained_model_folder(str(result), (0,), checkpoint)

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        """Labels of one image on its own grid."""
        progress.step(0, 1)
        self._own.use_mirroring = options.mirror
        with silence():
            said = {"spacing": list(volume.geometry.spacing_kji_mm)}
            found = self._own.predict_single_npy_array(volume.data.astype(np.float32), said, None, None, False)
        return Segmentation(np.asarray(found)[None].astype(np.uint8), self.spec.labels, volume.geometry)


def judged(folder: Path, task: SegmentationTask, cases: Sequence[Case]) -> dict[str, Evaluation]:
    """Evaluations of both by name, with and without mirroring."""
    labels = {int(label["value"]): str(label["name"]) for label in task.labels}
    medai = BundleModel(folder / "medai", CPU)
    nnunet = NnunetPredictor(_result(folder), medai.spec)
    torch.set_num_threads(1)
    return {
        name: evaluate_segmentation(model, cases, labels, Progress(), RunOptions(mirror=mirror))
        for name, model, mirror in (
            ("MedAI", medai, False),
            ("MedAI, mirrored", medai, True),
            ("nnU-Net, mirrored", nnunet, True),
            ("nnU-Net", nnunet, False),
        )
    }


def curves(
    folder: Path, task: SegmentationTask, cases: Sequence[Case], trained: dict[str, Trained]
) -> dict[str, list[tuple[float, float]]]:
    """(Seconds from the start, mean Dice over cases and structures) of weights kept on the way and the final ones."""
    labels = {int(label["value"]): str(label["name"]) for label in task.labels}
    final = BundleModel(folder / "medai", CPU)
    found: dict[str, list[tuple[float, Any]]] = {"MedAI": [], "nnU-Net": []}
    for path in (folder / "MedAI" / "snapshots").glob("*.pt"):
        state = load_weights(path)["average"]
        weights = {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}
        write_bundle(Bundle(task, weights, ""), path.with_suffix(""))
        found["MedAI"].append((float(path.stem), BundleModel(path.with_suffix(""), CPU)))
    for path in _result(folder).glob("fold_0/snapshot_*.pth"):
        model = NnunetPredictor(_result(folder), final.spec, path.name)
        found["nnU-Net"].append((float(path.stem.removeprefix("snapshot_")), model))
    found["MedAI"].append((trained["MedAI"].wall, final))
    found["nnU-Net"].append((trained["nnU-Net"].wall, NnunetPredictor(_result(folder), final.spec)))

    def dice(model: Any) -> float:
        evaluation = evaluate_segmentation(model, cases, labels, Progress(), RunOptions())
        return float(np.nanmean([result.mean_dice for result in evaluation.cases]))

    return {
        name: [(seconds, dice(model)) for seconds, model in sorted(models, key=lambda one: one[0])]
        for name, models in found.items()
    }


def _result(folder: Path) -> Path:
    return Path(json.loads((folder / "nnunet" / "trained.json").read_text())["result"])
