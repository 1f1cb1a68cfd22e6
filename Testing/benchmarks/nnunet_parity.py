"""Agreement with nnU-Net's predictor on checkpoints that it trains: `python Testing/benchmarks/nnunet_parity.py`.

`MEDAI_TEST_DATA` names a folder; its `hippocampus` has `images` and `labels` of the Medical Segmentation Decathlon's
Task04 (http://medicaldecathlon.com).

nnU-Net plans and preprocesses a few hippocampus cases and trains each configuration for a moment (on the CPU, with a
quarter of its features); then both segment other cases, mirrored. Prints one line for each configuration: equal voxels
and each label's Dice, with nnU-Net's rounding and in float32, and the Dice against the reference, which shows that the
labels are more than noise.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TESTING = Path(__file__).parents[1]
DATA = Path(os.environ.get("MEDAI_TEST_DATA") or TESTING.parents[1] / "shared" / "data") / "hippocampus"
TRAINING, TESTED = 10, 5
LABELS = {"background": 0, "anterior": 1, "posterior": 2}
REGIONS = {"background": 0, "hippocampus": [1, 2], "posterior": 2}


@dataclass(frozen=True)
class Setting:
    """One configuration to train: dataset (2 is the one with regions), planner, name and folds."""

    title: str
    configuration: str
    planner: str = "ExperimentPlanner"
    dataset: int = 1
    folds: tuple[int, ...] = (0,)


SETTINGS = (
    Setting("2D", "2d"),
    Setting("3D, low resolution", "3d_lowres"),
    Setting("3D, full resolution, two folds", "3d_fullres", folds=(0, 1)),
    Setting("3D, cascade", "3d_cascade_fullres"),
    Setting("3D, coarse slices", "3d_aniso"),
    Setting("3D, residual encoder", "3d_fullres", planner="nnUNetPlannerResEncM"),
    Setting("3D, regions", "3d_fullres", dataset=2),
)


def raw_dataset(root: Path, number: int, cases: list[str]) -> Path:
    """A dataset in nnU-Net's raw layout."""
    folder = root / "raw" / f"Dataset00{number}_Hippocampus"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in cases:
        shutil.copy(DATA / "images" / f"{case}.nii.gz", folder / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(DATA / "labels" / f"{case}.nii.gz", folder / "labelsTr")
    labels = LABELS if number == 1 else REGIONS
    more = {} if number == 1 else {"regions_class_order": [1, 2]}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content | more))
    return folder


def planned(root: Path, setting: Setting) -> dict[str, Any]:
    """nnU-Net's own plans with fewer features and smaller batches, and configurations that this dataset lacks."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
        nnUNetPlannerResEncM,
    )
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints

    if not (root / "preprocessed" / f"Dataset00{setting.dataset}_Hippocampus" / "dataset_fingerprint.json").is_file():
        extract_fingerprints([setting.dataset], num_processes=1, verbose=False, show_progress_bar=False)
    planner = {"ExperimentPlanner": ExperimentPlanner, "nnUNetPlannerResEncM": nnUNetPlannerResEncM}[setting.planner](
        setting.dataset
    )
    planner.UNet_base_num_features = 8
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 - threads, while planning
    plans = planner.plan_experiment()
    known = plans["configurations"]
    known["3d_lowres"] = known["3d_fullres"] | {
        "data_identifier": "lowres",
        "spacing": [1.6, 1.6, 1.6],
        "patch_size": [24, 40, 24],
        "next_stage": "3d_cascade_fullres",
    }
    known["3d_aniso"] = known["3d_fullres"] | {
        "data_identifier": "aniso",
        "spacing": [4.0, 0.9, 0.9],
        "patch_size": [8, 56, 40],
    }
    known["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    for name in known:
        known[name]["batch_size"] = 2 if name != "2d" else 8
    (root / "preprocessed" / plans["dataset_name"] / f"{plans['plans_name']}.json").write_text(json.dumps(plans))
    return plans


def train(setting: Setting, plans: dict[str, Any], folder: Path, iterations: int) -> Path:
    """Train each fold with nnU-Net's own trainer; the result folder."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - processes, while training
    name = "3d_fullres" if setting.configuration == "3d_cascade_fullres" else setting.configuration
    preprocess_dataset(setting.dataset, plans["plans_name"], (name,), (1,), show_progress_bar=False)
    data = json.loads((folder / "dataset.json").read_text())
    for fold in setting.folds:
        torch.manual_seed(fold)
        copied = json.loads(json.dumps(plans)) | {"continue_training": False}
        trainer = nnUNetTrainer(copied, setting.configuration, fold, data, torch.device("cpu"))
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, iterations, 1
        trainer.oversample_foreground_percent = 1.0
        trainer.configure_optimizers = partial(quick_optimizer, trainer)
        if trainer.is_cascaded:
            give_previous_stage(trainer)
        trainer.initialize()
        trainer.run_training()
    return Path(trainer.output_folder_base)


