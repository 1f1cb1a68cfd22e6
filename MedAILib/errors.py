"""The errors that are the user's to mend: each carries one sentence that says what is wrong and what to do."""


class MedAIError(ValueError):
    """Base of all errors that MedAI raises on purpose; the command line prints its text and exits with 2."""


class GeometryError(MedAIError):
    """A grid that has no honest place in the patient: sheared, degenerate, not finite."""


class InputError(MedAIError):
    """An image, a node or an option that can't be used as given."""


class SpecError(MedAIError):
    """A model's description is missing, unreadable or contradicts itself."""


class ModelError(MedAIError):
    """A model whose description reads well cannot be built or its weights don't fit."""


class UntrustedCodeError(ModelError):
    """A model that could only run by executing code that the user has not agreed to."""


class DownloadError(MedAIError):
    """A model can't be fetched from an address, or what came is not what was promised."""


class DeviceError(MedAIError):
    """The computing device that was asked for does not exist here."""


class OutputError(MedAIError):
    """A result can't be written where it was asked for."""


class ToldError(MedAIError):
    """What another process of the same command has told the user already; this one ends without a word."""
