"""A quick start for processes that run networks and do nothing else."""

import sys

# What MONAI imports, if it is there, for training, plots, statistics, downloads and file formats: half of the time that
# it takes.
NOT_FOR_INFERENCE = (
    "huggingface_hub",
    "ignite",
    "matplotlib",
    "nibabel",
    "pandas",
    "pydicom",
    "requests",
    "scipy.optimize",
    "scipy.signal",
    "skimage",
    "sklearn",
    "tensorboard",
)


def import_monai_for_inference() -> None:
    """Import MONAI without the packages that only its other parts use; they can be imported as ever afterwards.

    In this process MONAI then has no training, no plots and no readers of its own, so this is for programs that need
    none of them to the end; where MONAI is imported already, nothing happens.
    """
    if "monai" in sys.modules:
        return
    hidden = [name for name in NOT_FOR_INFERENCE if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail at once
    try:
        import monai  # noqa: F401, PLC0415
    finally:
        for name in hidden:
            del sys.modules[name]
