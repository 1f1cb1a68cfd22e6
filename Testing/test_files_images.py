"""Image files become volumes and volumes become files, with every voxel in its place."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedAILib.errors import GeometryError, InputError, OutputError
from MedAILib.files.images import (
    read_channels,
    read_image,
    write_label_map,
    write_probabilities,
    write_scalar_volume,
)
from MedAILib.progress import Progress
from MedAILib.results import Label, Segmentation
from MedAILib.volume import Geometry, Volume

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
NUMBERS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


class Warned(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def oblique(angles: tuple[float, float, float] = (10, 20, 5), mirrored: bool = False) -> np.ndarray:
    """An oblique, anisotropic ijk_to_ras."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * (0.7, 1.5, -3 if mirrored else 3)
    matrix[:3, 3] = (-101.5, 22.25, 311.125)
    return matrix


def nifti(path: Path, data: np.ndarray, sform: np.ndarray, **forms: object) -> Path:
    """Write a NIfTI file with nibabel; `forms` are qform, qform_code, sform_code."""
    image = nibabel.Nifti1Image(data, sform, dtype=data.dtype)
    image.set_sform(sform, code=forms.get("sform_code", 1))
    if "qform" in forms:
        image.set_qform(forms["qform"], code=forms.get("qform_code", 1))
    nibabel.save(image, path)
    return path


def segmentation(layers: np.ndarray, matrix: np.ndarray, values: tuple[int, ...] = (1, 2)) -> Segmentation:
    labels = tuple(Label(value, f"part {value}") for value in values)
    return Segmentation(layers, labels, Geometry(layers.shape[1:], matrix))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
def test_nifti_keeps_its_type_values_and_place(tmp_path: Path, kind: str) -> None:
    path = nifti(tmp_path / "a.nii.gz", NUMBERS.astype(kind), oblique())
    volume = read_image(path)
    assert volume.data.dtype == kind
    assert (volume.data[0].transpose(2, 1, 0) == NUMBERS).all()
    assert np.abs(volume.geometry.ijk_to_ras - nibabel.load(path).affine).max() < 1e-4
    assert volume.name == "a.nii.gz"


