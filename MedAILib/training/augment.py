"""From a case's files to training samples: fixed preprocessing, then random changes after nnU-Net's recipe.

Probabilities and ranges follow nnU-Net v2's default trainer (Isensee et al., Nature Methods 18, 2021, supplementary
note 4), as far as MONAI has the transform; rotation and scaling are drawn together and a little more often, because
training here is shorter.
"""

from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
)

from MedAILib.training.task import SegmentationTask

BOTH = ("image", "label")


def fixed_steps(task: SegmentationTask) -> Compose:
    """Files to normalised tensors (C, X, Y, Z), as the exported bundle's preprocessing does it; the label alike."""
    return Compose(
        [
            LoadImaged(BOTH),
            EnsureChannelFirstd(BOTH),
            Orientationd(BOTH, axcodes=task.orientation, labels=None),
            Spacingd(BOTH, pixdim=task.spacing_mm, mode=("bilinear", "nearest")),
            NormalizeIntensityd("image", channel_wise=True),
            EnsureTyped(BOTH, track_meta=False),
        ]
    )


def random_steps(task: SegmentationTask) -> Compose:
    """Normalised tensors to augmented samples of the patch's size."""
    patch = task.patch
    return Compose(
        [
            SpatialPadd(BOTH, spatial_size=patch),
            RandAffined(
                BOTH,
                prob=0.6,
                rotate_range=[0.4] * 3,
                scale_range=[(-0.2, 0.25)] * 3,
                translate_range=[4] * 3,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandSpatialCropd(BOTH, roi_size=patch, random_size=False),
            *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in task.mirror_axes),
            RandGaussianNoised("image", prob=0.15, std=0.3),
            RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)),
            RandScaleIntensityd("image", prob=0.15, factors=0.25),
            RandScaleIntensityFixedMeand("image", prob=0.15, factors=(-0.25, 0.25), preserve_range=True),
            RandSimulateLowResolutiond("image", prob=0.2, zoom_range=(0.5, 1.0)),
            RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), retain_stats=True, invert_image=True),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            EnsureTyped(BOTH, track_meta=False),
        ]
    )
