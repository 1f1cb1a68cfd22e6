"""The few Qt classes that the module files use, as PythonQt shows them: properties are plain attributes."""


class Qt:
    """Enumerations."""

    TextSelectableByMouse = 1


class QLabel:
    """A text in the panel."""

    __slots__ = ("text", "wordWrap")

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.wordWrap = False

    def setTextInteractionFlags(self, flags: int) -> None:
        """What the user may do with the text."""


class QVBoxLayout:
    """Keeps what is added to it in `widgets`, for the tests to look at."""

    __slots__ = ("widgets",)

    def __init__(self) -> None:
        self.widgets: list[object] = []

    def addWidget(self, widget: object) -> None:
        self.widgets.append(widget)

    def addStretch(self, stretch: int = 0) -> None:
        """Take up what space is left."""