def test_left_handed_nifti_keeps_its_place(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", NUMBERS, oblique(mirrored=True))
    assert np.abs(read_image(path).geometry.ijk_to_ras - oblique(mirrored=True)).max() < 1e-4


def test_scaled_nifti_gives_scaled_values(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(NUMBERS, oblique())
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    assert np.allclose(read_image(tmp_path / "a.nii.gz").data[0].transpose(2, 1, 0), expected)


def test_nifti_2_is_refused_by_name(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(NUMBERS, oblique()), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="version 2 of NIfTI"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("name", "other"), [("a.nii.gz", "a.nii"), ("a.nii", "a.nii.gz"), ("a.nii.gz", "a.hdr")])
def test_namesake_with_another_ending_is_not_mixed_in(tmp_path: Path, name: str, other: str) -> None:
    """ITK alone takes the voxels of a.nii for those of a.nii.gz."""
    path = nifti(tmp_path / name, NUMBERS, oblique())
    kind = nibabel.Nifti1Pair if other.endswith(".hdr") else nibabel.Nifti1Image
    nibabel.save(kind(NUMBERS + 1000, oblique()), tmp_path / other)
    assert (read_image(path).data[0].transpose(2, 1, 0) == NUMBERS).all()
    assert (read_image(tmp_path / other).data[0].transpose(2, 1, 0) == NUMBERS + 1000).all()


def test_header_and_image_pair_is_read_and_misses_its_half(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(NUMBERS, oblique()), tmp_path / "a.hdr")
    assert read_image(tmp_path / "a.hdr").data.shape == (1, 5, 4, 3)
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r"needs its voxels in a\.img"):
        read_image(tmp_path / "a.hdr")


def test_sheared_nifti_is_refused(tmp_path: Path) -> None:
    sheared = oblique()
    sheared[:3, 0] += 0.2 * sheared[:3, 1]
    with pytest.raises(GeometryError, match=r"a\.nii\.gz: The voxel axes are sheared by .* degrees; resample"):
        read_image(nifti(tmp_path / "a.nii.gz", NUMBERS, sheared))


def test_sheared_sform_with_a_coerced_qform_is_refused(tmp_path: Path) -> None:
    sheared = oblique()
    sheared[:3, 0] += 0.2 * sheared[:3, 1]
    with pytest.raises(GeometryError, match="sheared"):
        read_image(nifti(tmp_path / "a.nii.gz", NUMBERS, sheared, qform=sheared, qform_code=1))


def test_registration_sform_beside_a_scanner_qform_leaves_the_scanner_grid(tmp_path: Path) -> None:
    sheared = oblique((-30, 5, 60))
    sheared[:3, 0] += 0.2 * sheared[:3, 1]
    path = nifti(tmp_path / "a.nii.gz", NUMBERS, sheared, sform_code=4, qform=oblique(), qform_code=1)
    assert np.abs(read_image(path).geometry.ijk_to_ras - oblique()).max() < 1e-4


@pytest.mark.parametrize(("sform_code", "qform_code"), [(1, 1), (2, 1), (1, 2), (4, 1)])
def test_conflicting_forms_are_settled_as_itk_does(tmp_path: Path, sform_code: int, qform_code: int) -> None:
    path = nifti(
        tmp_path / "a.nii.gz",
        NUMBERS,
        oblique(),
        sform_code=sform_code,
        qform=oblique((40, 5, 60)),
        qform_code=qform_code,
    )
    image = sitk.ReadImage(str(path))
    origin = np.array(image.TransformIndexToPhysicalPoint((2, 3, 4))) * (-1, -1, 1)
    warned = Warned()
    assert np.allclose(read_image(path, None, warned).geometry.ras_of([[2, 3, 4]]), origin, atol=1e-6)
    taken = "sform" if np.allclose((oblique() @ (2, 3, 4, 1))[:3], origin, atol=1e-3) else "qform"
    assert len(warned.texts) == 1 and "two places" in warned.texts[0] and f"the {taken}'s was taken" in warned.texts[0]


def test_a_header_that_says_two_voxel_sizes_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(NUMBERS, None)
    image.set_sform(oblique(), code=1)  # and the voxel sizes stay at 1 mm, which ITK would take
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(GeometryError, match=r"by its sform voxels are 0.7 x 1.5 x 3 mm large, .* 1 x 1 x 1 mm"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("size", [0.0, -2.0, np.nan, np.inf])
@pytest.mark.parametrize("forms", [False, True])
def test_voxels_of_no_size_are_refused(tmp_path: Path, size: float, forms: bool) -> None:
    path = nifti(tmp_path / "a.nii", NUMBERS, np.diag([2.0, 2, 3, 1]))
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(size).tobytes()
    content[252:256] = np.array([forms, 0], np.int16).tobytes()
    path.write_bytes(content)
    with pytest.raises(GeometryError, match=rf"voxels are {size:g} x 2 x 3 mm large"):
        read_image(path)


@pytest.mark.parametrize(("unit", "of_a_mm"), [("meter", 1e-3), ("mm", 1), ("micron", 1e3), ("unknown", 1)])
def test_nifti_of_any_unit_comes_in_millimetres(tmp_path: Path, unit: str, of_a_mm: float) -> None:
    matrix = oblique()
    matrix[:3] *= of_a_mm
    image = nibabel.Nifti1Image(NUMBERS, matrix)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(read_image(tmp_path / "a.nii.gz").geometry.ijk_to_ras, oblique(), atol=1e-3)


def test_time_points_become_channels(tmp_path: Path) -> None:
    data = np.stack([NUMBERS, NUMBERS + 100], axis=-1)
    volume = read_image(nifti(tmp_path / "a.nii.gz", data, oblique()))
    assert volume.data.shape == (2, 5, 4, 3)
    assert (volume.data[1] == volume.data[0] + 100).all()


def test_nifti_vectors_become_channels(tmp_path: Path) -> None:
    data = np.stack([NUMBERS, NUMBERS + 100, NUMBERS + 200], axis=-1)[:, :, :, None]
    volume = read_image(nifti(tmp_path / "a.nii.gz", data, oblique()))
    assert (volume.data[2] == volume.data[0] + 200).all()


def test_nrrd_vectors_become_channels(tmp_path: Path) -> None:
    image = sitk.Compose(sitk.GetImageFromArray(NUMBERS), sitk.GetImageFromArray(NUMBERS + 7))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert (read_image(tmp_path / "a.nrrd").data[1] == NUMBERS + 7).all()


@pytest.mark.parametrize(("components", "channels"), [(1, 1), (3, 3), (4, 3)])
def test_png_is_one_slice_without_transparency(tmp_path: Path, components: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, components), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels.squeeze(), isVector=components > 1), str(tmp_path / "a.png"))
    volume = read_image(tmp_path / "a.png")
    assert volume.data.shape == (channels, 1, 5, 7)
    assert (volume.data[:, 0] == pixels.transpose(2, 0, 1)[:channels]).all()


