"""Models that want to execute something, read or write elsewhere, or take all memory or time; made by code.

Each maker gets a folder for the model and a path that appears if anything in it is executed (a mark), and gives the
model's path. `READ` names those that are read without harm, as what is hostile in them is nothing that MedAI looks at;
every other one is refused.
"""

import json
import os
import pickle
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import network_entry
from hostile_archives import TAR_ATTACKS, files_of
from hostile_pickles import PAYLOADS, SILENT, By
from legitimate import bundle, described, nnunet, weights_of, with_files, zipped
from scripts_made import Writing, script_file, scripted_bundle

Maker = Callable[[Path, Path], Path]


def command(mark: Path) -> str:
    return f"touch {mark}"


def change(folder: Path, name: str, /, **entries: Any) -> Path:
    path = folder / "configs" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")
    return folder


# Pickles


def in_weights(payload: Callable[[Path], Any], **options: Any) -> Maker:
    """A checkpoint with the payload beside honest weights."""

    def make(folder: Path, mark: Path) -> Path:
        weights = weights_of(bundle(folder))
        torch.save({"state_dict": weights, "extra": payload(mark)}, folder / "models" / "model.pt", **options)
        return folder

    return make


def raw_pickle(folder: Path, mark: Path) -> Path:
    (bundle(folder) / "models" / "model.pt").write_bytes(pickle.dumps(By(os.system, command(mark))))
    return folder


def pickle_protocol_0(folder: Path, mark: Path) -> Path:
    content = f"cos\nsystem\n(S'{command(mark)}'\ntR.".encode()
    (bundle(folder) / "models" / "model.pt").write_bytes(content)
    return folder


def pickle_called_safetensors(folder: Path, mark: Path) -> Path:
    bundle(folder)
    (folder / "models" / "model.pt").unlink()
    (folder / "models" / "model.safetensors").write_bytes(pickle.dumps(By(os.system, command(mark))))
    return folder


def pickle_as_model(folder: Path, mark: Path) -> Path:
    path = folder.with_suffix(".pth")
    path.write_bytes(pickle.dumps(By(os.system, command(mark))))
    return path


def checkpoint_as_model(folder: Path, mark: Path) -> Path:
    path = folder.with_suffix(".pt")
    torch.save(By(os.system, command(mark)), path)
    return path


def pickle_in_config(folder: Path, mark: Path) -> Path:
    """A checkpoint whose own "config" would be executed."""
    weights = weights_of(bundle(folder))
    config = {"network": By(os.system, command(mark)), "_target_": "os.system"}
    torch.save({"state_dict": weights, "config": config}, folder / "models" / "model.pt")
    return folder


def pickle_among_weights(folder: Path, mark: Path) -> Path:
    weights = weights_of(bundle(folder))
    torch.save({**weights, "model.0.extra": By(os.system, command(mark))}, folder / "models" / "model.pt")
    return folder


def pickled_metadata(folder: Path, mark: Path) -> Path:
    (bundle(folder) / "configs" / "metadata.json").write_bytes(pickle.dumps(By(os.system, command(mark))))
    return folder


def array_for_weights(folder: Path, mark: Path) -> Path:
    weights = folder / "models" / "model.pt"
    bundle(folder)
    with weights.open("wb") as file:
        np.save(file, np.array([By(os.system, command(mark))], dtype=object), allow_pickle=True)
    return folder


def stored_array(folder: Path, mark: Path) -> Path:
    """A network that takes an argument from a file of the bundle, as DiNTS does."""
    bundle(folder, network_def=network_entry() | {"channels": "$torch.load('models/arch.pt')['code']"})
    torch.save({"code": By(os.system, command(mark))}, folder / "models" / "arch.pt")
    return folder


def nnunet_pickle(folder: Path, mark: Path) -> Path:
    source = nnunet(folder)
    path = source / "fold_0" / "checkpoint_final.pth"
    content = {"network_weights": {"a": torch.zeros(1)}, "init_args": By(os.system, command(mark))}
    torch.save(content, path)
    return source


def nnunet_pickle_beside(folder: Path, mark: Path) -> Path:
    """What nnU-Net keeps beside the plans, and older versions unpickle."""
    source = nnunet(folder)
    for name in ("plans.pkl", "dataset_fingerprint.pkl", "fold_0/checkpoint_final.model.pkl"):
        (source / name).write_bytes(pickle.dumps(By(os.system, command(mark))))
    return source


