"""Honest models of every format, each a little different: all of them run, and none of them asks for trust."""

import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from bundles import configs, network_entry, random_bundle
from nnunets import architecture, configuration, dataset, plans, result_folder, save_checkpoint

from MedAILib.models.networks import build_network
from MedAILib.models.nnunet_networks import build_nnunet
from MedAILib.nnunet_plan import read_nnunet_plan
from MedAILib.volume import Geometry, Volume

CONFIG_KEYS = ("network_def", "preprocessing", "inferer", "postprocessing")


def random_volume(channels: int = 1) -> Volume:
    """An image that every model here takes."""
    data = np.random.default_rng(0).normal(100, 30, (channels, 20, 22, 24)).astype(np.float32)
    return Volume(data, Geometry((20, 22, 24), np.diag([1.0, 1.0, 1.0, 1.0])), "image")


def weights_of(bundle: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(bundle / "models" / "model.pt", weights_only=True)
    return weights


def bundle(folder: Path, name: str = "UNet", **changes: Any) -> Path:
    return random_bundle(folder, network_entry(name), **changes)


def rewritten(folder: Path, content: Any, **options: Any) -> Path:
    """A bundle whose weights are stored in another way."""
    torch.save(content(weights_of(bundle(folder))), folder / "models" / "model.pt", **options)
    return folder


def described(folder: Path, **changes: Any) -> Path:
    """Weights with a `medai.json`; `changes` are entries of it, None takes one away."""
    network = network_entry()
    _, inference = configs(network)
    content = {
        "name": "Two parts",
        "version": "1.0",
        "channels": ["T1"],
        "labels": ["background", "left", "right"],
        "network_def": network,
        **{key: inference[key] for key in CONFIG_KEYS[1:]},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "medai.json").write_text(json.dumps(content), encoding="utf-8")
    safetensors.torch.save_file(state_dict(), folder / "model.safetensors")
    return folder


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = network_entry()
    arguments = {key: value for key, value in network.items() if key != "_target_"}
    return dict(build_network(network["_target_"], arguments).state_dict())


def stored_as(folder: Path, name: str, content: Any, **options: Any) -> Path:
    """Weights with a `medai.json`, in a file of PyTorch's."""
    described(folder)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / name, **options)
    return folder


def zipped(source: Path, path: Path) -> Path:
    """A model's folder as an archive; the folder is gone."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.rglob("*")):
            archive.write(file, file.relative_to(source.parent).as_posix())
    shutil.rmtree(source)
    return path


def tarred(source: Path, path: Path) -> Path:
    """A model's folder as an archive of gzipped tar."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, source.name)
    return path


def nnunet(folder: Path, folds: tuple[int, ...] = (0,), dimensions: int = 3, residual: bool = False) -> Path:
    """An nnU-Net result folder with random weights."""
    size, spacing = [16] * dimensions, [1.0] * dimensions
    name = "3d_fullres" if dimensions == 3 else "2d"
    entry = configuration(size, spacing, architecture=architecture(dimensions, residual))
    source = result_folder(folder, plans({name: entry}), dataset(), name)
    (source / "fold_0").mkdir()
    (source / "fold_0" / "checkpoint_final.pth").touch()  # a plan wants one, and the network's makers want a plan
    plan = read_nnunet_plan(source)
    torch.manual_seed(0)
    network = build_nnunet(plan.network, plan.inputs, plan.outputs, dimensions)
    for fold in folds:
        save_checkpoint(source, network, str(fold))
    return source


