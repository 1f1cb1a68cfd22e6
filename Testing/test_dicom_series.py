"""DICOM series become volumes: sorted, complete, in their place, or refused in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from MedAILib.errors import GeometryError, InputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.images import read_image
from MedAILib.progress import Progress
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.training.plan_classifier import has_classes

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
AXES = Rotation.from_euler("xyz", (20, -10, 30), degrees=True).as_matrix().T  # row, column, normal, LPS
STEP = 2.5
Change = Callable[[list[Dataset]], object]


class Warned(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def image(storage: str, pixels: np.ndarray, **elements: Any) -> Dataset:
    """A single image with the elements that every image has."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientID, dataset.PatientName = "secret", "Secret^Name"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[-3:-1]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def ct(count: int = 6) -> list[Dataset]:
    """An oblique CT of `count` slices of 4 x 5 voxels; slice n holds 100 n, 100 n + 1, ... before rescaling."""
    return [
        image(
            CTImageStorage,
            (np.arange(20, dtype=np.int16) + 100 * n).reshape(4, 5),
            Modality="CT",
            SeriesDescription="Abdomen",
            FrameOfReferenceUID="1.2.9",
            ImageOrientationPatient=[round(float(x), 8) for x in AXES[:2].ravel()],
            ImagePositionPatient=[round(float(x), 6) for x in (10, 20, 30) + n * STEP * AXES[2]],
            PixelSpacing=[0.7, 0.9],
            SliceThickness=5,
            RescaleSlope=1,
            RescaleIntercept=0,
            InstanceNumber=n + 1,
        )
        for n in range(count)
    ]


