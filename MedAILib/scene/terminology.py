"""A label's codes as the text in which Slicer keeps a segment's terminology."""

import slicer

from MedAILib.results import Code, Terminology

# Slicer's own lists, which every Slicer has loaded; codes that they lack are kept and shown all the same.
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
# What Slicer gives a segment of which it knows nothing.
_UNKNOWN = Terminology(Code("SCT", "85756007", "Tissue"), Code("SCT", "85756007", "Tissue"))
_RESERVED = str.maketrans({"~": "-", "^": " ", "|": " "})


def terminology_text(terminology: Terminology | None) -> str:
    """The serialised entry, seven parts between tildes; "Tissue" for a label without codes."""
    entry = terminology or _UNKNOWN
    parts = [_CONTEXT, _code(entry.category), _code(entry.type), _code(entry.modifier)]
    return "~".join([*parts, _REGION_CONTEXT, _code(None), _code(None)])


def set_terminology(segment: "slicer.vtkSegment", terminology: Terminology | None) -> None:
    """Give a segment its codes, where Slicer looks for them."""
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_text(terminology))


def _code(code: Code | None) -> str:
    if code is None:
        return "^^"
    return "^".join(text.translate(_RESERVED) for text in (code.scheme, code.value, code.meaning))
