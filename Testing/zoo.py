"""Bundles of MONAI's Model Zoo with random weights of their shapes: run by stock MONAI and by MedAI, and compared.

The zoo's configs lie in the folder of real images beside the project, without weights. What is changed in a copy,
alike for both sides, is in `CHANGES`: smaller windows and larger voxels, to save time, and what today's MONAI no longer
takes.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import yaml
from monai.apps.vista3d.transforms import VistaPostTransformd
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.inferers import sliding_window_inference
from monai.networks import nets
from monai.transforms import Invertd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from MedAILib.bundle_plan import read_plan
from MedAILib.errors import MedAIError
from MedAILib.inference.prepare import prepare
from MedAILib.models.generate import generate
from MedAILib.models.inferers import laying
from MedAILib.models.networks import build_network, network_axes, sketched
from MedAILib.models.obstacles import why_not
from MedAILib.models.open import open_model
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import GenerateOptions, RunOptions
from MedAILib.volume import Geometry, Volume

# By bundle and place in its config: the new value, or None to take the entry away.
CHANGES: dict[str, dict[str, Any]] = {
    "brats_mri_segmentation": {"inferer#roi_size": [32, 32, 24]},
    "pancreas_ct_dints_segmentation": {
        "inferer#roi_size": [32, 32, 32],
        "inferer#overlap": 0.25,
        "preprocessing#transforms#3#pixdim": [1.6, 1.6, 2.0],
        "dints_space#device": "cpu",
    },
    "spleen_ct_segmentation": {"inferer#roi_size": [32, 32, 32]},
    "swin_unetr_btcv_segmentation": {
        "inferer#roi_size": [64, 64, 32],
        "network_def#img_size": None,
        "preprocessing#transforms#0#reader": None,
    },
    "ventricular_short_axis_3label": {"inferer#roi_size": [48, 32]},
    "renalStructures_UNEST_segmentation": {"inferer#overlap": 0.25},
    "vista3d": {
        "everything_labels": [3, 14, 1, 7],
        "patch_size": [32, 32, 32],
        "resample_spacing": [2.2, 2.2, 2.2],
        "labels_dict": {},
    },
    "wholeBody_ct_segmentation": {"inferer#roi_size": [32, 32, 32]},
}
# What stock MONAI is told besides: MedAI's own of a network that the zoo has as a script.
TOLD: dict[str, dict[str, Any]] = {
    "renalStructures_UNEST_segmentation": {"network_def#_target_": "MedAILib.models.unest.UNesT"},
}
# How the zoo's labels come from our layers where its config merges structures that overlap.
MERGED = {"brats_mri_segmentation": ((1, 2), (0, 1), (2, 4))}
GRID = ((32, 40, 24), np.array([[-1.83, 0, 0, 30], [0, 1.77, 0, -20], [0, 0, 2.19, 5], [0, 0, 0, 1.0]]))


@dataclass(frozen=True)
class Row:
    """A bundle's line in the table: what runs, why not, and how many voxels agree (None: not compared)."""

    name: str
    task: str
    network: bool
    runs: bool
    reason: str
    agreement: float | None = None
    classes: str = ""


