"""Small nnU-Net result folders that the tests make: plans as nnU-Net writes them, and networks that it builds itself.

The last layer of each is fitted to what the image shows, so that all labels appear in what the network says.
"""

import contextlib
import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, os.devnull)  # only training needs them; without, each import prints a warning

SEPARATE = {"force_separate_z": None, "order_z": 0}
RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": SEPARATE | {"is_seg": False, "order": 3},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": SEPARATE | {"is_seg": True, "order": 1},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": SEPARATE | {"is_seg": False, "order": 1},
}
TORCH_RESAMPLING = {
    f"resampling_fn_{what}{end}": value
    for what in ("data", "seg", "probabilities")
    for end, value in (
        ("", "resample_torch_fornnunet"),
        ("_kwargs", {"is_seg": what == "seg", "force_separate_z": None, "memefficient_seg_resampling": False}),
    )
}
THREE = {"background": 0, "shell": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "seed": 3}


def architecture(dimensions: int = 3, residual: bool = False) -> dict[str, Any]:
    """An entry "architecture" of a plan: three stages with few features."""
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [8, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * 3,
            "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
            blocks: [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def old_architecture(dimensions: int = 3) -> dict[str, Any]:
    """The same network as plans of nnU-Net 2.0 to 2.3 describe it."""
    return {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 8,
        "unet_max_num_features": 16,
        "n_conv_per_stage_encoder": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "num_pool_per_axis": [2] * dimensions,
        "pool_op_kernel_sizes": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
        "conv_kernel_sizes": [[3] * dimensions] * 3,
    }


def configuration(
    patch: list[int], spacing: list[float], schemes: tuple[str, ...] = ("ZScoreNormalization",), **changes: Any
) -> dict[str, Any]:
    """An entry of a plan's "configurations"."""
    return {
        "data_identifier": "nnUNetPlans_test",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "spacing": spacing,
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [False] * len(schemes),
        "batch_dice": False,
        **RESAMPLING,
        **({} if "UNet_class_name" in changes else {"architecture": architecture(len(patch))}),
        **changes,
    }


def plans(configurations: dict[str, dict[str, Any]], transpose: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    properties = {"mean": 60.0, "std": 45.0, "percentile_00_5": 2.0, "percentile_99_5": 160.0}
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): properties for n in range(4)},
    }


def dataset(channels: int = 1, labels: dict[str, Any] | None = None) -> dict[str, Any]:
    regions = {"regions_class_order": [1, 2, 3]} if labels is REGIONS else {}
    names = {str(n): f"sequence {n}" for n in range(channels)}
    return {"name": "Test", "channel_names": names, "labels": labels or THREE, "file_ending": ".nii.gz", **regions}


def result_folder(
    root: Path, plan: dict[str, Any], data: dict[str, Any], name: str, trainer: str = "nnUNetTrainer"
) -> Path:
    """An nnU-Net result folder without checkpoints."""
    folder = root / plan["dataset_name"] / f"{trainer}__nnUNetPlans__{name}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plan))
    (folder / "dataset.json").write_text(json.dumps(data))
    return folder


def picture(channels: int = 1, shape: tuple[int, int, int] = (22, 28, 26), parts: int = 2, seed: int = 0) -> NDArray:
    """(channels + 1, K, J, I) float32: nested bodies of different brightness in a border of zeros; last, the labels."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    wave = 0.1 * np.sin(5 * grid[0] + 1) + 0.1 * np.cos(4 * grid[1] * grid[2])
    radius = np.sqrt((grid**2 * np.array([1.0, 1.3, 0.9])[:, None, None, None]).sum(axis=0)) + wave
    labels = sum((radius < edge).astype(int) for edge in np.linspace(1.0, 0.55, parts))
    image = np.stack(
        [40 + 35 * labels * (1 if n % 2 == 0 else -0.4) + 1 * rng.standard_normal(shape) for n in range(channels)]
    ).clip(1, 250)
    image[:, np.abs(grid).max(axis=0) > 0.9] = 0
    return np.concatenate([image, labels[None]]).astype(np.float32)


@contextlib.contextmanager
def silence():
    """Nothing of what nnU-Net prints and warns of on its way."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def predictor(mirror: bool = False):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with silence():
        return nnUNetPredictor(
            use_mirroring=mirror, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )


def fitted_network(
    folder: Path, image: NDArray, spacing: tuple[float, ...], previous: NDArray | None = None, seed: int = 0
):
    """nnU-Net's own network for a result folder, its last layer fitted to labels: `image`'s last channel."""
    from nnunetv2.inference.data_iterators import convert_labelmap_to_one_hot
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with silence():
        data = json.loads((folder / "dataset.json").read_text())
        manager = PlansManager(json.loads((folder / "plans.json").read_text()))
        chosen = manager.get_configuration(folder.name.rpartition("__")[2])
        labels = manager.get_label_manager(data)
        inputs = determine_num_input_channels(manager, chosen, data)
        torch.manual_seed(seed)
        network = nnUNetTrainer.build_network_architecture(
            manager, chosen, inputs, labels.num_segmentation_heads, enable_deep_supervision=False
        ).eval()
        own = predictor()
        own.manual_initialization(network, manager, chosen, None, data, "nnUNetTrainer", None)
        prepare = chosen.preprocessor_class(verbose=False).run_case_npy
        x, truth, _ = prepare(image[:-1], image[-1:], {"spacing": list(spacing)}, manager, chosen, data)
        if previous is not None:
            _, stage, _ = prepare(
                image[:-1], previous[None].astype(np.float32), {"spacing": list(spacing)}, manager, chosen, data
            )
            x = np.vstack((x, convert_labelmap_to_one_hot(stage[0], labels.foreground_labels, x.dtype)))
    rows, wanted = [], []
    last = network.decoder.seg_layers[-1]
    hook = last.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0][0].flatten(1).T))
    size = [max(n, m) for n, m in zip(x.shape[1:], ([1, *chosen.patch_size])[-3:], strict=True)]
    room = [(0, 0), *((0, n - m) for n, m in zip(size, x.shape[1:], strict=True))]
    x, truth = torch.from_numpy(np.pad(x, room)), np.pad(truth, room)
    for slicer in own._internal_get_sliding_window_slicers(x.shape[1:]):
        with torch.inference_mode():
            network(x[slicer][None])
        wanted.append(truth[0][slicer[1:]].ravel())
    hook.remove()
    features, found = torch.cat(rows).double(), np.concatenate(wanted).clip(0)
    if labels.has_regions:
        targets = np.stack([np.isin(found, np.atleast_1d(one)) for one in labels.foreground_regions], axis=1)
    else:
        targets = np.stack([found == value for value in labels.all_labels], axis=1)
    goal = torch.from_numpy(targets * 10.0 - 5)
    design = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    _, kinds, counts = np.unique(found, return_inverse=True, return_counts=True)
    even = design.T * torch.from_numpy(1 / counts[kinds])  # small structures weigh as much as large ones
    solved = torch.linalg.solve(even @ design + 1e-6 * torch.eye(design.shape[1]), even @ goal).float()
    with torch.no_grad():
        last.weight.copy_(solved[:-1].T.reshape(last.weight.shape))
        last.bias.copy_(solved[-1])
    return network


def save_checkpoint(
    folder: Path, network: torch.nn.Module, fold: str = "0", name: str = "checkpoint_final.pth", **changes: Any
) -> Path:
    """A checkpoint with all that nnU-Net's trainer writes, numpy's numbers among it."""
    path = folder / f"fold_{fold}" / name
    path.parent.mkdir(exist_ok=True)
    flat = any(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "val_losses": [np.float32(-0.5)], "epoch": [np.int64(3)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {"configuration": folder.name.rpartition("__")[2], "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1) if flat else (0, 1, 2),
    }
    torch.save(content | changes, path)
    return path


def predicted(
    folder: Path,
    image: NDArray,
    spacing: tuple[float, ...],
    mirror: bool = False,
    previous: NDArray | None = None,
    probabilities: bool = False,
) -> NDArray:
    """What nnU-Net's own predictor says to an image (C, K, J, I): labels (K, J, I), or probabilities (C, K, J, I)."""
    own = predictor(mirror)
    with silence():
        own.initialize_from_trained_model_folder(str(folder), None)
        stage = None if previous is None else previous[None].astype(np.float32)
        found = own.predict_single_npy_array(image, {"spacing": list(spacing)}, stage, None, probabilities)
        return np.asarray(found[1] if probabilities else found)