def quick_optimizer(trainer: Any) -> tuple[Any, Any]:
    """Adam, which finds the structures in fewer steps than nnU-Net's own choice."""
    import torch

    optimizer = torch.optim.AdamW(trainer.network.parameters(), lr=5e-3)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def give_previous_stage(trainer: Any) -> None:
    """The reference labels in place of the previous stage's, where nnU-Net's training of a cascade looks for them."""
    import blosc2

    out = Path(trainer.folder_with_segs_from_previous_stage)
    out.mkdir(parents=True, exist_ok=True)
    for path in Path(trainer.preprocessed_dataset_folder).glob("*_seg.b2nd"):
        blosc2.asarray(blosc2.open(str(path))[0], urlpath=str(out / path.name.replace("_seg", "")), mode="w")


def compare(setting: Setting, result: Path, cases: list[str]) -> str:
    """One line: agreement on the tested cases."""
    import SimpleITK as sitk
    import torch
    from nnunets import predicted

    from MedAILib.files.images import read_image
    from MedAILib.models.nnunet import NnunetModel
    from MedAILib.progress import Progress
    from MedAILib.request import RunOptions

    models = [NnunetModel(result, torch.device("cpu"), parity=parity) for parity in (True, False)]
    stage = result.with_name(result.name.replace("3d_cascade_fullres", "3d_lowres"))
    found: dict[str, list[np.ndarray]] = {"theirs": [], "exact": [], "single": [], "truth": []}
    for case in cases:
        path = DATA / "images" / f"{case}.nii.gz"
        image = sitk.ReadImage(str(path))
        data, spacing = sitk.GetArrayFromImage(image)[None].astype(np.float32), image.GetSpacing()[::-1]
        previous = predicted(stage, data, spacing, mirror=True) if stage != result else None
        found["theirs"].append(predicted(result, data, spacing, mirror=True, previous=previous).ravel())
        for key, model in zip(("exact", "single"), models, strict=True):
            labels = model.run(read_image(path), RunOptions(mirror=True), Progress()).layers[0]
            found[key].append(labels.ravel())
        found["truth"].append(sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / "labels" / f"{case}.nii.gz"))).ravel())
    theirs, exact, single, truth = (np.concatenate(one) for one in found.values())
    dice = {
        name: ", ".join(f"{_dice(one, other, value):.5f}" for value in (1, 2))
        for name, one, other in (("exact", exact, theirs), ("single", single, theirs), ("truth", theirs, truth))
    }
    return (
        f"{setting.title}: equal {np.mean(exact == theirs):.4%} (Dice {dice['exact']}), in float32 "
        f"{np.mean(single == theirs):.4%} (Dice {dice['single']}), against the reference Dice {dice['truth']}"
    )


def _dice(one: np.ndarray, other: np.ndarray, value: int) -> float:
    total = np.sum(one == value) + np.sum(other == value)
    return float(2 * np.sum((one == value) & (other == value)) / total) if total else float("nan")


def main() -> None:
    """Train and compare each configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60, help="training steps for each fold")
    parser.add_argument("--only", nargs="+", default=[""], help="settings with one of these words in their title")
    options = parser.parse_args()
    sys.path[:0] = [str(TESTING), str(TESTING.parent)]
    names = sorted(path.name.removesuffix(".nii.gz") for path in (DATA / "images").glob("*.nii.gz"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            os.environ[f"nnUNet_{name}"] = str(root / name)
        os.environ["nnUNet_compile"] = "f"  # noqa: SIM112 - nnU-Net's own spelling
        from nnunets import silence

        folders = {number: raw_dataset(root, number, names[:TRAINING]) for number in (1, 2)}
        for setting in (one for one in SETTINGS if any(word in one.title for word in options.only)):
            with silence():
                result = train(setting, planned(root, setting), folders[setting.dataset], options.iterations)
            print(compare(setting, result, names[TRAINING : TRAINING + TESTED]), flush=True)


if __name__ == "__main__":
    main()
