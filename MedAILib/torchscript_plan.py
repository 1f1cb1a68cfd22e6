"""The descriptions that lie in a TorchScript file as extra files, read as data; its code is neither read nor run."""

import zipfile
from pathlib import Path
from typing import Any

from MedAILib.bundle_plan import BundlePlan, plan_of
from MedAILib.config import MAX_FILE_BYTES, Config, parse_json
from MedAILib.errors import SpecError

METADATA, INFERENCE = "metadata.json", "inference.json"


def read_torchscript_plan(path: Path) -> BundlePlan:
    """Read the plan of a TorchScript file, from the extra files that MONAI's `ckpt_export` writes.

    Raises:
        SpecError: the file is damaged, or has no such extra files.
    """
    extras = _extras(path)
    configs = [name for name in extras if name != METADATA]
    if METADATA not in extras or not configs:
        raise SpecError(
            f"{path} says nothing of its channels, labels and preprocessing; export it with MONAI's ckpt_export "
            f"(--meta_file, --config_file), which puts {METADATA} and {INFERENCE} into it, or give a bundle's folder "
            "with it as models/model.ts."
        )
    config = extras[INFERENCE if INFERENCE in configs else configs[0]]
    return plan_of(path, path, extras[METADATA], Config(config, path, {"bundle_root": "."}), path, path)


def _extras(path: Path) -> dict[str, dict[str, Any]]:
    """The extra files that are JSON objects, by name."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                folder, _, name = info.filename.rpartition("/")
                if not folder.endswith("/extra") or folder.count("/") != 1 or not name.endswith(".json"):
                    continue
                with archive.open(info) as stream:
                    text = stream.read(MAX_FILE_BYTES + 1)
                if len(text) > MAX_FILE_BYTES:
                    raise SpecError(f"{path}: {name} is larger than {MAX_FILE_BYTES / 1e6:g} MB and was not read.")
                found[name] = parse_json(text.decode("utf-8-sig"), f"{path}: {name}")
    except SpecError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise SpecError(f"{path} is damaged: its description can't be read ({error}).") from error
    return found
