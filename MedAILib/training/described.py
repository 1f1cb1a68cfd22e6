"""What every training task says of its model and data, for the model card and the bundle's metadata."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Described:
    """The words of a task, of whatever kind.

    Args:
        name: of the model; letters, digits and underscores.
        version: of the model, as the bundle has it.
        title, description: one line each.
        licence: of the weights, as derived from the data; an SPDX identifier where there is one.
        data_source: whose the data is, and where it is from.
        references: papers to cite.
        warnings: what the model is not for, or does badly, a sentence each.
        modality: DICOM's ("MR", "CT", "US").
    """

    name: str
    version: str = "0.1.0"
    title: str = ""
    description: str = ""
    authors: str = ""
    copyright: str = ""
    licence: str = "unknown"
    data_source: str = "Not told"
    intended_use: str = "Research and teaching. Not a medical device; not for diagnosis or treatment."
    references: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    modality: str = ""
