"""Which engines a model may run on here, by what is installed, what the user allows and what was tried before."""

import os
import platform
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.inference.engine import (
    AS_ASKED,
    NEARLY_SAME,
    SAME,
    ChosenEngine,
    Engine,
    Offer,
    Trial,
    torch_half,
    trials_as_json,
    trials_from_json,
)
from MedAILib.progress import Progress
from MedAILib.request import ENGINES, RunOptions
from MedAILib.store.engines import engine_folder, keep_trials, read_trials

VARIABLE = "MEDAI_ENGINE"


@dataclass(frozen=True)
class Engines:
    """What may run a network.

    Args:
        sha256: the model's.
        number: of the network in its model, where there are several.
    """

    sha256: str
    number: int = 0

    def chosen(self, network: nn.Module, calls: int, options: RunOptions, progress: Progress) -> ChosenEngine:
        """The network as an engine for so many windows, on the device that it is on.

        Raises:
            InputError: the engine that the user asked for is not here.
        """
        wanted = wanted_engine(options)
        place = next(network.parameters()).device
        if place.type != "cpu":
            if wanted == "openvino":
                raise InputError("OpenVINO runs on the CPU; choose the device cpu, or another engine.")
            return ChosenEngine(network, (), calls, {}, _forget, progress)
        offers = self._offers(network, wanted, options.precision == "half", progress)
        key = f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, network {self.number}"
        known = trials_from_json(read_trials(self.sha256).get(key)) if offers else {}

        def keep(trials: dict[str, Trial]) -> None:
            keep_trials(self.sha256, key, trials_as_json(trials))

        return ChosenEngine(network, offers, calls, known, keep, progress)

    def _offers(self, network: nn.Module, wanted: str, half: bool, progress: Progress) -> list[Offer]:
        if half and not torch.cpu._is_avx512_bf16_supported():
            progress.warn("This processor does not compute in bfloat16; the run is in float32.")
            half = False
        offers = []
        asked = half or wanted == "openvino"
        agreement = NEARLY_SAME if half else AS_ASKED if asked else SAME
        if half and wanted != "openvino":
            offers.append(Offer("PyTorch, bfloat16", lambda _: torch_half(network), agreement, asked))
        if wanted != "torch" and openvino_is_here() and _is_convertible(network):
            from MedAILib.inference.engine_openvino import VERSION  # noqa: PLC0415  # only where it is installed

            name = f"OpenVINO {VERSION}, {'bfloat16' if half else 'float32'}"
            make = partial(self._openvino, network, half)
            offers.append(Offer(name, make, agreement, asked, needed=wanted == "openvino" and not half))
        return offers

    def _openvino(self, network: nn.Module, half: bool, patch: Tensor) -> Engine:
        from MedAILib.inference.engine_openvino import VERSION, open_openvino  # noqa: PLC0415

        window = "x".join(str(n) for n in patch.shape[1:])
        place = engine_folder(self.sha256) / f"{self.number}-{window}-openvino-{VERSION}.xml"
        return open_openvino(network, patch, place, half, torch.get_num_threads())


def wanted_engine(options: RunOptions) -> str:
    """What the user asks for: the option, or the variable where that leaves it open.

    Raises:
        InputError: there is none of this name, or it is not installed.
    """
    wanted = options.engine if options.engine != "auto" else os.environ.get(VARIABLE, "auto") or "auto"
    if wanted not in ENGINES:
        raise InputError(f"{VARIABLE} names the engine '{wanted}'; choose one of {', '.join(ENGINES)}.")
    if wanted == "openvino" and not openvino_is_here():
        raise InputError("OpenVINO is not installed; install the Python package openvino, or leave the engine at auto.")
    return wanted


def tried_engines(sha256: str) -> list[str]:
    """A line for each engine that was tried with a model."""
    return [
        f"{name} ({key}): {trial.in_words()}"
        for key, trials in read_trials(sha256).items()
        for name, trial in trials_from_json(trials).items()
    ]


@cache
def openvino_is_here() -> bool:
    """Whether the package is installed; it is not loaded for that."""
    return find_spec("openvino") is not None


@cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _is_convertible(network: nn.Module) -> bool:
    """Scripts hide what they are made of; everything else is traced."""
    return not any(isinstance(part, torch.jit.ScriptModule) for part in network.modules())


def _forget(trials: dict[str, Trial]) -> None:
    """Where nothing is tried there is nothing to keep."""
