"""What a panel says: its status line, its log, message boxes of errors, and diagnostics for the clipboard."""

import logging
import time
from collections.abc import Callable
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from MedAILib.worker.client import WorkerDefect


class Messages:
    """Where all that a panel has to say goes.

    Args:
        ui: has `statusLabel`, `logText` and `copyDiagnosticsButton`.
        diagnostics: makes the text to be sent with a question, of the log so far.
    """

    def __init__(self, ui: Any, diagnostics: Callable[[str], str]) -> None:
        self._ui, self._diagnostics = ui, diagnostics
        ui.copyDiagnosticsButton.connect("clicked(bool)", self.onCopyDiagnosticsButton)

    def onCopyDiagnosticsButton(self) -> None:
        qt.QApplication.clipboard().setText(self._diagnostics(self._ui.logText.toPlainText()))
        self.say(_("The diagnostics are on the clipboard."))

    def say(self, text: str) -> None:
        """Say how things stand now."""
        self._ui.statusLabel.text = text

    def log(self, text: str) -> None:
        """Take down what has happened, with the time."""
        self._ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {text}")
        logging.info(text)

    def tell(self, text: str) -> None:
        """Say it and take it down."""
        self.say(text)
        self.log(text)

    def show(self, error: Exception) -> None:
        """Say what went wrong in the panel and in a message box, which does not keep the timer waiting."""
        text = str(error)
        if isinstance(error, WorkerDefect):
            summary = _("The run failed by a defect of MedAI or of a library. The log has the details.")
        else:
            summary = text.partition("\nIts last words:")[0]
        self.say(summary)
        self.log(text)
        details = {"detailedText": text} if summary != text else {}
        qt.QTimer.singleShot(0, lambda: slicer.util.errorDisplay(summary, **details))
