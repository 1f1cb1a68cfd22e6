"""What computes a network's windows: PyTorch, or another engine that was seen to be faster here and to say the same.

An engine is a function from a window (1, C, X, Y[, Z]) to the network's output. Others than PyTorch are tried on a
window of the run itself, beside what PyTorch made of it; what came out is kept, so that it is tried once for each
model and machine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from MedAILib.errors import ModelError
from MedAILib.progress import Progress

Engine = Callable[[Tensor], Tensor]

# Shares of equal labels on the window that is tried: for what nobody asked for, for what the user asked for, and for
# nearly the same labels.
SAME, AS_ASKED, NEARLY_SAME = 0.9999, 0.999, 0.99
# A window shows something where at least this share of it is not its most frequent class.
SHOWN = 0.005
# Seconds of work ahead below which nothing is tried that nobody asked for: converting a network takes about as long.
WORTH_S = 30.0


class EngineError(ModelError):
    """An engine can't run a network; its first argument says why."""


@dataclass(frozen=True)
class Offer:
    """An engine that may take PyTorch's place.

    Args:
        name: with its version and number format, as provenance has it.
        open: makes it ready for windows like this one; raises `EngineError`.
        agreement: share of labels that have to be equal.
        asked: the user asked for it; it is tried however short the run is.
        needed: the user asked for it and nothing else.
    """

    name: str
    open: Callable[[Tensor], Engine]
    agreement: float = SAME
    asked: bool = False
    needed: bool = False


@dataclass(frozen=True)
class Trial:
    """What came of trying an offer on a window.

    Args:
        usual_s, offer_s: seconds for the window, by PyTorch and by the offer.
        open_s: seconds to make it ready, where it was converted before.
        agreement: share of equal labels.
        error: why it can't run; empty where it can.
    """

    usual_s: float = 0.0
    offer_s: float = 0.0
    open_s: float = 0.0
    agreement: float = 0.0
    error: str = ""

    def in_words(self) -> str:
        """What was seen."""
        if self.error:
            return f"it can't run this network ({self.error})"
        return f"{self.usual_s / self.offer_s:.2f} times as fast as PyTorch with {self.agreement:.3%} equal labels"

    def saved_s(self, calls: int) -> float:
        """Seconds that it saves over so many windows."""
        return calls * (self.usual_s - self.offer_s) - self.open_s


