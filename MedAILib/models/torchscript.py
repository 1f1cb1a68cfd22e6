"""TorchScript: the one place where a model's own code is executed, and only what the user trusts byte by byte."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from MedAILib.bundle_plan import BundlePlan
from MedAILib.errors import ModelError
from MedAILib.inference.segment import Ahead
from MedAILib.models.bundle import BundleModel
from MedAILib.models.trust import require_trust
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.store.content import combined_sha256, file_hashes
from MedAILib.volume import Volume


class TorchScriptModel(BundleModel):
    """A segmentation model whose network is TorchScript: a file with its description inside, or a bundle's `model.ts`.

    The user's trust is asked for before the file is loaded and again before each run, so that a model that is kept
    warm does not outlive her permission.

    Args:
        plan: with the script.
        device: where its network runs.
        trust_code: the SHA-256 of what the user allows to execute code, beside those on her list.

    Raises:
        UntrustedCodeError: the user does not allow it.
        SpecError: its description asks for what is not done here.
        ModelError: the file is damaged.
    """

    def __init__(self, plan: BundlePlan, device: torch.device, trust_code: str) -> None:
        self._source, self._trust_code = plan.folder, trust_code
        self._prepare(plan)
        assert plan.script is not None, "the caller has seen that there is one"
        hashes = file_hashes(plan.folder)
        sha256 = combined_sha256(plan.folder, hashes)
        require_trust(plan.folder, sha256, trust_code)
        content = plan.script.read_bytes()
        name = plan.script.name if plan.folder.is_file() else plan.script.relative_to(plan.folder).as_posix()
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise ModelError(f"{plan.script} changed while it was read; open the model again.")
        self._place(_Scripted(_loaded(content, plan.script)), sha256, device)

    def run(self, volume: Volume, options: RunOptions, progress: Progress, ahead: Ahead | None = None) -> Segmentation:
        """As `BundleModel.run`; raises UntrustedCodeError where the user has revoked her trust."""
        require_trust(self._source, self._sha256, self._trust_code)
        return super().run(volume, options, progress, ahead)


class _Scripted(nn.Module):
    """A script with a parameter that tells the device, since a frozen script has none of its own."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.empty(0), requires_grad=False)
        self.script = script

    def forward(self, image: torch.Tensor) -> Any:
        """What the script makes of (1, C, X, Y, Z)."""
        return self.script(image)


def _loaded(content: bytes, path: Path) -> Any:
    """Load TorchScript; from here on its code may do anything."""
    try:
        return torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(f"The TorchScript in {path} can't be loaded: {reason[:200]}.") from error
