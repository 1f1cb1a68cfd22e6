"""What is said before a run: nothing about images that a model was made for, a sentence about each that it was not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrml import rotation

from MedAILib.checks import MemoryNeed, concerns_before_run
from MedAILib.commands.demo import SIDES, read_template
from MedAILib.files.images import read_image
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.results import Label
from MedAILib.spec import ModelSpec
from MedAILib.volume import Geometry, Roi, Volume

SHAPE = (40, 44, 48)
CT = ModelSpec(
    "spleen", "1", "segmentation", Path(), "", "", ("image",), (Label(1, "spleen"),), "CT", "RAS", (1.5, 1.5, 2.0),
    (32, 32, 32),
)  # fmt: skip
MR = replace(CT, name="brain", modality="MRI", spacing_mm=(1.0, 1.0, 1.0))
CROP = replace(MR, warnings=("Wants a crop of about 30 mm: give a region of interest.", "For research use only."))


def hounsfield(shape=SHAPE):
    values = np.random.default_rng(0).integers(-100, 300, shape).astype(np.int16)
    values[:, :4] = -1000
    return values


def positive(shape=SHAPE):
    return np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)


def volume(data, spacing=(1.5, 1.5, 2.0), modality=None, matrix=None):
    geometry = Geometry(data.shape, np.diag([*spacing, 1.0]) if matrix is None else matrix)
    return Volume(data[None], geometry, "scan", {"Modality": modality} if modality else {})


def texts(image, spec, roi=None, memory=None):
    return [concern.text for concern in concerns_before_run(image, spec, RunOptions(roi=roi), memory)]


def only(image, spec, roi=None, memory=None):
    """The one concern that there is."""
    (concern,) = concerns_before_run(image, spec, RunOptions(roi=roi), memory)
    return concern


def test_image_that_the_model_was_made_for_gives_no_concern():
    assert texts(volume(hounsfield()), CT) == texts(volume(hounsfield(), modality="CT"), CT) == []
    assert texts(volume(positive(), (1, 1, 1), "MR"), MR) == texts(volume(positive(), (1, 1, 1)), MR) == []


def test_model_that_says_nothing_of_itself_gives_no_concern():
    assert texts(volume(positive()), replace(CT, modality="", orientation=None, spacing_mm=None, patch=None)) == []


def test_training_crops_of_the_built_in_model_give_no_concern(shared_data, hippocampus):
    spec = read_spec(hippocampus)
    paths = sorted((shared_data / "hippocampus").rglob("images*/*.nii.gz"))
    assert len(paths) > 200
    for path in paths:
        assert texts(read_image(path), spec) == [], path


def test_demo_gives_no_concern(hippocampus):
    template, spec = read_template(), read_spec(hippocampus)
    for roi, _ in SIDES.values():
        assert texts(template, spec, roi) == []


def test_whole_head_without_a_region_gives_the_models_own_words(hippocampus):
    spec = read_spec(hippocampus)
    assert only(read_template(), spec).text.endswith(spec.warnings[0])


def test_real_ct_gives_no_concern_to_a_ct_model(shared_data):
    ct = read_image(shared_data / "ct" / "chest_abdomen_ct_3mm.nii.gz")
    assert texts(ct, CT) == []
    assert any("look like Hounsfield units of a CT" in text for text in texts(ct, replace(MR, spacing_mm=(2, 2, 2))))


def test_modality_of_the_header_counts_first():
    assert "modality MR, the model spleen is for CT" in only(volume(hounsfield(), modality="MR"), CT).text
    assert "modality CT, the model brain is for MRI" in only(volume(positive(), (1, 1, 1), "CT"), MR).text


@pytest.mark.parametrize("values", [positive(), (positive() / 900).astype(np.float32), hounsfield() + 1024])
def test_ct_model_warns_of_values_that_are_no_hounsfield_units(values):
    assert "no Hounsfield units" in only(volume(values), CT).text


def test_mr_model_warns_of_hounsfield_units():
    assert "look like Hounsfield units" in only(volume(hounsfield(), (1, 1, 1)), MR).text


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),
        np.random.default_rng(0).integers(-4096, 4096, SHAPE).astype(np.int16),
        positive() - 50,
    ],
)
def test_mr_values_below_zero_are_no_ct(values):
    assert texts(volume(values, (1, 1, 1)), MR) == []


def test_thick_slices_are_named_with_their_factor():
    concern = only(volume(hounsfield(), (0.7, 0.7, 6.5)), replace(CT, patch=None))
    assert concern.severity == "warning"
    assert "0.7 x 0.7 x 6.5 mm, are up to 3.2 times as far apart" in concern.text


def test_spacing_is_compared_along_the_models_axes():
    """Sagittal slices of 6 mm: their normal is R, the model's first axis; its third is S, where 6 mm would be fine."""
    sagittal = np.array([[0, 0, 6, 0], [1.5, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1.0]])
    spec = replace(CT, spacing_mm=(1.5, 1.5, 6.0), patch=None)
    assert "6 x 1.5 x 1.5 mm, are up to 4.0 times" in only(volume(hounsfield(), matrix=sagittal), spec).text
    assert texts(volume(hounsfield(), (1.5, 1.5, 6.0)), spec) == []