def described_pickle(folder: Path, mark: Path) -> Path:
    described(folder)
    (folder / "model.safetensors").unlink()
    torch.save(By(os.system, command(mark)), folder / "model.pth")
    return folder


def described_raw_pickle(folder: Path, mark: Path) -> Path:
    described(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.bin").write_bytes(pickle.dumps({"state_dict": By(os.system, command(mark))}))
    return folder


# Configs


def config(**entries: Any) -> Maker:
    """A bundle with these entries in its config; MARK in them stands for the mark's path."""

    def make(folder: Path, mark: Path) -> Path:
        return bundle(folder, **json.loads(json.dumps(entries).replace("MARK", str(mark))))

    return make


def expression(text: str) -> Maker:
    """A bundle whose windows have this expression for their size."""
    return config(inferer={"_target_": "SlidingWindowInferer", "roi_size": f"${text}"})


def target(name: str, /, **arguments: Any) -> Maker:
    """A bundle that names this as its network."""
    return config(network_def={"_target_": name, **arguments})


def step(name: str, /, **arguments: Any) -> Maker:
    """A bundle that names this as a step of its preprocessing."""
    return config(preprocessing=[{"_target_": name, "keys": "image", **arguments}])


def beside(**entries: Any) -> Maker:
    """Entries that stock MONAI would execute before anything else."""
    return config(**entries)


def network_with(**arguments: Any) -> Maker:
    return config(network_def=network_entry() | arguments)


def metadata(**entries: Any) -> Maker:
    return lambda folder, mark: change(bundle(folder), "metadata", **entries)


def laughs(folder: Path, mark: Path) -> Path:
    """A billion references to one entry."""
    entries: dict[str, Any] = {f"a{n}": [f"@a{n + 1}"] * 10 for n in range(12)}
    return bundle(folder, **entries, a12=1, inferer={"_target_": "SlidingWindowInferer", "roi_size": "@a0"})


def laughing_macros(folder: Path, mark: Path) -> Path:
    entries: dict[str, Any] = {f"a{n}": [f"%a{n + 1}"] * 10 for n in range(12)}
    return bundle(folder, **entries, a12=1, inferer={"_target_": "SlidingWindowInferer", "roi_size": "@a0"})


def yaml_config(text: str) -> Maker:
    def make(folder: Path, mark: Path) -> Path:
        (bundle(folder) / "configs" / "inference.json").unlink()
        (folder / "configs" / "inference.yaml").write_text(text.replace("MARK", str(mark)), encoding="utf-8")
        return folder

    return make


def deep(name: str) -> Maker:
    def make(folder: Path, mark: Path) -> Path:
        text = '{"a":' * 50_000 + "1" + "}" * 50_000
        (bundle(folder) / "configs" / f"{name}.json").write_text(text, encoding="utf-8")
        return folder

    return make


def endless_number(folder: Path, mark: Path) -> Path:
    text = (bundle(folder) / "configs" / "inference.json").read_text(encoding="utf-8")
    (folder / "configs" / "inference.json").write_text(text[:-1] + ', "a": ' + "9" * 5000 + "}", encoding="utf-8")
    return folder


def large_config(folder: Path, mark: Path) -> Path:
    (bundle(folder) / "configs" / "inference.json").write_text(json.dumps({"a": "x" * 9_000_000}), encoding="utf-8")
    return folder


# nnU-Net


def plan(**entries: Any) -> Maker:
    """An nnU-Net model with these entries at the top of its plans."""

    def make(folder: Path, mark: Path) -> Path:
        source = nnunet(folder)
        content = json.loads((source / "plans.json").read_text(encoding="utf-8"))
        (source / "plans.json").write_text(json.dumps(content | entries), encoding="utf-8")
        return source

    return make


def configuration(**entries: Any) -> Maker:
    """One with these entries in its configuration."""

    def make(folder: Path, mark: Path) -> Path:
        source = nnunet(folder)
        content = json.loads((source / "plans.json").read_text(encoding="utf-8"))
        content["configurations"]["3d_fullres"] |= json.loads(json.dumps(entries).replace("MARK", str(mark)))
        (source / "plans.json").write_text(json.dumps(content), encoding="utf-8")
        return source

    return make


def labels(told: dict[str, Any]) -> Maker:
    """One whose dataset has these labels."""

    def make(folder: Path, mark: Path) -> Path:
        source = nnunet(folder)
        content = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
        (source / "dataset.json").write_text(json.dumps(content | {"labels": told}), encoding="utf-8")
        return source

    return make


def misplaced_fold(folder: Path, mark: Path) -> Path:
    source = nnunet(folder)
    (source / "fold_0" / "checkpoint_final.pth").rename(source / "checkpoint_final.pth")
    return source


def mirrored_elsewhere(folder: Path, mark: Path) -> Path:
    """A checkpoint that may be mirrored along axes that there are none of."""
    source = nnunet(folder)
    path = source / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save(content | {"inference_allowed_mirroring_axes": (0, 7, "x")}, path)
    return source


def architecture(network_class_name: str = "", **entries: Any) -> Maker:
    """One with these entries in its network's arguments, or another class for it."""

    def make(folder: Path, mark: Path) -> Path:
        source = nnunet(folder)
        content = json.loads((source / "plans.json").read_text(encoding="utf-8"))
        told = content["configurations"]["3d_fullres"]["architecture"]
        told["network_class_name"] = network_class_name or told["network_class_name"]
        told["arch_kwargs"] |= entries
        (source / "plans.json").write_text(json.dumps(content), encoding="utf-8")
        return source

    return make


# Files


def linked(name: str, to: str) -> Maker:
    """A bundle with a link in place of one of its files."""

    def make(folder: Path, mark: Path) -> Path:
        path = bundle(folder) / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(to)
        return folder

    return make


def pipe(name: str) -> Maker:
    """A bundle with a pipe, from which reading never ends, in place of one of its files."""

    def make(folder: Path, mark: Path) -> Path:
        path = bundle(folder) / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return folder

    return make


def unix_socket(folder: Path, mark: Path) -> Path:
    path = bundle(folder) / "s"
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(folder)  # a socket's address is short
        server.bind("s")
        os.chdir(before)
    assert path.exists()
    return folder


def link_in_circle(folder: Path, mark: Path) -> Path:
    (bundle(folder) / "again").symlink_to(folder)
    return folder


def folder_for_weights(folder: Path, mark: Path) -> Path:
    (bundle(folder) / "models" / "model.pt").unlink()
    (folder / "models" / "model.pt").mkdir()
    return folder


def many_files(folder: Path, mark: Path) -> Path:
    bundle(folder)
    (folder / "many").mkdir()
    for number in range(20_100):
        (folder / "many" / str(number)).touch()
    return folder


def archive_in_archive(folder: Path, mark: Path) -> Path:
    inner = zipped(bundle(folder), folder.with_name("inner.zip"))
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "model/inner.zip")
        archive.writestr("model/readme.txt", "")
    return path


