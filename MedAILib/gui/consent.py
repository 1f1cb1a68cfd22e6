"""What the user is asked before a run: whether a model's own code may run, whether to run in spite of warnings."""

from collections.abc import Sequence

from slicer.i18n import tr as _

from MedAILib.gui.ask import ask, nobody_waits
from MedAILib.gui.messages import Messages
from MedAILib.gui.trust import allow, untrusted_scripts


def is_allowed(model: str, messages: Messages) -> bool:
    """Whether a model may run: one that executes code of its own only with the user's word, asked for once.

    Raises:
        SpecError: the user's list of allowed code can't be read.
    """
    for script in untrusted_scripts(model):
        with nobody_waits():
            allowed = ask(script.question(), _("Allow it"), _("Don't run"), _("MedAI: a model's own code"))
        if not allowed:
            return False
        allow(script)
        messages.log(_("You allow {model} to execute its code.").format(model=script.source))
    return True


def runs_all_the_same(warnings: Sequence[str], messages: Messages) -> bool:
    """Whether the user wants a run in spite of what speaks against it; asked in one box."""
    for text in warnings:
        messages.log(text)
    with nobody_waits():
        return ask("\n\n".join(warnings), _("Run all the same"), _("Don't run"), _("MedAI: before the run"))