def test_spacing_in_the_wrong_unit_is_noticed():
    assert "check the unit" in only(volume(positive(), (0.02, 0.02, 0.02)), replace(MR, patch=None)).text


def test_image_smaller_than_half_of_the_window():
    concern = only(volume(hounsfield((12, 44, 48))), CT)
    assert "scan is 72 x 66 x 24 mm large, less than half of the window of 48 x 48 x 64 mm" in concern.text


def test_region_smaller_than_half_of_the_window():
    roi = Roi((36, 33, 40), (40, 40, 20))
    assert only(volume(hounsfield()), CT, roi).text.startswith("The region of interest is")


def test_large_image_matters_where_the_model_wants_a_crop():
    image = volume(positive((90, 80, 70)), (1, 1, 1))
    assert only(image, CROP).text == "scan is 70 x 80 x 90 mm large. " + CROP.warnings[0]
    assert texts(image, MR) == []
    assert texts(image, CROP, Roi((35, 40, 45), (32, 32, 32))) == []


def test_network_that_takes_the_images_own_size():
    assert texts(volume(hounsfield()), replace(CT, spacing_mm=(-1, 0, 2.0), patch=(-1, 32, 0))) == []
    assert texts(volume(hounsfield()), replace(CT, spacing_mm=None, patch=(32, 32), orientation=None)) == []


def test_channels_that_do_not_fit_stop_the_run():
    concern = only(volume(hounsfield()), replace(CT, channels=("T1", "T2")))
    assert concern.severity == "stop"
    assert "scan has 1 channel, the model spleen takes 2: T1, T2" in concern.text


def test_nan_stops_the_run():
    values = hounsfield().astype(np.float32)
    values[3, 4, 5], values[-1, -1, -1] = np.nan, np.inf
    concern = only(volume(values), CT)
    assert (concern.severity, concern.text[:40]) == ("stop", "scan has 2 NaN or infinite voxels; repla")


def test_constant_image_stops_the_run():
    concern = only(volume(np.full(SHAPE, 7, np.int16)), CT)
    assert concern.severity == "stop"
    assert "the value 7 in every voxel" in concern.text


def test_few_voxels():
    assert "Only 125 voxels of scan" in only(volume(hounsfield((5, 5, 5))), replace(CT, patch=None)).text


def test_region_beside_the_image_stops_the_run():
    concern = only(volume(hounsfield()), CT, Roi((500, 0, 0), (50, 50, 50)))
    assert concern.severity == "stop"
    assert "lies outside the image" in concern.text


def test_region_partly_beside_the_image():
    concern = only(volume(hounsfield()), CT, Roi((0, 33, 40), (80, 50, 70)))
    assert concern.severity == "warning"
    assert concern.text.startswith("50 % of the region of interest lie outside of scan")


def test_region_a_little_larger_than_the_image_is_fine():
    assert texts(volume(hounsfield()), CT, Roi((36, 33, 40), (76, 70, 84))) == []


def test_memory():
    need = MemoryNeed(3 * 2**30, 2**30)
    assert "needs about 3.0 GiB of memory, and 1.0 GiB are free" in only(volume(hounsfield()), CT, memory=need).text
    assert texts(volume(hounsfield()), CT, memory=MemoryNeed(2**30, 3 * 2**30)) == []


@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3),
    st.floats(-30, 30),
)
def test_orientation_of_the_image_gives_no_concern(order, signs, degrees):
    """Left-handed, oblique and permuted grids are nothing to warn of."""
    spacing = (1.5, 1.5, 2.0)
    matrix = np.zeros((4, 4))
    for column, row in enumerate(order):
        matrix[row, column] = signs[column] * spacing[row]
    matrix[3, 3] = 1
    assert texts(volume(hounsfield(), matrix=rotation((1, 2, 3), degrees) @ matrix), CT) == []
