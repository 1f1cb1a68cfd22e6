"""Questions to the user, in a message box of Slicer."""

import logging

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
    if slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: agreed to: %s", text)
        return True
    box = ctk.ctkMessageBox(slicer.util.mainWindow())
    box.windowTitle = title
    box.icon = qt.QMessageBox.Warning
    box.textFormat = qt.Qt.PlainText
    box.text = text
    box.setStandardButtons(qt.QMessageBox.Ok | qt.QMessageBox.Cancel)
    box.button(qt.QMessageBox.Ok).text = yes
    box.button(qt.QMessageBox.Cancel).text = no
    box.setDefaultButton(qt.QMessageBox.Cancel)
    try:
        return bool(box.exec_() == qt.QMessageBox.Ok)
    finally:
        box.deleteLater()
