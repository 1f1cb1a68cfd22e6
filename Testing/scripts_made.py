"""Small TorchScript models that the tests make, with the extra files that MONAI's `ckpt_export` writes."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from bundles import configs, network_entry, write_configs

from MedAILib.models.networks import build_network


class Writing(torch.nn.Module):
    """A network that writes a file when it is loaded, and says nothing."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = str(mark)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark, self.training = state
        torch.save(torch.zeros(1), self.mark)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def network() -> torch.nn.Module:
    """The network of `random_bundle(..., network_entry())`, with its weights."""
    torch.manual_seed(0)
    arguments = copy.deepcopy({key: value for key, value in network_entry().items() if key != "_target_"})
    return build_network("UNet", arguments).eval()


def script_file(
    path: Path, extras: dict[str, str] | None = None, module: torch.nn.Module | None = None, **changes: Any
) -> Path:
    """A script with its description inside."""
    metadata, inference = configs(network_entry(), **changes)
    described = {"metadata.json": json.dumps(metadata), "inference.json": json.dumps(inference)}
    script = torch.jit.script(network() if module is None else module)
    torch.jit.save(script, str(path), described if extras is None else extras)
    return path


def scripted_bundle(folder: Path, module: torch.nn.Module | None = None, **changes: Any) -> Path:
    """A bundle with `models/model.ts` and no other weights."""
    write_configs(folder, *configs(network_entry(), **changes))
    (folder / "models").mkdir()
    script_file(folder / "models" / "model.ts", {}, module)
    return folder