def test_jpeg_is_read_whatever_its_ending(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((5, 7), 80, np.uint8)), str(tmp_path / "a.jpg"))
    (tmp_path / "a.jpg").rename(tmp_path / "a.picture")
    assert np.abs(read_image(tmp_path / "a.picture").data.astype(int) - 80).max() < 3


def test_a_photograph_to_be_turned_is_taken_as_stored_aloud(tmp_path: Path) -> None:
    note = PIL.Image.Exif()
    note[0x0112] = 6
    PIL.Image.fromarray(np.full((5, 7), 80, np.uint8)).save(tmp_path / "a.jpg", exif=note.tobytes())
    warned = Warned()
    assert read_image(tmp_path / "a.jpg", None, warned).geometry.shape_kji == (1, 5, 7)
    assert len(warned.texts) == 1 and "EXIF orientation 6" in warned.texts[0]


def test_a_damaged_file_is_not_told_of_by_libraries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(NUMBERS), str(tmp_path / "a.mha"))
    (tmp_path / "a.mha").write_bytes((tmp_path / "a.mha").read_bytes()[:-20])
    with pytest.raises(InputError):
        read_image(tmp_path / "a.mha")
    assert capfd.readouterr() == ("", "")


def test_one_slice_of_a_volume_keeps_its_place(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", NUMBERS[:, :, :1], oblique())
    assert np.abs(read_image(path).geometry.ijk_to_ras - oblique()).max() < 1e-4


def test_real_images_agree_with_nibabel(shared_data: Path) -> None:
    for path in sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[:5]:
        expected = nibabel.load(path)
        volume = read_image(path)
        assert np.abs(volume.geometry.ijk_to_ras - expected.affine).max() < 1e-4
        assert (volume.data[0].transpose(2, 1, 0) == np.asarray(expected.dataobj)).all()


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.nii\.gz does not exist; check its name"):
        read_image(tmp_path / "gone.nii.gz")


def test_a_grey_png_with_transparency_gives_its_grey(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 2), np.uint8)
    PIL.Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").data, pixels[None, None, ..., 0])
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-30])
    with pytest.raises(InputError, match="cut short"):
        read_image(tmp_path / "a.png")


def test_the_data_half_of_a_nifti_pair_names_the_other_half(tmp_path: Path) -> None:
    image = nibabel.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "a.hdr")
    with pytest.raises(InputError, match=r"name the other, a\.hdr"):
        read_image(tmp_path / "a.img")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.png", "a.dcm"])
def test_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"{name} is empty"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.6, 0.99])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "a.jpg"])
def test_file_that_is_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    data = np.random.default_rng(0).integers(0, 200, (20, 40, 50), dtype=np.uint8)
    flat = name.endswith((".png", ".jpg"))
    sitk.WriteImage(sitk.GetImageFromArray(data[0] if flat else data), str(tmp_path / name), useCompression=True)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: max(20, int(len(whole) * share))])
    with pytest.raises(InputError, match=rf"{name} (is cut short|is no )"):
        read_image(tmp_path / name)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)), oblique())
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="cut short or damaged"):
        read_image(path)


