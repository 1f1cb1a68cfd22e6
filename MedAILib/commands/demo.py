"""`medai demo`: both hippocampi of the ICBM 152 T1 template, which the pip package nilearn ships."""

import argparse
from pathlib import Path

import nilearn
import numpy as np

from MedAILib.commands.outputs import Outcome, write_outcome
from MedAILib.commands.targets import Targets, writable
from MedAILib.errors import InputError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Roi, Volume

TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
# Boxes of the size that the model was trained on, around the hippocampi in MNI space (Talairach-like RAS, mm).
SIDES = {
    "right": (Roi((27.0, -22.0, -12.0), (36.0, 52.0, 36.0)), Code("SCT", "24028007", "Right")),
    "left": (Roi((-27.0, -22.0, -12.0), (36.0, 52.0, 36.0)), Code("SCT", "7771000", "Left")),
}
# One colour for each side and part, from light to dark orange and blue.
COLORS = {
    ("right", 1): (0.93, 0.53, 0.18),
    ("right", 2): (0.98, 0.76, 0.36),
    ("left", 1): (0.16, 0.50, 0.73),
    ("left", 2): (0.42, 0.73, 0.90),
}


def run_demo(options: argparse.Namespace, progress: Progress) -> None:
    """Segment the template, and write scene, segmentation, label map, table and picture into a folder.

    Raises:
        InputError: the template is not where nilearn keeps it.
        OutputError: the folder can't be written.
    """
    targets = Targets(
        label_map=options.output / "labels.nii.gz",
        segmentation=options.output / "segmentation.seg.nrrd",
        scene=options.output / "scene.mrb",
        table=options.output / "volumes.csv",
        picture=options.output / "picture.png",
    )
    with writable(targets):
        volume = read_template()
        segmentation = segment_both_sides(volume, progress)
        write_outcome(Outcome(volume, segmentation, "Hippocampi of the ICBM 152 template"), targets, progress)
    if not options.quiet:
        for row in segment_statistics(segmentation, volume):
            print(f"{row.name:<30} {row.volume_ml:6.2f} mL")
        print(f"Written to {options.output}: {', '.join(path.name for path in targets.named().values())}")


def read_template() -> Volume:
    """The ICBM 152 2009a symmetric T1 template at 1 mm (Fonov et al., NeuroImage 54, 2011), without the skull."""
    path = Path(nilearn.__file__).parent / "datasets" / "data" / TEMPLATE
    if not path.is_file():
        raise InputError(f"The package nilearn has no {TEMPLATE}; install the version that MedAI's constraints name.")
    return read_image(path)


def segment_both_sides(volume: Volume, progress: Progress) -> Segmentation:
    """Run the built-in model in a box on each side, and give the four parts names of their own."""
    model = open_model(find_model("hippocampus"), "auto")
    layers = np.zeros((1, *volume.geometry.shape_kji), np.uint8)
    labels: list[Label] = []
    provenance: dict[str, str] = {}
    for side, (roi, code) in SIDES.items():
        part = model.run(volume, RunOptions(roi=roi, mirror=True), progress)
        provenance = part.provenance | {"option.roi": "both sides: " + ", ".join(str(r) for r, _ in SIDES.values())}
        for label in part.labels:
            value = len(labels) + 1
            layers[0][part.mask(label)] = value
            known = label.terminology
            terminology = Terminology(known.category, known.type, code) if known else None
            name = f"{side} hippocampus, {label.name}"
            labels.append(Label(value, name, COLORS[side, label.value], terminology))
    return Segmentation(layers, tuple(labels), volume.geometry, provenance=provenance)