def script_called_archive(folder: Path, mark: Path) -> Path:
    return script(folder, mark).rename(folder.with_suffix(".zip"))


def names_in_case(folder: Path, mark: Path) -> Path:
    shutil.copy(bundle(folder) / "models" / "model.pt", folder / "models" / "MODEL.pt")
    return zipped(folder, folder.with_suffix(".zip"))


def shadowing(folder: Path, mark: Path) -> Path:
    """Modules of well-known names, that would be imported by whoever puts the bundle on the path."""
    code = f"open({str(mark)!r}, 'w').close()\n"
    names = ("json", "monai", "torch", "numpy", "scripts/__init__", "scripts/net", "sitecustomize", "configs/__init__")
    return with_files(folder, {f"{name}.py": code for name in names})


# Weights


def forged_shape(folder: Path, mark: Path) -> Path:
    """Weights of a network of many gigabytes in a file of a few kilobytes: every number of a tensor is the same one."""
    entry = network_entry() | {"channels": [4, 8, 60_000]}
    bundle(folder, network_def=entry)
    from MedAILib.models.networks import build_network, sketched

    with sketched():
        arguments = {key: value for key, value in entry.items() if key != "_target_"}
        shapes = {key: value.shape for key, value in build_network("UNet", arguments).state_dict().items()}
    weights = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def squeezed(folder: Path, mark: Path) -> Path:
    """A checkpoint whose numbers are compressed, a thousandfold."""
    path = bundle(folder) / "models" / "model.pt"
    torch.save({"state_dict": weights_of(folder), "optimizer": torch.zeros(40_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


def forged_safetensors(header: dict[str, Any], body: bytes = b"") -> Maker:
    def make(folder: Path, mark: Path) -> Path:
        bundle(folder)
        (folder / "models" / "model.pt").unlink()
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + body
        (folder / "models" / "model.safetensors").write_bytes(content)
        return folder

    return make


def endless_header(folder: Path, mark: Path) -> Path:
    bundle(folder)
    (folder / "models" / "model.pt").unlink()
    (folder / "models" / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}")
    return folder


def damaged_legacy(folder: Path, mark: Path) -> Path:
    """PyTorch's old format, whose little machine is told to do what makes no sense."""
    path = bundle(folder) / "models" / "model.pt"
    torch.save(weights_of(folder), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"_rebuild_tensor_v2\n", b"_rebuild_tensor\n").replace(b"FloatStorage", b"Tensor"))
    return folder


def with_tensor(change: Callable[[torch.Tensor], Any]) -> Maker:
    """A checkpoint in which one tensor is of an unusual kind."""

    def make(folder: Path, mark: Path) -> Path:
        weights = weights_of(bundle(folder))
        name = next(iter(weights))
        torch.save(weights | {name: change(weights[name])}, folder / "models" / "model.pt")
        return folder

    return make


def other_names(folder: Path, mark: Path) -> Path:
    """Names of weights that lead into Python's own attributes."""
    weights = weights_of(bundle(folder))
    torch.save({**weights, "__class__.__init__": torch.zeros(1)}, folder / "models" / "model.pt")
    return folder


# Ensembles


def ensemble(*members: str, hostile: Maker | None = None) -> Maker:
    """An honest model and others, listed as one."""

    def make(folder: Path, mark: Path) -> Path:
        bundle(folder / "honest")
        if hostile is not None:
            hostile(folder / "hostile", mark)
        (folder / "medai.json").write_text(json.dumps({"members": ["honest", *members]}), encoding="utf-8")
        return folder

    return make


# TorchScript


def script(folder: Path, mark: Path) -> Path:
    """TorchScript that writes a file when it is loaded."""
    path = script_file(folder.with_suffix(".ts"), module=Writing(mark))
    mark.unlink(missing_ok=True)
    return path


def script_in_bundle(folder: Path, mark: Path) -> Path:
    scripted_bundle(folder, Writing(mark))
    mark.unlink(missing_ok=True)
    return folder


def script_as_weights(folder: Path, mark: Path) -> Path:
    script_file(bundle(folder) / "models" / "model.pt", module=Writing(mark))
    mark.unlink(missing_ok=True)
    return folder


def script_described(folder: Path, mark: Path) -> Path:
    described(folder)
    (folder / "model.safetensors").unlink()
    script_file(folder / "model.pt", module=Writing(mark))
    mark.unlink(missing_ok=True)
    return folder


def script_named_by_config(folder: Path, mark: Path) -> Path:
    bundle(folder, network_def="$torch.jit.load(@bundle_root + '/models/net.ts')")
    script_file(folder / "models" / "net.ts", module=Writing(mark))
    mark.unlink(missing_ok=True)
    return folder


def script_that_claims_trust(folder: Path, mark: Path) -> Path:
    """A bundle that brings a list of trusted models along, and says of itself that it is trusted."""
    script_in_bundle(folder, mark)
    change(folder, "metadata", trusted=True, medai={"trusted": True, "trust_code": "*"})
    (folder / "trusted.json").write_text(json.dumps({"trusted": [{"sha256": "*"}]}), encoding="utf-8")
    return folder


def generator(**entries: Any) -> Maker:
    """A model that would make images of noise, with entries that want something executed."""

    def make(folder: Path, mark: Path) -> Path:
        bundle(folder)
        image = {"type": "image", "format": "magnitude", "num_channels": 1}
        sides = {"inputs": {"latent": image | {"format": "latent"}}, "outputs": {"pred": image}}
        change(folder, "metadata", network_data_format=sides)
        told = {"network_def": {"_target_": "Generator"}, "noise": "$torch.rand([1, 4])"} | entries
        return change(folder, "inference", **json.loads(json.dumps(told).replace("MARK", str(mark))))

    return make


def tar(attack: str) -> Maker:
    """A model in an archive of gzipped tar that wants to write elsewhere."""

    def make(folder: Path, mark: Path) -> Path:
        bundle(folder / "model")
        path = folder.with_name(f"{folder.name}.tar.gz")
        path.write_bytes(TAR_ATTACKS[attack](files_of(folder / "model")))
        shutil.rmtree(folder)
        return path

    return make


FAR = {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
SHORT = {"a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4]}}
WINDOWS = {"_target_": "SlidingWindowInferer"}
TOUCH = "__import__('os').system('touch MARK')"
EVERY: dict[str, Maker] = {
    **{f"pickle: {name}": in_weights(payload) for name, payload in (PAYLOADS | SILENT).items()},
    "pickle: legacy format": in_weights(PAYLOADS["os.system"], _use_new_zipfile_serialization=False),
    "pickle: protocol 4": in_weights(PAYLOADS["os.system"], pickle_protocol=4),
    "pickle: raw": raw_pickle,
    "pickle: protocol 0": pickle_protocol_0,
    "pickle: called safetensors": pickle_called_safetensors,
    "pickle: as the model": pickle_as_model,
    "pickle: checkpoint as the model": checkpoint_as_model,
    "pickle: in a checkpoint's config": pickle_in_config,
    "pickle: among the weights": pickle_among_weights,
    "pickle: as metadata": pickled_metadata,
    "pickle: NumPy file for weights": array_for_weights,
    "pickle: stored argument": stored_array,
    "pickle: nnU-Net checkpoint": nnunet_pickle,
    "pickle: beside nnU-Net": nnunet_pickle_beside,
    "pickle: described .pth": described_pickle,
    "pickle: described .bin": described_raw_pickle,
    "target: os.system": target("os.system", command="touch MARK"),
    "target: subprocess.run": target("subprocess.run", args=["touch", "MARK"]),
    "target: eval": target("builtins.eval", source="open('MARK', 'w')"),
    "target: exec": target("builtins.exec", source="open('MARK', 'w')"),
    "target: torch.load": target("torch.load", f="models/model.pt", weights_only=False),
    "target: torch.hub": target("torch.hub.load", repo_or_dir="evil/evil", model="evil"),
    "target: monai.bundle.run": target("monai.bundle.run", config_file="evil.json"),
    "target: monai.bundle.load": target("monai.bundle.load", name="evil"),
    "target: monai.utils": target("monai.utils.optional_import", module="evil"),
    "target: os through MONAI": target("monai.networks.nets.os.system", command="touch MARK"),
    "target: own module": target("scripts.net.UNet", x=1),
    "target: shadowed name": target("subprocess.UNet", args=["touch", "MARK"]),
    "target: attribute": target("monai.networks.nets.UNet.__init__", x=1),
    "target: full width": target("\uff35Net", spatial_dims=3),
    "target: expression": target("$" + TOUCH),
    "target: reference": config(network_def={"_target_": "@evil"}, evil="os.system"),
    "target: nested": network_with(act={"_target_": "os.system", "command": "touch MARK"}),
    "target: requires": network_with(_requires_="$" + TOUCH),
    "target: mode": network_with(_mode_="debug"),
    "target: callable mode": network_with(_mode_="callable"),
    "target: pretrained": target("FlexibleUNet", in_channels=1, out_channels=3, backbone="evil", pretrained=True),
    "step: Lambda": step("Lambdad", func="$lambda x: " + TOUCH),
    "step: Lambda by its path": step("monai.transforms.utility.array.Lambda", func="$" + TOUCH),
    "step: Lambda as text": step("Lambdad", func="os.system"),
    "step: RandLambda": step("RandLambdad", func="$lambda x: x"),
    "step: TorchVision": step("TorchVisiond", name="evil"),
    "step: TorchIO": step("TorchIOd", name="evil"),
    "step: LoadImage reader": step("LoadImaged", reader={"_target_": "os.system", "command": "touch MARK"}),
    "step: LoadImage of pickles": step("LoadImaged", reader="NumpyReader", allow_pickle=True),
    "step: SaveImage elsewhere": config(
        postprocessing=[
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "MARK", "writer": "$" + TOUCH},
        ]
    ),
    "step: own module": step("scripts.steps.Evil"),
    "inferer: own module": config(inferer={"_target_": "scripts.evil.Inferer"}),
    "inferer: os.system": config(inferer={"_target_": "os.system", "command": "touch MARK"}),
    "entry: imports": beside(imports=["$import os", "$" + TOUCH, "$import evil"]),
    "entry: initialize and run": beside(initialize=["$" + TOUCH], run=["$" + TOUCH], finalize=["$" + TOUCH]),
    "entry: evaluator": beside(evaluator={"_target_": "os.system", "command": "touch MARK"}, handlers=["$" + TOUCH]),
    "entry: loader": beside(checkpointloader={"_target_": "os.system", "load_path": "$" + TOUCH}),
    "entry: weights outside": beside(checkpointloader={"_target_": "CheckpointLoader", "load_path": "../../secret.pt"}),
    "entry: weights at the top": beside(checkpointloader={"_target_": "CheckpointLoader", "load_path": "/etc/passwd"}),
    "entry: weights of a long name": beside(
        checkpointloader={"_target_": "CheckpointLoader", "load_path": "$'a' * 5000"}
    ),
    "entry: macro outside": config(inferer=WINDOWS | {"roi_size": "%../../../etc/passwd.json#a"}),
    "expression: __import__": expression(TOUCH),
    "expression: import": expression("import os"),
    "expression: os": expression("os.system('touch MARK')"),
    "expression: os in full width": expression("\uff4f\uff53.system('touch MARK')"),
    "expression: exec": expression("exec('1')"),
    "expression: open": expression("open('MARK', 'w')"),
    "expression: Path": expression("Path('MARK').touch()"),
    "expression: classes": expression("().__class__.__mro__[1].__subclasses__()"),
    "expression: classes in full width": expression("()._\uff3fclass__._\uff3fmro__"),
    "expression: getattr": expression("getattr(1, '__class__')"),
    "expression: format": expression("'{0.__class__.__mro__}'.format(1)"),
    "expression: formatted text": expression("f'{().__class__}'"),
    "expression: percent": expression("'%s' % 1"),
    "expression: lambda": expression("(lambda: 1)()"),
    "expression: module": expression("torch.__builtins__['eval']('1')"),
    "expression: torch.load": expression("torch.load('models/model.pt', weights_only=False)"),
    "expression: monai.bundle": expression("monai.bundle.run('x')"),
    "expression: walrus": expression("(x := 1)"),
    "expression: power": expression("10**10**10"),
    "expression: long text": expression("'a' * 10**10"),
    "expression: long list": expression("[0] * 10**9"),
    "expression: long range": expression("sum(range(10**12))"),
    "expression: loops": expression("[a for a in range(9999) for b in range(9999) for c in range(9999)]"),
    "expression: doubling": expression("[x + x for x in [[0] * 5000]][0] * 2 * 2 * 2"),
    "expression: deep": expression("(" * 900 + "1" + ")" * 900),
    "expression: minus": expression("-" * 1900 + "1"),
    "expression: shift": expression("1 << 10**9"),
    "config: references": laughs,
    "config: macros": laughing_macros,
    "config: circle": config(inferer="@a", a="@b", b="@a"),
    "config: deep": deep("inference"),
    "config: deep metadata": deep("metadata"),
    "config: large": large_config,
    "config: YAML object": yaml_config("network_def: !!python/object/apply:os.system ['touch MARK']"),
    "config: YAML aliases": yaml_config("a: &a [1, 1]\nb: &b [*a, *a]\nnetwork_def: [*b, *b]"),
    "config: logging.conf": lambda folder, mark: with_files(
        folder, {"configs/logging.conf": f"[handler_x]\nclass=__import__('os').system\nargs=('touch {mark}',)"}
    ),
    "metadata: channels": metadata(
        network_data_format={"inputs": {"a": {"num_channels": 10**12}}, "outputs": {"b": {"num_channels": 3}}}
    ),
    "metadata: classes": metadata(
        network_data_format={"inputs": {"a": {"num_channels": 1}}, "outputs": {"b": {"num_channels": 10**12}}}
    ),
    "metadata: no object": metadata(network_data_format=[1], medai="x"),
    "metadata: expressions": metadata(version="$" + TOUCH, name="$" + TOUCH, description="@evil"),
    "metadata: terminal": metadata(name="\x1b]0;evil\x07\x1b[2J", description="\u202egnp.exe", authors="a\rb\x9b31m"),
    "nnU-Net: class": architecture(network_class_name="os.system"),
    "nnU-Net: class by path": architecture(network_class_name="dynamic_network_architectures.os.system"),
    "nnU-Net: convolution": architecture(conv_op="builtins.eval"),
    "nnU-Net: nonlinearity": architecture(nonlin="subprocess.Popen", nonlin_kwargs={"args": ["true"]}),
    "nnU-Net: norm": architecture(norm_op="os.system"),
    "nnU-Net: features": architecture(features_per_stage=[8, 8, 10**9]),
    "nnU-Net: resampling": configuration(resampling_fn_data="os.system", resampling_fn_data_kwargs={"c": "touch MARK"}),
    "nnU-Net: normalization": configuration(normalization_schemes=["os.system"]),
    "nnU-Net: patch": configuration(patch_size=[10**9] * 3),
    "nnU-Net: previous stage": configuration(previous_stage="../../../evil"),
    "nnU-Net: inheritance": configuration(inherits_from="3d_fullres"),
    "nnU-Net: reader": plan(image_reader_writer="os.system"),
    "nnU-Net: label manager": plan(label_manager="subprocess.run"),
    "nnU-Net: planner": plan(experiment_planner_used="os.system"),
    "nnU-Net: windows of less than nothing": configuration(patch_size=[-16, 16, 16]),
    "nnU-Net: spacing of nothing": configuration(spacing=[1e-9] * 3),
    "nnU-Net: depth": architecture(n_conv_per_stage=[10**8] * 2),
    "nnU-Net: labels that are no numbers": labels({"background": 0, "a": "1; touch"}),
    "nnU-Net: labels from below": labels({"background": 0, "a": -1}),
    "nnU-Net: a checkpoint outside of its fold": misplaced_fold,
    "nnU-Net: axes to mirror": mirrored_elsewhere,
    "file: archive in an archive": archive_in_archive,
    "file: TorchScript called .zip": script_called_archive,
    "file: names that differ in case, in an archive": names_in_case,
    "file: link to /etc": linked("models/model.pt", "/etc/passwd"),
    "file: link to /proc": linked("models/model.pt", "/proc/self/environ"),
    "file: link to a device": linked("models/model.pt", "/dev/zero"),
    "file: linked metadata": linked("configs/metadata.json", "/etc/hostname"),
    "file: linked config": linked("configs/inference.json", "/dev/zero"),
    "file: linked folder": linked("models", "/etc"),
    "file: linked licence": linked("LICENSE", "/etc/passwd"),
    "file: link in a circle": link_in_circle,
    "file: pipe for weights": pipe("models/model.pt"),
    "file: pipe for metadata": pipe("configs/metadata.json"),
    "file: pipe for a config": pipe("configs/inference.json"),
    "file: pipe beside": pipe("LICENSE"),
    "file: socket": unix_socket,
    "file: device as the model": lambda folder, mark: Path("/dev/zero"),
    "file: folder for weights": folder_for_weights,
    "file: many": many_files,
    "file: shadowing modules": shadowing,
    "weights: forged shape": forged_shape,
    "weights: squeezed": squeezed,
    "weights: forged offsets": forged_safetensors(FAR),
    "weights: forged sizes": forged_safetensors(SHORT, b"\0" * 4),
    "weights: endless header": endless_header,
    "weights: names": other_names,
    "weights: damaged old format": damaged_legacy,
    "weights: sparse": with_tensor(lambda tensor: tensor.to_sparse()),
    "weights: without numbers": with_tensor(lambda tensor: tensor.to("meta")),
    "weights: complex": with_tensor(lambda tensor: tensor.to(torch.complex64)),
    "weights: quantized": with_tensor(lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
    "weights: not finite": with_tensor(lambda tensor: torch.full_like(tensor, torch.nan)),
    "weights: texts": with_tensor(lambda tensor: "os.system"),
    "size: channels": network_with(channels=[4, 8, 10**9]),
    "size: inputs": network_with(in_channels=10**30),
    "size: strides": network_with(strides=[2.5, 1e308]),
    "size: layers": network_with(channels=[4] * 5000, strides=[1] * 4999),
    "size: median": step("MedianSmoothd", radius=10**6),
    "size: margin": step("CropForegroundd", source_key="image", margin=-(10**9)),
    "size: digits": step("SpatialPadd", spatial_size=[int("9" * 4000)] * 3),
    "size: product of digits": config(a=int("9" * 4000), inferer=WINDOWS | {"roi_size": "$[@a * @a] * 3"}),
    "size: more digits than Python reads": endless_number,
    "size: axes": network_with(spatial_dims=10**6),
    "size: spacing": step("Spacingd", pixdim=[1e-6] * 3),
    "size: resize": step("Resized", spatial_size=[90_000] * 3, mode="trilinear"),
    "size: padding": step("SpatialPadd", spatial_size=[90_000] * 3),
    "size: divisible": step("DivisiblePadd", k=90_000),
    "size: resize that some machine might hold": step("Resized", spatial_size=[1700] * 3, mode="trilinear"),
    "size: overlap": config(inferer=WINDOWS | {"roi_size": [16] * 3, "overlap": 0.999999999}),
    "ensemble: pickle": ensemble("hostile", hostile=raw_pickle),
    "generator: noise": generator(noise=f"${TOUCH}"),
    "generator: noise of a list": generator(noise=f"$[torch.rand(4) for i in [{TOUCH}]]"),
    "generator: shape": generator(noise=f"$torch.rand([1, {TOUCH}])"),
    "generator: size": generator(noise="$torch.randn([1, 10**12])"),
    "generator: sampler": generator(inferer={"_target_": "scripts.sampler.Sampler", "_requires_": f"${TOUCH}"}),
    "generator: known sampler": generator(
        inferer={"_target_": "scripts.ldm_sampler.LDMSampler", "_requires_": f"${TOUCH}"},
        autoencoder_def={"_target_": "subprocess.Popen", "args": ["touch", "MARK"]},
        load_autoencoder=f"${TOUCH}",
        set_timesteps=f"${TOUCH}",
    ),
    "generator: scheduler": generator(
        preprocessing=[],
        inferer={"_target_": "scripts.ldm_sampler.LDMSampler"},
        autoencoder_def={"_target_": "AutoencoderKL", "spatial_dims": 2},
        load_autoencoder_path="models/model.pt",
        load_autoencoder="$@autoencoder_def.load_state_dict(torch.load(@load_autoencoder_path))",
        set_timesteps="$@noise_scheduler.set_timesteps(num_inference_steps=3)",
        noise_scheduler={"_target_": "subprocess.Popen", "args": ["touch", "MARK"]},
    ),
    "tar: parent folder": tar("parent folder"),
    "tar: header": tar("top of the disk in a header"),
    "tar: link": tar("link and a file through it"),
    "tar: hard link": tar("hard link to the weights"),
    "tar: device": tar("device of characters"),
    "tar: sparse": tar("sparse by a header"),
    "tar: damaged": tar("damaged head"),
    "tar: chain": tar("chain of heads"),
    "ensemble: TorchScript": ensemble("hostile.ts", hostile=script),
    "ensemble: elsewhere": ensemble("../../../../etc"),
    "ensemble: of itself": ensemble("."),
    "ensemble: many": ensemble(*(f"m{number}" for number in range(100_000))),
    "TorchScript": script,
    "TorchScript: in a bundle": script_in_bundle,
    "TorchScript: as weights": script_as_weights,
    "TorchScript: described": script_described,
    "TorchScript: named by the config": script_named_by_config,
    "TorchScript: claims trust": script_that_claims_trust,
}  # fmt: skip

# What is hostile in these is nothing that MedAI looks at, or is text that it shows.
READ = (
    "pickle: beside nnU-Net", "step: LoadImage reader", "step: LoadImage of pickles", "step: SaveImage elsewhere",
    "entry: imports", "entry: initialize and run", "entry: evaluator", "entry: loader", "config: logging.conf",
    "metadata: expressions", "metadata: terminal", "nnU-Net: reader", "nnU-Net: label manager", "nnU-Net: planner",
    "file: shadowing modules", "size: overlap",
)  # fmt: skip
