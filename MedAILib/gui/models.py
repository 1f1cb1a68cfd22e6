"""Which models there are for a module, and what the list of models knows of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import MedAIError
from MedAILib.gui.trust import executes_code
from MedAILib.read_spec import read_spec
from MedAILib.spec import ModelSpec
from MedAILib.store.catalogue import Entry, catalogue
from MedAILib.store.find import builtin_models
from MedAILib.store.record import installed_models


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list.

    Args:
        name: what a run calls the model: its name, or its path.
        state: "built in", "installed", "from a folder", "from a file", "can be downloaded", "does not run".
        spec: what it says of itself; None where that can't be read.
        size_bytes: of its files.
        fault: why it can't be read, or run.
        offer: what the catalogue says of a model that is not here yet.
        code: it runs only by executing code of its own.
    """

    name: str
    state: str
    spec: ModelSpec | None
    size_bytes: int
    fault: str = ""
    offer: Entry | None = None
    code: bool = False

    @property
    def title(self) -> str:
        if self.offer is not None:
            return self.offer.title or self.name
        return self.spec.title if self.spec and self.spec.title else Path(self.name).name

    def matches(self, words: str) -> bool:
        """Whether each of the words occurs in what the model says of itself."""
        spec = self.spec
        texts = [self.name, self.state, self.title]
        if spec is not None:
            texts += [spec.task, spec.modality, spec.licence, spec.description, *(label.name for label in spec.labels)]
            texts += spec.classes.names if spec.classes is not None else ()
        if self.offer is not None:
            offer = self.offer
            texts += [*filter(None, (offer.modality, offer.description, offer.licence.name)), *offer.labels]
        text = " ".join(texts).lower()
        return all(word in text for word in words.lower().split())


def known_models(tasks: Sequence[str]) -> list[ModelEntry]:
    """The models for some tasks (of `ModelSpec.task`): those at hand, then those that can be downloaded.

    One that can't be read is among them, since nobody knows what it is for.
    """
    here = [entry(name, path, "built in") for name, path in builtin_models().items()]
    here += [entry(name, there.path, "installed") for name, there in installed_models().items()]
    names = {model.name for model in here}
    offers = [_offer(each) for name, each in catalogue().items() if name not in names and each.task in tasks]
    return [model for model in here if model.spec is None or model.spec.task in tasks] + offers


def _offer(known: Entry) -> ModelEntry:
    runs = known.runs is not False
    state = "can be downloaded" if runs else "does not run"
    return ModelEntry(known.name, state, None, known.remote.size or 0, "" if runs else known.why or "", known)


def entry(name: str, source: Path, state: str) -> ModelEntry:
    """What the list shows of a model; one that can't be read is shown with the reason."""
    files = source.rglob("*") if source.is_dir() else [source]
    size = sum(path.stat().st_size for path in files if path.is_file())
    try:
        return ModelEntry(name, state, read_spec(source), size, code=executes_code(source))
    except MedAIError as error:
        return ModelEntry(name, state, None, size, str(error))