def save(datasets: list[Dataset], folder: Path) -> Path:
    """Write with file names that say nothing about the order."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, dataset in enumerate(datasets):
        dataset.save_as(folder / f"IM{(n * 7 + 3) % 11:02d}_{n}", enforce_file_format=True)
    return folder


def test_slices_are_sorted_by_position_whatever_their_names(tmp_path: Path) -> None:
    volume = read_dicom(save(ct(), tmp_path / "a" / "deep"))
    assert volume.data.shape == (1, 6, 4, 5)
    assert volume.data.dtype == np.int16
    assert (volume.data[0, :, 0, 0] == 100 * np.arange(6)).all()


def test_grid_is_where_the_header_says(tmp_path: Path) -> None:
    geometry = read_dicom(save(ct(), tmp_path)).geometry
    expected = np.array((10, 20, 30)) + 4 * 0.9 * AXES[0] + 3 * 0.7 * AXES[1] + 5 * STEP * AXES[2]
    assert np.allclose(geometry.ras_of([[4, 3, 5]]), expected * (-1, -1, 1), atol=1e-5)
    assert np.allclose(geometry.spacing_kji_mm, (STEP, 0.7, 0.9), atol=1e-5)


def test_series_on_disk_reads_as_gdcm_reads_it(shared_data: Path) -> None:
    for folder in sorted(path for path in (shared_data / "mr_brain_dicom").iterdir() if path.is_dir()):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        expected = reader.Execute()
        volume = read_image(folder)
        assert (volume.data[0] == sitk.GetArrayFromImage(expected)).all()
        last = [n - 1 for n in expected.GetSize()]
        corner = np.array(expected.TransformIndexToPhysicalPoint(last)) * (-1, -1, 1)
        assert np.allclose(volume.geometry.ras_of([last]), corner, atol=1e-3)


def test_provenance_names_series_and_files_and_no_patient(tmp_path: Path) -> None:
    volume = read_dicom(save(ct(), tmp_path))
    assert volume.provenance["Modality"] == "CT"
    assert volume.provenance["SeriesInstanceUID"] == "1.2.3.4"
    files = volume.provenance["files"].split("\n")
    assert [pydicom.dcmread(file).InstanceNumber for file in files] == [1, 2, 3, 4, 5, 6]
    assert "secret" not in str({**volume.provenance, "files": ""}).lower()


def change_each(**elements: Any) -> Change:
    return lambda series: [setattr(d, key, value) for d in series for key, value in elements.items()]


@pytest.mark.parametrize(
    ("elements", "kind", "last"),
    [
        ({"RescaleIntercept": -1024}, "int16", 519 - 1024),
        ({"RescaleSlope": 2, "RescaleIntercept": 1}, "int16", 1039),
        ({"RescaleSlope": 1000}, "int32", 519000),
        ({"RescaleSlope": 0.5}, "float32", 259.5),
    ],
)
def test_values_are_rescaled_in_the_smallest_fitting_type(
    tmp_path: Path, elements: dict[str, float], kind: str, last: float
) -> None:
    series = ct()
    change_each(**elements)(series)
    volume = read_dicom(save(series, tmp_path))
    assert volume.data.dtype == kind
    assert volume.data[0, -1, -1, -1] == last


def test_slopes_that_differ_between_slices_are_each_applied(tmp_path: Path) -> None:
    series = ct(3)
    for n, dataset in enumerate(series):
        dataset.RescaleSlope = (0.5, 1, 2)[n]
    assert (read_dicom(save(series, tmp_path)).data[0, :, 0, 0] == (0, 100, 400)).all()


def test_unsigned_values_stay_unsigned(tmp_path: Path) -> None:
    series = ct(2)
    for dataset in series:
        dataset.PixelData = np.full((4, 5), 60000, np.uint16).tobytes()
        dataset.PixelRepresentation = 0
    volume = read_dicom(save(series, tmp_path))
    assert volume.data.dtype == np.uint16
    assert (volume.data == 60000).all()


def drop_two(series: list[Dataset]) -> None:
    del series[2:4]


def shift_one(series: list[Dataset]) -> None:
    series[3].ImagePositionPatient = [float(x) for x in (10, 20, 30) + 3.2 * STEP * AXES[2]]


def shift_sideways(series: list[Dataset]) -> None:
    series[3].ImagePositionPatient = [float(x) for x in (10, 20, 30) + 3 * STEP * AXES[2] + 4 * AXES[0]]


def double_positions(series: list[Dataset]) -> None:
    series.extend(ct())


def localizer(series: list[Dataset]) -> None:
    for dataset in series[:3]:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def no_spacing(series: list[Dataset]) -> None:
    del series[2].PixelSpacing


def bad_orientation(series: list[Dataset]) -> None:
    series[2].ImageOrientationPatient = [2, 0, 0, 0, 1, 0]


def cut_pixels(series: list[Dataset]) -> None:
    series[2].PixelData = series[2].PixelData[:20]


def no_pixels(series: list[Dataset]) -> None:
    del series[2].PixelData


def no_places(series: list[Dataset]) -> None:
    for dataset in series:
        del dataset.ImagePositionPatient


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_two, r"2 missing between IM10_1 and IM06_2: 7.50 mm apart .* usually 2.50 mm"),
        (shift_one, r"unevenly spaced slices between"),
        (shift_sideways, r"lies 4\.0 mm beside the line of the others"),
        (double_positions, r"several images at one position .* time points, echoes or b-values"),
        (localizer, r"mixes images of 2 sizes or directions \(3, 3 slices\)"),
        (no_spacing, r"IM06_2 says where it lies but not its pixel spacing"),
        (bad_orientation, r"IM06_2 has directions that are no unit vectors"),
        (cut_pixels, r"IM06_2 is cut short or damaged"),
        (no_pixels, r"IM06_2 has no pixels"),
        (no_places, r"6 pictures without a place in the patient; name one of the files"),
    ],
)
def test_series_that_is_no_even_volume_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    series = ct()
    change(series)
    with pytest.raises(InputError, match=message):
        read_dicom(save(series, tmp_path))


def test_tilted_gantry_is_refused_by_name(tmp_path: Path) -> None:
    series = ct()
    for n, dataset in enumerate(series):
        dataset.ImagePositionPatient = [float(x) for x in n * STEP * (AXES[2] + 0.2 * AXES[1])]
    with pytest.raises(GeometryError, match=r"tilted: The voxel axes are sheared by"):
        read_dicom(save(series, tmp_path / "tilted"))


def test_rounded_positions_are_no_gap(tmp_path: Path) -> None:
    series = ct()
    for n, dataset in enumerate(series):
        dataset.ImagePositionPatient = [round(float(x), 2) for x in n * STEP * AXES[2]]
    assert read_dicom(save(series, tmp_path)).data.shape[1] == 6


def test_scout_in_the_series_is_left_out_aloud(tmp_path: Path) -> None:
    series = ct()
    scout = ct(1)[0]
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    warned = Warned()
    volume = read_dicom(save([*series, scout], tmp_path), progress=warned)
    assert volume.data.shape[1] == 6
    assert "left out images of another size or direction than the others: IM01_6" in warned.texts[0]


def test_same_file_twice_counts_once(tmp_path: Path) -> None:
    series = ct()
    save(series, tmp_path / "a")
    save(series, tmp_path / "copy")
    assert read_dicom(tmp_path).data.shape[1] == 6


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    other = ct(3)
    change_each(SeriesInstanceUID="1.2.3.5", SeriesDescription="Lung")(other)
    save(ct(), tmp_path / "a")
    save(other, tmp_path / "b")
    listing = r"2 image series.*1\.2\.3\.4 \(CT, 'Abdomen', slices: 6\); 1\.2\.3\.5 \(CT, 'Lung', slices: 3\)"
    with pytest.raises(InputError, match=listing):
        read_image(tmp_path)
    assert read_image(tmp_path, series="1.2.3.5").data.shape[1] == 3
    with pytest.raises(InputError, match=r"no image series 9\.9; it has: 1\.2\.3\.4"):
        read_image(tmp_path, series="9.9")


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    save(ct(), tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    for name in ("liver_1frame.dcm", "test-SR.dcm", "rtstruct.dcm"):
        (tmp_path / name).write_bytes((PYDICOM_FILES / name).read_bytes())
    assert read_image(tmp_path).data.shape[1] == 6


def enhanced(count: int = 5) -> Dataset:
    """A multi-frame MR whose frames are stored from the last to the first."""
    series = ct(count)[::-1]
    dataset = image(
        EnhancedMRImageStorage,
        np.stack([d.pixel_array for d in series]),
        Modality="MR",
        NumberOfFrames=count,
        FrameOfReferenceUID="1.2.9",
    )
    shared, measures, orientation, transformation = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 5
    orientation.ImageOrientationPatient = series[0].ImageOrientationPatient
    transformation.RescaleSlope, transformation.RescaleIntercept = 2, 1
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [transformation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for slice_ in series:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = slice_.ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


def test_enhanced_multiframe_equals_its_classic_series(tmp_path: Path) -> None:
    enhanced().save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    classic = read_dicom(save(ct(5), tmp_path / "classic"))
    volume = read_image(tmp_path / "enhanced.dcm")
    assert volume.geometry.same_grid_as(classic.geometry, 1e-6)
    assert (volume.data == classic.data * 2 + 1).all()
    assert volume.provenance["frames"] == "4\n3\n2\n1\n0"


def test_enhanced_multiframe_with_time_points_is_refused(tmp_path: Path) -> None:
    dataset = enhanced()
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    dataset.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"several images at one position \(e\.dcm, frame 2 of e\.dcm"):
        read_image(tmp_path / "e.dcm")


def test_real_ct_and_mr_slices_are_read() -> None:
    volume = read_image(PYDICOM_FILES / "CT_small.dcm")
    assert volume.data.shape == (1, 1, 128, 128)
    assert volume.data.dtype == np.int16
    stored = pydicom.dcmread(PYDICOM_FILES / "CT_small.dcm")
    assert (volume.data[0, 0] == stored.pixel_array.astype(int) + int(stored.RescaleIntercept)).all()
    assert volume.geometry.spacing_kji_mm == pytest.approx((5, 0.661468, 0.661468))


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
def test_other_encodings_give_the_same_voxels(name: str) -> None:
    assert (read_image(PYDICOM_FILES / name).data == read_image(PYDICOM_FILES / "MR_small.dcm").data).all()


def test_truncated_slice_is_refused() -> None:
    with pytest.raises(InputError, match=r"MR_truncated\.dcm is cut short or damaged"):
        read_image(PYDICOM_FILES / "MR_truncated.dcm")


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("kind", ["int16", "uint16"])
def test_lossless_compression_gives_the_same_voxels(tmp_path: Path, compressor: str, kind: str) -> None:
    expected = np.random.default_rng(0).integers(0, 4000, (1, 16, 20)).astype(kind)
    expected -= np.array(1000 if kind == "int16" else 0, kind)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(expected))
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.file_meta.TransferSyntaxUID.is_compressed
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
    dataset.save_as(tmp_path / "a.dcm")
    assert (read_image(tmp_path / "a.dcm").data[0] == expected.astype(int) * 2 - 100).all()


def test_compression_without_decoder_names_what_to_install() -> None:
    """Colours in lossless JPEG have no decoder in the packages that MedAI depends on."""
    with pytest.raises(InputError, match=r"is compressed \(JPEG Lossless.*install python-gdcm"):
        read_image(PYDICOM_FILES / "SC_rgb_jpeg_gdcm.dcm")


def test_colour_ultrasound_has_three_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    dataset = image(
        UltrasoundImageStorage,
        pixels,
        Modality="US",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation="RGB",
    )
    dataset.save_as(tmp_path / "us.dcm", enforce_file_format=True)
    volume = read_image(tmp_path / "us.dcm")
    assert (volume.data == pixels.transpose(2, 0, 1)[:, None]).all()


def test_palette_picture_becomes_colours() -> None:
    assert read_image(PYDICOM_FILES / "examples_palette.dcm").data.shape == (3, 1, 350, 800)


def test_ultrasound_film_is_refused() -> None:
    with pytest.raises(InputError, match="30 frames without places in the patient"):
        read_image(PYDICOM_FILES / "examples_ybr_color.dcm")


def test_inverted_radiograph_is_made_bright_where_the_picture_is_bright() -> None:
    path = PYDICOM_FILES / "dicomdirtests" / "77654033" / "CR1" / "6154"
    stored = pydicom.dcmread(path)
    assert stored.PhotometricInterpretation == "MONOCHROME1"
    bright = 2**stored.BitsStored - 1 - stored.pixel_array
    expected = bright * float(stored.RescaleSlope) + float(stored.RescaleIntercept)
    assert np.allclose(read_image(path).data[0, 0], expected)


def test_inverted_display_of_measurements_leaves_them_alone(tmp_path: Path) -> None:
    series = ct()
    change_each(PhotometricInterpretation="MONOCHROME1")(series)
    assert read_dicom(save(series, tmp_path)).data[0, 5, 0, 0] == 500


def test_dicom_without_an_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"rtstruct\.dcm is DICOM, but holds no image"):
        read_image(PYDICOM_FILES / "rtstruct.dcm")


def test_dicom_damaged_in_its_header_is_refused(tmp_path: Path) -> None:
    whole = (PYDICOM_FILES / "CT_small.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole[:600])
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_image(tmp_path / "a.dcm")


def test_series_in_folders_of_classes_are_an_image_each(tmp_path: Path) -> None:
    for name in ("above/one", "above/deeper/two", "below/three"):
        save(ct(), tmp_path / name)
    found = find_labelled_images(tmp_path)
    assert [(image.name, image.label) for image in found] == [
        ("above/deeper/two", "above"),
        ("above/one", "above"),
        ("below/three", "below"),
    ]
    assert read_labelled(found[0]).geometry.shape_kji[0] == 6
    assert has_classes(tmp_path)


def test_single_dicom_files_in_folders_of_classes_are_pictures(tmp_path: Path) -> None:
    for label in ("above", "below"):
        (tmp_path / label).mkdir()
        for number, dataset in enumerate(ct(2)):
            dataset.save_as(tmp_path / label / f"{number}.dcm", enforce_file_format=True)
    found = find_labelled_images(tmp_path)
    assert [image.name for image in found] == ["above/0.dcm", "above/1.dcm", "below/0.dcm", "below/1.dcm"]
    assert read_labelled(found[0]).geometry.shape_kji[0] == 1