class ChosenEngine:
    """A network as an engine that becomes another one on the way, where that is better.

    Args:
        usual: PyTorch's.
        offers: what else there is.
        known: what came of offers before, by name; new trials are told to `keep`.
        calls: how many windows there will be.
        keep: is given all that is known after a trial.
        progress: is told where something that was asked for is not done.
    """

    def __init__(
        self,
        usual: Engine,
        offers: Sequence[Offer],
        calls: int,
        known: dict[str, Trial],
        keep: Callable[[dict[str, Trial]], None],
        progress: Progress,
    ) -> None:
        self._usual, self._offers, self._known, self._keep = usual, tuple(offers), dict(known), keep
        self._left, self._progress = calls, progress
        self._now: Engine | None = None if self._offers else usual
        self._done = 0
        self.name, self.reason = "PyTorch, float32", "no other is here or allowed"

    @property
    def said(self) -> dict[str, str]:
        """For provenance."""
        return {"engine": self.name, "engine.reason": self.reason}

    def __call__(self, patch: Tensor) -> Tensor:
        """The network's output for a window."""
        if self._now is None and all(offer.name in self._known for offer in self._offers):
            self._choose(patch, {})
        if self._now is not None:
            return first_of(self._now(patch))
        start = time.perf_counter()
        output = first_of(self._usual(patch))
        seconds = time.perf_counter() - start
        self._done, self._left = self._done + 1, self._left - 1
        asked = any(offer.asked for offer in self._offers)
        self.reason = "nothing was seen in the windows to try another on" if asked else "the run is too short"
        # The first window takes longer than the others.
        if asked or (self._done > 1 and seconds * self._left > WORTH_S):
            labels = _labels(output)
            if _shows(labels) or (self._left == 0 and any(offer.needed for offer in self._offers)):
                self._try(patch, labels, self._again(patch, seconds))
        if self._left == 0 and self._now is None and asked:
            self._warn()
        return output

    def _again(self, patch: Tensor, seconds: float) -> float:
        """Seconds of PyTorch for the window; measured once more where it was the first one."""
        if self._done > 1:
            return seconds
        start = time.perf_counter()
        self._usual(patch)
        return min(seconds, time.perf_counter() - start)

    def _try(self, patch: Tensor, labels: Tensor, usual_s: float) -> None:
        ready: dict[str, Engine] = {}
        for offer in self._offers:
            if offer.name in self._known:
                continue
            self._progress.step(0, 1, f"Trying {offer.name}")
            try:
                engine = offer.open(patch)
                start = time.perf_counter()
                offer.open(patch)
                opening = time.perf_counter() - start
                output = first_of(engine(patch))
                start = time.perf_counter()
                engine(patch)
                seconds = time.perf_counter() - start
            except EngineError as error:
                self._known[offer.name] = Trial(error=str(error))
                continue
            agreement = float((_labels(output) == labels).float().mean())
            self._known[offer.name] = Trial(usual_s, seconds, opening, agreement)
            ready[offer.name] = engine
        self._keep(self._known)
        self._choose(patch, ready)

    def _choose(self, patch: Tensor, ready: dict[str, Engine]) -> None:
        """Take the offer that saves most, if it says the same."""
        needed = [offer for offer in self._offers if offer.needed]
        for offer in needed:
            if self._known[offer.name].error:
                raise ModelError(f"{offer.name} can't be used: {self._known[offer.name].error}; choose another engine.")
        fit = [o for o in self._offers if not self._known[o.name].error and self._agrees(o)]
        best = max(fit, key=lambda o: self._known[o.name].saved_s(self._left), default=None)
        if best is None or (not best.needed and self._known[best.name].saved_s(self._left) <= 0):
            self._now = self._usual
            self.reason = "; ".join(f"{o.name}: {self._known[o.name].in_words()}" for o in self._offers)
            if any(offer.asked for offer in self._offers):
                self._warn()
            return
        try:
            self._now = ready.get(best.name) or best.open(patch)
        except EngineError as error:
            self._known[best.name] = replace(self._known[best.name], error=str(error))
            self._choose(patch, ready)
            return
        before = f", after {self._done} windows by PyTorch" if self._done else ""
        self.name = f"{best.name}{before}"
        self.reason = self._known[best.name].in_words() + (", and asked for" if best.asked else "")

    def _agrees(self, offer: Offer) -> bool:
        return self._known[offer.name].agreement >= offer.agreement

    def _warn(self) -> None:
        names = " or ".join(offer.name for offer in self._offers)
        self._progress.warn(f"{names} was asked for, but PyTorch ran in float32: {self.reason}.")


def torch_half(network: Engine) -> Engine:
    """PyTorch in bfloat16 where a layer takes it."""

    def run(patch: Tensor) -> Tensor:
        with torch.autocast(patch.device.type, torch.bfloat16):
            return first_of(network(patch)).float()

    return run


def first_of(output: Any) -> Tensor:
    """A network's main output, where it gives several."""
    found: Tensor = output[0] if isinstance(output, (list, tuple)) else output
    return found


def trials_as_json(trials: dict[str, Trial]) -> dict[str, dict[str, Any]]:
    """As plain data."""
    return {name: asdict(trial) for name, trial in trials.items()}


def trials_from_json(content: Any) -> dict[str, Trial]:
    """From plain data; what is no trial is left out, and tried again."""
    found = {}
    for name, entry in content.items() if isinstance(content, dict) else ():
        try:
            trial = Trial(**entry)
        except TypeError:
            continue
        numbers = (trial.usual_s, trial.offer_s, trial.open_s, trial.agreement)
        whole = isinstance(trial.error, str) and all(isinstance(n, (int, float)) and isfinite(n) for n in numbers)
        if whole and (trial.error or trial.offer_s > 0):
            found[str(name)] = trial
    return found


def _labels(output: Tensor) -> Tensor:
    """The largest channel at each voxel; of one channel alone, where it is above zero."""
    return output.argmax(dim=1) if output.shape[1] > 1 else output > 0


def _shows(labels: Tensor) -> bool:
    """Whether there is more than one class to see."""
    counts = torch.bincount(labels.flatten().long())
    return int(counts.max()) <= (1 - SHOWN) * labels.numel()
