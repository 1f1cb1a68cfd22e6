"""The one run that a panel follows at a time: its progress bar, its cancel button, how it ends."""

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from MedAILib.gui.follow import FollowedRun
from MedAILib.gui.messages import Messages
from MedAILib.gui.words import progress_text
from MedAILib.worker.client import JobState


class CurrentRun:
    """A model's run, or its coming or check: each is followed in the same way.

    Args:
        ui: has `progressBar` and `cancelButton`.
        messages: where it says how it stands.
        onChanged: called when a run has begun and when it is over.
    """

    def __init__(self, ui: Any, messages: Messages, onChanged: Callable[[], object]) -> None:
        self.run: FollowedRun | None = None
        self._ui, self._messages, self._onChanged = ui, messages, onChanged
        ui.cancelButton.connect("clicked(bool)", self.onCancelButton)

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and not self.run.finished

    def follow(self, begin: Callable[..., FollowedRun | None], onDone: Callable[[Any], object]) -> FollowedRun | None:
        """Begin a run and follow it, where there is one.

        Args:
            begin: takes the listeners `onDone`, `onError` and `onProgress`; None is no run.
            onDone: called with what the run made.

        Raises:
            MedAIError: the run was refused.
        """
        run = begin(onDone=lambda made: self._done(onDone, made), onError=self._onError, onProgress=self._onProgress)
        if run is not None:
            self.run = run
            self._onChanged()
        return run

    def cancel(self) -> None:
        """Stop the run; returns at once."""
        if self.run is not None:
            self.run.cancel()

    def onCancelButton(self) -> None:
        if self.run is not None:
            self.run.cancel()
            self._messages.say(_("Cancelling"))

    def _done(self, onDone: Callable[[Any], object], made: Any) -> None:
        onDone(made)
        self._onChanged()

    def _onProgress(self, state: JobState) -> None:
        bar, running = self._ui.progressBar, not state.finished
        bar.visible = running
        bar.maximum = state.total if state.total > 1 else 0
        bar.value = state.done
        self._messages.say(progress_text(state))
        if not running:
            for warning in state.warnings:
                self._messages.log(warning)
            self._onChanged()

    def _onError(self, error: Exception) -> None:
        self._onChanged()
        if self.run is not None and self.run.dropped:
            self._messages.tell(str(error))
        else:
            self._messages.show(error)