def windows(size: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": "SlidingWindowInferer", "roi_size": size, **arguments}


def with_files(folder: Path, files: dict[str, str]) -> Path:
    """A bundle with more in it than it needs, which is left alone."""
    bundle(folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def with_yaml(folder: Path) -> Path:
    import yaml

    path = bundle(folder) / "configs" / "inference.json"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    path.unlink()
    return folder


def with_pickle_beside(folder: Path) -> Path:
    source = nnunet(folder)
    (source / "dataset_fingerprint.pkl").write_bytes(pickle.dumps({"a": 1}))
    return source


def safetensors_bundle(folder: Path) -> Path:
    weights = weights_of(bundle(folder))
    (folder / "models" / "model.pt").unlink()
    safetensors.torch.save_file(weights, folder / "models" / "model.safetensors")
    return folder


def by_threshold(folder: Path) -> Path:
    steps = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]
    steps += [{"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    return bundle(folder, postprocessing={"_target_": "Compose", "transforms": steps})


def trainers_checkpoint(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {"state_dict": weights, "epoch": 7, "best": np.float64(0.9), "config": {"lr": 1e-3, "name": "os.system"}}


def ensemble(folder: Path, *members: Callable[[Path], Path]) -> Path:
    """Models side by side, with the list that makes them one."""
    made = [make(folder / f"m{number}") for number, make in enumerate(members)]
    names = [path.relative_to(folder).as_posix() for path in made]
    (folder / "medai.json").write_text(json.dumps({"name": "Together", "members": names}), encoding="utf-8")
    return folder


LEGITIMATE: dict[str, Callable[[Path], Path]] = {
    "UNet": bundle,
    "BasicUNet": lambda f: bundle(f, "BasicUNet", inferer=windows([32, 32, 32])),
    "SegResNet": lambda f: bundle(f, "SegResNet"),
    "DynUNet": lambda f: bundle(f, "DynUNet"),
    "safetensors in a bundle": safetensors_bundle,
    "wrapped weights": lambda f: rewritten(f, lambda w: {"model": w}),
    "a trainer's checkpoint": lambda f: rewritten(f, trainers_checkpoint),
    "data parallel": lambda f: rewritten(f, lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}}),
    "PyTorch's old format": lambda f: rewritten(f, dict, _use_new_zipfile_serialization=False),
    "YAML": with_yaml,
    "arithmetic": lambda f: bundle(f, parts=4, inferer=windows("$[@parts * 4] * 3", overlap="$1 / 2")),
    "macro": lambda f: bundle(f, size=[16, 16, 16], inferer=windows("%size")),
    "threshold": by_threshold,
    "scripts that nothing asks for": lambda f: with_files(f, {"scripts/__init__.py": "", "scripts/net.py": "1"}),
    "logging.conf": lambda f: with_files(f, {"configs/logging.conf": "[loggers]\nkeys=root"}),
    "papers": lambda f: with_files(f, {"LICENSE": "Apache License 2.0", "docs/README.md": "# A model"}),
    "name with spaces": lambda f: bundle(f.with_name("model of Zoë 1")),
    "zip archive": lambda f: zipped(bundle(f), f.with_suffix(".zip")),
    "tar.gz archive": lambda f: tarred(bundle(f), f.with_name(f"{f.name}.tar.gz")),
    "tgz archive of nnU-Net": lambda f: tarred(nnunet(f), f.with_name(f"{f.name}.tgz")),
    "described safetensors": described,
    "described .pt": lambda f: stored_as(f, "weights.pt", state_dict()),
    "described .pth of a trainer": lambda f: stored_as(f, "best.pth", trainers_checkpoint(state_dict())),
    "described in MONAI's words": lambda f: described(
        f, channels=None, labels=None, network_data_format=configs(network_entry())[0]["network_data_format"]
    ),
    "described zip": lambda f: zipped(described(f), f.with_suffix(".zip")),
    "nnU-Net": nnunet,
    "nnU-Net of two folds": lambda f: nnunet(f, (0, 1)),
    "nnU-Net in 2D": lambda f: nnunet(f, dimensions=2),
    "nnU-Net ResEnc": lambda f: nnunet(f, residual=True),
    "ensemble": lambda f: ensemble(f, bundle, lambda g: bundle(g, "SegResNet")),
    "ensemble of nnU-Net": lambda f: ensemble(f, nnunet, lambda g: nnunet(g, residual=True)),
    "nnU-Net beside a pickle": with_pickle_beside,
}  # fmt: skip