def test_gzip_with_fewer_voxels_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", NUMBERS, oblique())
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-2]))
    with pytest.raises(InputError, match=r"b\.nii\.gz is cut short"):
        read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "notes.txt", "a.tif"])
def test_file_that_is_no_image_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("A shopping list: apples, pears and bread.\n" * 40)
    with pytest.raises(InputError, match=rf"{name} is no "):
        read_image(tmp_path / name)


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.nii\.gz has complex voxels"):
        read_image(nifti(tmp_path / "a.nii.gz", NUMBERS.astype(np.complex64), oblique()))


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the file permissions of POSIX systems")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", NUMBERS, oblique())
    path.chmod(0)
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"a\.nii can't be read: Permission denied"):
            read_image(path)
    finally:
        os.seteuid(before)


def test_channels_on_one_grid_keep_type_and_order(tmp_path: Path) -> None:
    paths = [nifti(tmp_path / f"{n}.nii.gz", NUMBERS + n, oblique()) for n in range(3)]
    warned = Warned()
    volume = read_channels(paths, progress=warned)
    assert volume.data.dtype == np.int16
    assert (volume.data[2] == volume.data[0] + 2).all()
    assert warned.texts == []


def test_channel_on_another_grid_is_resampled_aloud(tmp_path: Path) -> None:
    """A ramp along world R, sampled on two grids, is the same ramp on the first one's."""
    fine, coarse = Geometry((8, 8, 8), np.diag((1.0, 1, 1, 1))), Geometry((8, 8, 8), np.diag((2.0, -2, 2, 1)))
    coarse = Geometry(
        coarse.shape_kji, coarse.ijk_to_ras + np.array([[0, 0, 0, -3], [0, 0, 0, 11], [0, 0, 0, -3], [0] * 4])
    )
    for name, grid in (("fine", fine), ("coarse", coarse)):
        ijk = np.indices(grid.shape_kji)[::-1].reshape(3, -1).T
        ramp = grid.ras_of(ijk)[:, 0].reshape(1, *grid.shape_kji).astype(np.float32)
        write_scalar_volume(Volume(ramp, grid), tmp_path / f"{name}.nrrd")
    warned = Warned()
    volume = read_channels([tmp_path / "fine.nrrd", tmp_path / "coarse.nrrd"], progress=warned)
    assert volume.geometry.same_grid_as(fine)
    assert np.allclose(volume.data[0], volume.data[1], atol=1e-4)
    assert "coarse.nrrd lies on another grid" in warned.texts[0]


def test_channel_elsewhere_in_the_patient_is_refused(tmp_path: Path) -> None:
    far = oblique()
    far[:3, 3] += 500
    paths = [nifti(tmp_path / "a.nii", NUMBERS, oblique()), nifti(tmp_path / "b.nii", NUMBERS, far)]
    with pytest.raises(InputError, match=r"b\.nii lies elsewhere"):
        read_channels(paths)


@st.composite
def grids(draw: st.DrawFn) -> Geometry:
    """Grids of any direction, handedness and spacing of 0.3 to 7 mm, down to a single voxel."""
    angles, origin = draw(st.tuples(*[st.floats(-180, 180)] * 3)), draw(st.tuples(*[st.floats(-500, 500)] * 3))
    spacing = np.array(draw(st.tuples(*[st.floats(0.3, 7)] * 3))) * draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    matrix[:3, 3] = origin
    return Geometry(draw(st.tuples(*[st.integers(1, 6)] * 3)), matrix)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from(ENDINGS), grid=grids())
def test_label_map_keeps_grid_and_values(tmp_path: Path, ending: str, grid: Geometry) -> None:
    matrix, shape = grid.ijk_to_ras, grid.shape_kji
    layers = np.random.default_rng(0).integers(0, 3, (1, *shape), dtype=np.uint8)
    path = tmp_path / f"labels{ending}"
    write_label_map(segmentation(layers, matrix), path)
    volume = read_image(path)
    assert (volume.data == layers).all()
    assert volume.data.dtype == np.uint8
    assert np.abs(volume.geometry.ijk_to_ras - matrix).max() < 1e-4


