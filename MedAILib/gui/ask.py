"""Questions to the user, in a message box of Slicer."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ctk
import qt
import slicer.util


def ask(text: str, yes: str, no: str, title: str) -> bool:
    """Whether the user agrees; True without a question while Slicer tests itself, as Slicer's own boxes answer then.

    Args:
        text: the question, as plain text.
        yes: what the one button says.
        no: what the other says, which Escape and closing the box mean too.
        title: of the box.
    """
    return choose(text, [yes], no, title) == 0


def choose(text: str, ways: Sequence[str], no: str, title: str) -> int | None:
    """Which of one or two ways to go on the user picks, None for none of them.

    The first without a question while Slicer tests itself, as Slicer's own boxes answer then.

    Args:
        text: the question, as plain text.
        ways: what the buttons say.
        no: what the last button says, which Escape and closing the box mean too.
        title: of the box.
    """
    if slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: chose %s: %s", ways[0], text)
        return 0
    buttons = [qt.QMessageBox.Ok, qt.QMessageBox.YesToAll][: len(ways)]
    box = ctk.ctkMessageBox(slicer.util.mainWindow())
    box.windowTitle = title
    box.icon = qt.QMessageBox.Warning
    box.textFormat = qt.Qt.PlainText
    box.text = text
    shown = qt.QMessageBox.Cancel
    for button in buttons:
        shown = shown | button
    box.setStandardButtons(shown)
    for button, says in zip(buttons, ways, strict=True):
        box.button(button).text = says
    box.button(qt.QMessageBox.Cancel).text = no
    box.setDefaultButton(qt.QMessageBox.Cancel)
    try:
        answer = box.exec_()
        return next((number for number, button in enumerate(buttons) if answer == button), None)
    finally:
        box.deleteLater()


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Take the waiting cursor away while a question is open, in the midst of starting a run."""
    slicer.app.restoreOverrideCursor()
    try:
        yield
    finally:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