def copied(source: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """A bundle's configs in another folder, changed."""
    shutil.copytree(source / "configs", folder / "configs")
    path = next(path for path in (folder / "configs").iterdir() if path.stem == "inference")
    reads = path.suffix == ".json"
    config = json.loads(path.read_text("utf-8")) if reads else yaml.safe_load(path.read_text("utf-8"))
    for place, value in changes.items():
        entry: Any = config
        *way, last = place.split("#")
        for part in way:
            entry = entry[int(part)] if isinstance(entry, list) else entry[part]
        if value is None:
            del entry[last]
        else:
            entry[last] = value
    path.write_text(json.dumps(config) if reads else yaml.safe_dump(config), encoding="utf-8")
    return folder


def search_code(folder: Path) -> None:
    """A DiNTS's search result where its config looks for one: made up, of 12 blocks and 4 depths."""
    random = np.random.default_rng(3)
    (folder / "models").mkdir(exist_ok=True)
    code = {
        "arch_code_a": np.ones((12, 10), dtype=np.int64),
        "arch_code_c": random.integers(0, 5, (12, 10)),
        "node_a": np.ones((13, 4)),
    }
    torch.save(code, folder / "models" / "search_code_18590.pt")


def random_weights(folder: Path, volume: Volume, seed: int = 0) -> None:
    """Weights whose outputs are centred for each class on a volume, so that all classes have a chance."""
    torch.manual_seed(seed)
    plan = read_plan(folder)
    net = build_network(plan.network.target, plan.network.arguments, folder).eval()
    (folder / "models").mkdir(exist_ok=True)
    if plan.prompts:  # its classes have no bias of their own
        torch.save(net.state_dict(), folder / "models" / "model.pt")
        return
    axes = network_axes(plan.network)
    by_slice = laying(plan.inferer, axes).by_slice
    image, _ = prepare(volume, preprocessing_steps(plan.preprocessing, 2 if by_slice else 3), Progress())
    roi = [max(int(n), 32) for n in plan.inferer.arguments.get("roi_size", ())]
    patch = torch.nn.functional.interpolate(image[None], roi if len(roi) == 3 else [64] * 3, mode="trilinear")
    with torch.no_grad():
        output = net(patch[..., 16] if axes == 2 else patch)
        last = [p for p in net.parameters() if p.shape == (output.shape[1],)][-1]
        last -= output.transpose(0, 1).flatten(1).mean(dim=1)
    torch.save(net.state_dict(), folder / "models" / "model.pt")


def made_volume(folder: Path, channels: int, grid: tuple[tuple[int, ...], NDArray[np.float64]] = GRID) -> Volume:
    """Smooth noise, written as a file for each channel, and as a volume."""
    shape, matrix = grid
    random = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    voxels = [
        (ndimage.gaussian_filter(random.normal(size=shape), 2) * 1500 + 60).astype(np.float32) for _ in range(channels)
    ]
    for number, channel in enumerate(voxels):
        nibabel.save(nibabel.Nifti1Image(channel, matrix), folder / f"{number}.nii.gz")
    stored = nibabel.load(folder / "0.nii.gz").affine
    data = np.stack([np.ascontiguousarray(channel.transpose(2, 1, 0)) for channel in voxels])
    return Volume(data, Geometry(shape[::-1], stored), "0.nii.gz")


def stock(bundle: Path, images: Path, **overrides: Any) -> NDArray[np.int64]:
    """Labels (K, J, I) by MONAI's own workflow on the bundle's own config."""
    return np.rint(stock_output(bundle, images, **overrides))[0].astype(np.int64)


def stock_output(bundle: Path, images: Path, **overrides: Any) -> NDArray[Any]:
    """What MONAI's own workflow on the bundle's own config makes, (C, K, J, I)."""
    config = next(path for path in (bundle / "configs").iterdir() if path.stem == "inference")
    files = [str(path) for path in sorted(images.iterdir()) if path.is_file()]
    text = config.read_text("utf-8")
    told = {
        "bundle_root": str(bundle),
        "output_dir": str(images / "out"),
        "device": "cpu",
        "dataset#data": [{"image": files if len(files) > 1 else files[0]}],
        "dataset#_target_": "Dataset",
        "dataloader#num_workers": 0,
        **({"evaluator#amp": False} if '"amp"' in text or "amp:" in text else {}),
        **({"arch_ckpt": "$torch.load(@arch_ckpt_path, weights_only=False)"} if "arch_ckpt_path" in text else {}),
        **overrides,
    }
    run = next(
        key for key in ("run", "evaluating", "inferring", "inference") if f'"{key}"' in text or f"{key}:" in text
    )
    workflow = ConfigWorkflow(str(config), workflow_type="infer", logging_file=False, run_id=run, **told)
    workflow.initialize()
    workflow.run()
    whole = np.asarray(workflow.parser.get_parsed_content("evaluator").state.output[0]["pred"])
    return (whole if whole.ndim == 4 else whole[..., None]).transpose(0, 3, 2, 1)


def stock_vista(bundle: Path, images: Path) -> NDArray[np.int64]:
    """Labels (K, J, I) by MONAI's own parts of VISTA3D; the zoo's inferer, which puts them together, is a script."""
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text("utf-8")) | {"device": "cpu"})
    before = parser.get_parsed_content("preprocessing")
    net = nets.vista3d132(in_channels=1).eval()
    net.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    data = before({"image": str(images / "0.nii.gz")})
    classes = torch.tensor(sorted(parser["everything_labels"]))
    asked = {"class_vector": classes[:, None], "transpose": True}
    with torch.no_grad():
        out = sliding_window_inference(
            data["image"][None], parser["patch_size"], 1, net, parser["inferer"]["overlap"], mode="gaussian", **asked
        )
    data = VistaPostTransformd("pred")(data | {"pred": out[0], "label_prompt": classes})
    back = Invertd("pred", transform=before, orig_keys="image", nearest_interp=True)
    return np.asarray(back(data)["pred"])[0].astype(np.int64).transpose(2, 1, 0)


def _generated(name: str, folder: Path, source: Path) -> Row:
    """Images that a GAN of the zoo makes by its own weights, in 8 bits, on both sides from the same noise."""
    shutil.copytree(source / "models", folder / "models", dirs_exist_ok=True)
    made = generate(folder, GenerateOptions(count=10)).volumes
    noise = [torch.rand(64, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]
    told = {"bundle_root": str(folder), "output_dir": str(folder / "out"), "dataset#data": noise, "device": "cpu"}
    workflow = ConfigWorkflow(
        str(folder / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        run_id="inferring",
        **told,
    )
    workflow.initialize()
    workflow.run()
    theirs = [np.asarray(Image.open(path)) for path in sorted((folder / "out").iterdir())]
    ours = [(255 * np.clip(volume.data[0, 0], 0, 1)).astype(np.uint8) for volume in made]
    same = float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
    return Row(name, "generation", True, True, "", same, "10 pictures")


def compared(source: Path, work: Path) -> Row:
    """Run a bundle of the zoo on both sides, where it runs."""
    name = source.name
    folder = copied(source, work / name, CHANGES.get(name, {}))
    if "dints" in name:
        search_code(folder)
    plan, network = read_plan(folder), True
    try:
        with sketched():
            build_network(plan.network.target, plan.network.arguments, folder)
    except MedAIError:
        network = False
    described = read_spec(folder)
    reason = why_not(folder)
    if reason:
        return Row(name, described.task, network, False, reason)
    if described.task not in ("segmentation", "generation"):  # compared by tests of their own
        return Row(name, described.task, network, True, "")
    if described.task == "generation":
        return _generated(name, folder, source)
    volume = made_volume(work / f"{name}-images", len(described.channels))
    random_weights(folder, volume)
    result = open_model(folder, "cpu").run(volume, RunOptions(), Progress())
    labels = result.layers[0].astype(np.int64)
    if name in MERGED:
        labels = np.zeros_like(labels)
        for layer, value in MERGED[name]:
            labels[result.layers[layer] == 1] = value
    images = work / f"{name}-images"
    theirs = stock_vista(folder, images) if name == "vista3d" else stock(folder, images, **TOLD.get(name, {}))
    found = f"{len(np.unique(theirs))} of {len(described.labels) + 1}"
    return Row(name, described.task, network, True, "", float((labels == theirs).mean()), found)
