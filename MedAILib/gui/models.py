"""Which models there are, what each says of itself, and the list in which the user searches and picks one."""

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import qt

from MedAILib.errors import MedAIError
from MedAILib.gui.words import size_text
from MedAILib.models.store import builtin_models
from MedAILib.read_spec import read_spec
from MedAILib.spec import Classes, ModelSpec
from MedAILib.store.catalogue import Entry, catalogue
from MedAILib.store.record import installed_models

SHOWN_LABELS = 12


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list.

    Args:
        name: what a run calls the model: its name, or its path.
        state: "built in", "installed", "from a folder", "can be downloaded", "does not run".
        spec: what it says of itself; None where that can't be read.
        size_bytes: of its files.
        fault: why it can't be read, or run.
        offer: what the catalogue says of a model that is not here yet.
    """

    name: str
    state: str
    spec: ModelSpec | None
    size_bytes: int
    fault: str = ""
    offer: Entry | None = None

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


def licence_question(known: Entry) -> str:
    """What the user is asked before a model is downloaded."""
    size = f"{size_text(known.remote.size)}" if known.remote.size else "an unknown size"
    host = urlsplit(known.remote.address).hostname
    return (
        f"{known.title or known.name}, {size}, is downloaded from {host}.\n\nIts licence: {known.licence.in_words()}"
        + (f"\n\nIts author says: {known.intended_use}" if known.intended_use else "")
    )


def entry(name: str, source: Path, state: str) -> ModelEntry:
    """What the list shows of a model; one that can't be read is shown with the reason."""
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) if source.is_dir() else 0
    try:
        return ModelEntry(name, state, read_spec(source), size)
    except MedAIError as error:
        return ModelEntry(name, state, None, size, str(error))


def description(model: ModelEntry) -> str:
    """What a model says of itself, as HTML; nothing in it is taken for markup."""
    spec = model.spec
    if model.offer is not None:
        return _table(model, _offered(model, model.offer))
    if spec is None:
        return f"<b>{html.escape(model.title)}</b><p>{html.escape(model.fault)}</p>"
    return _table(model, _facts(model, spec), spec.warnings)


def _table(model: ModelEntry, facts: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    rows = [(title, text) for title, text in facts if text]
    table = "".join(f"<tr><td><b>{title}</b>&nbsp;</td><td>{html.escape(text)}</td></tr>" for title, text in rows)
    warnings = "".join(f"<p><b>Note:</b> {html.escape(text)}</p>" for text in notes)
    return f"<b>{html.escape(model.title)}</b>{warnings}<table>{table}</table>"


def _offered(model: ModelEntry, offer: Entry) -> Iterator[tuple[str, str]]:
    yield "State", f"{model.state}: {model.fault}" if model.fault else "not on this computer yet"
    yield "Task", offer.description or ""
    yield "Image", ", ".join(filter(None, (offer.modality, *offer.channels)))
    yield "Finds", _names(offer.labels)
    yield "Licence", offer.licence.in_words()
    yield "Use", offer.intended_use or ""
    yield "Version", offer.version
    yield "Size", f"{size_text(model.size_bytes)} to download" if model.size_bytes else "unknown until it comes"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
    return ", ".join(names[:SHOWN_LABELS]) + more


def _facts(model: ModelEntry, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    yield "Task", spec.description or spec.task
    yield "Image", ", ".join(filter(None, (spec.modality, *spec.channels)))
    yield "Finds", _names([label.name for label in spec.labels])
    yield from _decides(spec.classes) if spec.classes is not None else ()
    yield "Licence", spec.licence
    yield "Made by", spec.authors
    yield "Use", spec.intended_use
    yield "Version", spec.version
    yield "Size", f"{size_text(model.size_bytes)}, {model.state}"


def _decides(classes: Classes) -> Iterator[tuple[str, str]]:
    """What a classifier says of its answers."""
    yield "Decides", f"{_names(classes.names)} ({classes.kind})"
    yield (
        "Takes",
        ("sequences of " if classes.sequence else "") + ("pictures" if classes.dimensions == 2 else "volumes"),
    )
    yield "Also wants", ", ".join(covariate.name for covariate in classes.covariates)
    strange = classes.out_of_distribution
    if strange is not None:
        yield (
            "Not sure above",
            f"{strange.method} {strange.threshold:g}, validated on: {strange.validated_on or 'unsaid'}",
        )


def _count(spec: ModelSpec) -> str:
    if spec.classes is not None:
        return f"{len(spec.classes.names)} classes"
    return spec.task if spec.task != "segmentation" else f"{len(spec.labels)} structures"


class ModelPicker:
    """A search line, the list of models and the description of the chosen one, joined.

    Args:
        search: a line edit.
        models: a QListWidget.
        details: a QTextBrowser.
        onPicked: told when the user picks another model.
    """

    def __init__(self, search: Any, models: Any, details: Any, onPicked: Callable[[ModelEntry], object]) -> None:
        self._search, self._list, self._details, self._onPicked = search, models, details, onPicked
        self._entries: list[ModelEntry] = []
        self._setting = False
        search.connect("textChanged(QString)", self._filter)
        models.connect("currentRowChanged(int)", self._rowChanged)

    def fill(self, entries: list[ModelEntry]) -> None:
        """Show these models; the chosen one stays chosen where it is among them."""
        current = self.current()
        self._setting = True
        self._list.clear()
        self._entries = sorted(entries, key=lambda model: (model.offer is not None, model.title.lower()))
        for row, model in enumerate(self._entries):
            spec = model.spec
            if model.offer is not None:
                about = [model.offer.modality or "", size_text(model.size_bytes) if model.size_bytes else ""]
            else:
                about = [spec.modality, _count(spec)] if spec else ["can't be read"]
            self._list.addItem(f"{model.title}  ({', '.join(filter(None, [model.state, *about]))})")
            self._list.item(row).setToolTip(model.name)
        self._setting = False
        self._filter()
        self.choose(current.name if current else "")

    def current(self) -> ModelEntry | None:
        """The chosen model."""
        row = self._list.currentRow
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def choose(self, name: str) -> None:
        """Choose a model by name without telling; what is no model of the list is added as a folder, if it is one."""
        row = next((n for n, model in enumerate(self._entries) if model.name == name), None)
        if row is None and name and Path(name).is_dir():
            self.fill([*self._entries, entry(name, Path(name), "from a folder")])
            row = next(n for n, model in enumerate(self._entries) if model.name == name)
        self._setting = True
        self._list.setCurrentRow(-1 if row is None else row)
        self._setting = False
        self._describe()

    def askForFolder(self, parent: Any) -> None:
        """Let the user open a model that lies in a folder."""
        folder = qt.QFileDialog.getExistingDirectory(parent, "Folder of a model")
        if folder:
            self.choose(str(Path(folder)))
            self._tell()

    def askForArchive(self, parent: Any) -> str:
        """Let the user choose a model's archive; its path, empty where none was chosen."""
        chosen = qt.QFileDialog.getOpenFileName(
            parent, "Archive of a model", "", "Models (*.zip *.tar.gz *.tgz *.ts *.pt)"
        )
        return str(Path(chosen)) if chosen else ""

    def _filter(self, *_: Any) -> None:
        words = self._search.text
        for row, model in enumerate(self._entries):
            self._list.item(row).setHidden(not model.matches(words))

    def _rowChanged(self, row: int) -> None:
        if not self._setting:
            self._describe()
            self._tell()

    def _describe(self) -> None:
        model = self.current()
        self._details.setHtml(description(model) if model else "")

    def _tell(self) -> None:
        model = self.current()
        if model is not None:
            self._onPicked(model)
