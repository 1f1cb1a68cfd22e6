"""How long work says where it is, and how it is told to stop."""


class Cancelled(Exception):
    """The user asked to stop. No `RuntimeError`: libraries that catch those and start over must not catch this."""


class Progress:
    """Receives steps of long work; this base class is silent and never cancels.

    Example::

        for done, window in enumerate(windows):
            progress.step(done, len(windows), "Segmenting")
    """

    def step(self, done: int, total: int, text: str = "") -> None:
        """Report that `done` of `total` units of the stage `text` are finished.

        Raises:
            Cancelled: the user asked to stop; the caller lets it pass.
        """

    def warn(self, text: str) -> None:
        """Tell the user something that changes how far the result can be trusted."""


class Cancellable(Progress):
    """A silent progress that stops the work at its next step once `cancel` was called."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def step(self, done: int, total: int, text: str = "") -> None:
        if self.cancelled:
            raise Cancelled
