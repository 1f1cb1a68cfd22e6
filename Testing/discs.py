"""Small labelled pictures that the tests of training make: noise with a bright disc."""

from pathlib import Path

import nibabel
import numpy as np
import PIL.Image

SIZE = (40, 32)  # rows, columns


def write_discs(folder: Path, kind: str = "grey", count: int = 6, inside: int = 255) -> Path:
    """Pictures and labels.

    Args:
        folder: gets `images` and `labels`.
        kind: "grey" or "colour" (PNG), "jpeg", or "nifti" (one slice, pixels of 0.5 mm).
        count: how many.
        inside: the label's value in the disc.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        center = np.array(SIZE) / 2 + rng.uniform(-6, 6, 2)
        disc = np.hypot(rows - center[0], columns - center[1]) < 7
        grey = (rng.normal(60, 15, SIZE) + disc * 90).clip(0, 255).astype(np.uint8)
        label = (disc * inside).astype(np.uint8)
        for name, values in (("images", grey), ("labels", label)):
            file = folder / name / f"disc_{number}"
            if kind == "nifti":
                image = nibabel.Nifti1Image(np.ascontiguousarray(values.T)[:, :, None], np.diag([0.5, 0.5, 3, 1]))
                nibabel.save(image, file.with_suffix(".nii.gz"))
            elif kind == "colour" and name == "images":
                PIL.Image.fromarray(np.stack([grey, grey // 2, 255 - grey], -1)).save(file.with_suffix(".png"))
            else:
                ending = ".jpg" if kind == "jpeg" and name == "images" else ".png"
                PIL.Image.fromarray(values).save(file.with_suffix(ending))
    return folder
