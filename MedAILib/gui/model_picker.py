"""The list in which the user searches and picks a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from MedAILib.gui.model_description import description, state_text
from MedAILib.gui.models import ModelEntry, entry
from MedAILib.gui.words import size_text
from MedAILib.spec import ModelSpec


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
            self._list.addItem(f"{model.title}  ({', '.join(filter(None, [state_text(model), *about]))})")
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

    def askForFolder(self) -> None:
        """Let the user open a model that lies in a folder."""
        folder = qt.QFileDialog.getExistingDirectory(self._list, _("Folder of a model"))
        if folder:
            self.choose(str(Path(folder)))
            self._tell()

    def askForArchive(self) -> str:
        """Let the user choose a model's archive; its path, empty where none was chosen."""
        kinds = _("Models") + " (*.zip *.tar.gz *.tgz *.ts *.pt)"
        chosen = qt.QFileDialog.getOpenFileName(self._list, _("Archive of a model"), "", kinds)
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


def _count(spec: ModelSpec) -> str:
    """How many structures or classes a model knows, or its task where it has neither."""
    if spec.classes is not None:
        return _("{count} classes").format(count=len(spec.classes.names))
    return spec.task if spec.task != "segmentation" else _("{count} structures").format(count=len(spec.labels))
