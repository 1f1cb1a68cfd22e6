"""`ctk`: the few widgets of the Common Toolkit that the module files use."""

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin import qt
from standin.qt import Strict, own

_HEADER_PX = 24


@own
class ctkCollapsibleButton(Strict, QtWidgets.QAbstractButton):
    """A titled box that folds; in CTK a button whose content is its layout."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._folded = False
        self._shown: list[Any] = []
        self.setContentsMargins(0, _HEADER_PX, 0, 0)

    def _collapsed(self) -> bool:
        return self._folded

    def setCollapsed(self, folded: bool) -> None:
        if folded != self._folded:
            self._folded = folded
            if folded:
                children = [x for x in self.children() if isinstance(x, QtWidgets.QWidget)]
                self._shown = [x for x in children if not x.isHidden()]
            for child in self._shown:
                child.setVisible(not folded)
            self.contentsCollapsed.emit(folded)

    collapsed = QtCore.Property(bool, _collapsed, setCollapsed)

    def showEvent(self, event: Any) -> None:
        if self._folded:  # folded before its content came
            self._folded = False
            self.setCollapsed(True)
        super().showEvent(event)

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(0, 2, self.width, _HEADER_PX - 4, QtGui.QColor(205, 210, 218))
        box = QtCore.QRect(8, 2, self.width - 16, _HEADER_PX - 4)
        painter.drawText(box, QtCore.Qt.AlignmentFlag.AlignVCenter, ("▸ " if self._folded else "▾ ") + self.text)
        painter.end()

    def sizeHint(self) -> Any:
        return self.layout().sizeHint() if self.layout() and not self._folded else QtCore.QSize(100, _HEADER_PX)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() < _HEADER_PX:
            self.setCollapsed(not self._folded)


@own
class ctkSearchBox(Strict, QtWidgets.QLineEdit):
    """A line for searching, with a picture and a button to clear it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._icon = False

    def _show_icon(self) -> bool:
        return self._icon

    def setShowSearchIcon(self, shown: bool) -> None:
        self._icon = shown

    showSearchIcon = QtCore.Property(bool, _show_icon, setShowSearchIcon)


# Every message box that was shown: its text and its detailed text. What is answered next; "ok" when empty, by the text
# of a button where it is a text.
shown: list[tuple[str, str]] = []
answers: list[bool | str] = []


@own
class ctkMessageBox(Strict, QtWidgets.QMessageBox):
    """Keeps what it would have shown, lets events happen as an open box does, and answers."""

    def exec_(self) -> int:
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 20)
        shown.append((self.text, self.detailedText))
        yes = answers.pop(0) if answers else True
        buttons = qt.QMessageBox.StandardButton
        if isinstance(yes, str):
            (pressed,) = [button for button in self.buttons() if button.text == yes]
            return int(self.standardButton(pressed))
        return int(buttons.Ok if yes else buttons.Cancel)