def test_nifti_label_map_has_both_forms_and_the_inputs_matrix(tmp_path: Path) -> None:
    source = nifti(tmp_path / "a.nii.gz", NUMBERS, oblique())
    volume = read_image(source)
    write_label_map(
        Segmentation(np.ones((1, 5, 4, 3), np.uint8), (Label(1, "a"),), volume.geometry), tmp_path / "l.nii.gz"
    )
    written = nibabel.load(tmp_path / "l.nii.gz")
    for matrix, code in (written.get_qform(coded=True), written.get_sform(coded=True)):
        assert code > 0
        assert np.abs(matrix - nibabel.load(source).affine).max() < 1e-4
    assert written.get_data_dtype() == np.uint8


def test_large_label_values_get_sixteen_bits(tmp_path: Path) -> None:
    layers = np.full((1, 2, 2, 2), 1000, np.uint16)
    write_label_map(segmentation(layers, np.eye(4), (1, 1000)), tmp_path / "a.nrrd")
    volume = read_image(tmp_path / "a.nrrd")
    assert volume.data.dtype == np.uint16
    assert (volume.data == 1000).all()


@pytest.mark.parametrize("ending", ENDINGS)
def test_overlapping_layers_come_back_as_channels(tmp_path: Path, ending: str) -> None:
    layers = np.random.default_rng(0).integers(0, 2, (3, 4, 5, 6), dtype=np.uint8)
    write_label_map(segmentation(layers, oblique()), tmp_path / f"a{ending}")
    assert (read_image(tmp_path / f"a{ending}").data == layers).all()


@pytest.mark.parametrize("ending", ENDINGS)
def test_probabilities_come_back(tmp_path: Path, ending: str) -> None:
    values = np.random.default_rng(0).random((2, 4, 5, 6), dtype=np.float32)
    base = segmentation(np.zeros((1, 4, 5, 6), np.uint8), oblique())
    write_probabilities(
        Segmentation(base.layers, base.labels, base.geometry, values, ("background", "a")), tmp_path / f"p{ending}"
    )
    volume = read_image(tmp_path / f"p{ending}")
    assert (volume.data == values).all()
    assert np.abs(volume.geometry.ijk_to_ras - oblique()).max() < 1e-4


def test_probabilities_that_were_not_asked_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="came without probabilities"):
        write_probabilities(segmentation(np.zeros((1, 2, 2, 2), np.uint8), np.eye(4)), tmp_path / "p.nrrd")


def test_bool_and_half_float_volumes_are_written_in_types_that_files_have(tmp_path: Path) -> None:
    grid = Geometry((2, 2, 2), np.eye(4))
    write_scalar_volume(Volume(np.ones((1, 2, 2, 2), bool), grid), tmp_path / "b.nii.gz")
    write_scalar_volume(Volume(np.full((1, 2, 2, 2), 0.5, np.float16), grid), tmp_path / "h.nii.gz")
    assert read_image(tmp_path / "b.nii.gz").data.dtype == np.uint8
    assert (read_image(tmp_path / "h.nii.gz").data == 0.5).all()


def test_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.nii\.gz"):
        write_label_map(segmentation(np.zeros((1, 2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


WRITE_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np
from MedAILib.errors import OutputError
from MedAILib.files.images import write_scalar_volume
from MedAILib.volume import Geometry, Volume
noise = np.random.default_rng(0).integers(0, 255, (1, 50, 60, 70), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for ending in (".nii.gz", ".nii", ".nrrd", ".mha"):
    try:
        write_scalar_volume(Volume(noise, Geometry((50, 60, 70), np.eye(4))), Path(sys.argv[1]) / f"a{ending}")
    except OutputError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_disk_that_takes_only_a_part_is_noticed_in_every_format(tmp_path: Path) -> None:
    for ending in ENDINGS:
        (tmp_path / f"a{ending}").write_text("old")
    command = [sys.executable, "-c", WRITE_UNDER_A_LIMIT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len([line for line in done.stdout.splitlines() if "did not take the whole file" in line]) == 4
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
