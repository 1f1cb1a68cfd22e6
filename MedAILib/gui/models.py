"""Which models there are, what each says of itself, and the list in which the user searches and picks one."""

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import qt
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.trust import executes_code
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


def licence_question(known: Entry) -> str:
    """What the user is asked before a model is downloaded."""
    size = size_text(known.remote.size) if known.remote.size else _("an unknown size")
    host = urlsplit(known.remote.address).hostname
    texts = [
        _("{model}, {size}, is downloaded from {host}.").format(model=known.title or known.name, size=size, host=host),
        _("Its licence: {licence}").format(licence=known.licence.in_words()),
    ]
    if known.intended_use:
        texts.append(_("Its author says: {words}").format(words=known.intended_use))
    return "\n\n".join(texts)


def entry(name: str, source: Path, state: str) -> ModelEntry:
    """What the list shows of a model; one that can't be read is shown with the reason."""
    files = source.rglob("*") if source.is_dir() else [source]
    size = sum(path.stat().st_size for path in files if path.is_file())
    try:
        return ModelEntry(name, state, read_spec(source), size, code=executes_code(source))
    except MedAIError as error:
        return ModelEntry(name, state, None, size, str(error))


def description(model: ModelEntry) -> str:
    """What a model says of itself, as HTML; nothing in it is taken for markup."""
    spec = model.spec
    if model.offer is not None:
        return _table(model, _offered(model, model.offer))
    if spec is None:
        return f"<b>{html.escape(model.title)}</b><p>{html.escape(model.fault)}</p>"
    asks = _("This model runs only by executing code of its own. You are asked before it does.")
    return _table(model, _facts(model, spec), (*((asks,) if model.code else ()), *spec.warnings))


def _table(model: ModelEntry, facts: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    rows = [(title, text) for title, text in facts if text]
    table = "".join(f"<tr><td><b>{title}</b>&nbsp;</td><td>{html.escape(text)}</td></tr>" for title, text in rows)
    note = _("Note:")
    warnings = "".join(f"<p><b>{note}</b> {html.escape(text)}</p>" for text in notes)
    return f"<b>{html.escape(model.title)}</b>{warnings}<table>{table}</table>"


def _offered(model: ModelEntry, offer: Entry) -> Iterator[tuple[str, str]]:
    yield _("State"), f"{_state(model)}: {model.fault}" if model.fault else _("not on this computer yet")
    yield _("Task"), offer.description or ""
    yield _("Image"), ", ".join(filter(None, (offer.modality, *offer.channels)))
    yield _("Finds"), _names(offer.labels)
    yield _("Licence"), offer.licence.in_words()
    yield _("Use"), offer.intended_use or ""
    yield _("Version"), offer.version
    yield (
        _("Size"),
        _("{size} to download").format(size=size_text(model.size_bytes))
        if model.size_bytes
        else _("unknown until it comes"),
    )


def _names(names: Sequence[str]) -> str:
    some = ", ".join(names[:SHOWN_LABELS])
    left = len(names) - SHOWN_LABELS
    return _("{names} and {count} more").format(names=some, count=left) if left > 0 else some


def _facts(model: ModelEntry, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    yield _("Task"), spec.description or spec.task
    yield _("Image"), ", ".join(filter(None, (spec.modality, *spec.channels)))
    yield _("Finds"), _names([label.name for label in spec.labels])
    yield from _decides(spec.classes) if spec.classes is not None else ()
    yield _("Licence"), spec.licence
    yield _("Made by"), spec.authors
    yield _("Use"), spec.intended_use
    yield _("Version"), spec.version
    yield _("Size"), f"{size_text(model.size_bytes)}, {_state(model)}"
    yield _("Lies in"), str(spec.source) if model.state != "built in" else ""


def _state(model: ModelEntry) -> str:
    """The model's state in the user's language."""
    return {
        "built in": _("built in"),
        "installed": _("installed"),
        "from a folder": _("from a folder"),
        "from a file": _("from a file"),
        "can be downloaded": _("can be downloaded"),
        "does not run": _("does not run"),
    }[model.state]


def _decides(classes: Classes) -> Iterator[tuple[str, str]]:
    """What a classifier says of its answers."""
    yield _("Decides"), f"{_names(classes.names)} ({classes.kind})"
    if classes.dimensions == 2:
        yield _("Takes"), _("sequences of pictures") if classes.sequence else _("pictures")
    else:
        yield _("Takes"), _("sequences of volumes") if classes.sequence else _("volumes")
    yield _("Also wants"), ", ".join(covariate.name for covariate in classes.covariates)
    strange = classes.out_of_distribution
    if strange is not None:
        limit = _("{method} {threshold}, validated on: {images}")
        images = strange.validated_on or _("unsaid")
        yield (
            _("Not sure above"),
            limit.format(method=strange.method, threshold=f"{strange.threshold:g}", images=images),
        )


def _count(spec: ModelSpec) -> str:
    """How many structures or classes a model knows, or its task where it has neither."""
    if spec.classes is not None:
        return _("{count} classes").format(count=len(spec.classes.names))
    return spec.task if spec.task != "segmentation" else _("{count} structures").format(count=len(spec.labels))


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
                about = [spec.modality, _count(spec)] if spec else [_("can't be read")]
            self._list.addItem(f"{model.title}  ({', '.join(filter(None, [_state(model), *about]))})")
            self._list.item(row).setToolTip(model.name)
        self._setting = False
        self._filter()
        self.choose(current.name if current else "")

    def current(self) -> ModelEntry | None:
        """The chosen model."""
        row = self._list.currentRow
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def choose(self, name: str) -> None:
        """Choose a model by name without telling; what is no model of the list is added where it is a path."""
        row = next((n for n, model in enumerate(self._entries) if model.name == name), None)
        if row is None and name and Path(name).exists():
            state = "from a folder" if Path(name).is_dir() else "from a file"
            self.fill([*self._entries, entry(name, Path(name), state)])
            row = next(n for n, model in enumerate(self._entries) if model.name == name)
        self._setting = True
        self._list.setCurrentRow(-1 if row is None else row)
        self._setting = False
        self._describe()

    def askForFolder(self, parent: Any) -> None:
        """Let the user open a model that lies in a folder."""
        folder = qt.QFileDialog.getExistingDirectory(parent, _("Folder of a model"))
        if folder:
            self.choose(str(Path(folder)))
            self._tell()

    def askForArchive(self, parent: Any) -> str:
        """Let the user choose a model's archive; its path, empty where none was chosen."""
        kinds = _("Models") + " (*.zip *.tar.gz *.tgz *.ts *.pt)"
        chosen = qt.QFileDialog.getOpenFileName(parent, _("Archive of a model"), "", kinds)
        return str(Path(chosen)) if chosen else ""

    def _filter(self, *arguments: Any) -> None:
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
