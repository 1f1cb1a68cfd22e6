"""The picture of a result: sides, letters, proportions, and whatever it is given."""

from collections.abc import Callable
from pathlib import Path

import nilearn
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from MedAILib.errors import OutputError
from MedAILib.files.images import read_image
from MedAILib.results import Label, Segmentation
from MedAILib.scene.picture import write_picture
from MedAILib.scene.picture_slices import (
    PLANES,
    Plane,
    Structure,
    best_center,
    display_range,
    sample_mask,
    structures_of,
)
from MedAILib.scene.picture_surfaces import body_surface, structure_surface
from MedAILib.volume import Geometry, Volume

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
# Left, bottom-up rows of the panels in the picture: axial and coronal above, sagittal below, surfaces on the right.
AXIAL, CORONAL, SURFACES = np.s_[104:508, 32:436], np.s_[104:508, 452:856], np.s_[104:928, 872:1568]


def ball(grid: Geometry, center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """The voxels (K, J, I) inside an ellipsoid in mm."""
    ijk = np.indices(grid.shape_kji)[::-1].reshape(3, -1).T
    return (((grid.ras_of(ijk) - center) / radii) ** 2).sum(axis=1).reshape(grid.shape_kji) < 1


def only(mask: np.ndarray, grid: Geometry) -> Structure:
    (structure,) = structures_of(Segmentation(mask[None].astype(np.uint8), (Label(1, "it"),), grid))
    return structure


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., :3].astype(int)


def columns_of(panel: np.ndarray, channel: int) -> np.ndarray:
    """Columns of the pixels in which one colour channel is far above the others."""
    others = panel[..., [n for n in range(3) if n != channel]].max(axis=-1)
    return np.flatnonzero((panel[..., channel] - others > 90).any(axis=0))


@pytest.fixture(scope="module")
def template() -> Volume:
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    return read_image(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")


@pytest.fixture(scope="module")
def picture(template: Volume, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Right structure red, left structure blue, both at hippocampi of the ICBM 152 template."""
    layers = np.zeros((1, *template.geometry.shape_kji), np.uint8)
    layers[0][ball(template.geometry, (26, -22, -14), (7, 19, 8))] = 1
    layers[0][ball(template.geometry, (-26, -22, -14), (7, 19, 8))] = 2
    labels = (Label(1, "right", RED), Label(2, "left", BLUE))
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    write_picture(Segmentation(layers, labels, template.geometry), template, path, "Two ellipsoids")
    return pixels(path)


def test_picture_has_its_size(picture: np.ndarray) -> None:
    assert picture.shape == (1000, 1600, 3)


@pytest.mark.parametrize("panel", [AXIAL, CORONAL, SURFACES])
def test_left_lies_on_the_right_hand_side(picture: np.ndarray, panel: tuple[slice, slice]) -> None:
    right, left = columns_of(picture[panel], 0), columns_of(picture[panel], 2)
    assert len(right) > 20
    assert len(left) > 20
    assert right.max() < left.min()


@pytest.mark.parametrize("name", PLANES)
def test_letters_name_the_side_that_they_stand_on(name: str) -> None:
    """The pixel nearest to each letter lies farthest in that letter's direction."""
    points = Plane(name, (5.0, -7.0, 11.0), 20).points_ras(9)
    left, right, top, bottom = (points[4, 0], points[4, 8], points[0, 4], points[8, 4])
    for letter, place in zip(PLANES[name][2], (left, right, top, bottom), strict=True):
        axis, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
        assert sign * (place - (5, -7, 11))[axis] > 15


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_ball_on_an_anisotropic_oblique_grid_is_drawn_round_in_its_place(name: str, mirrored: bool) -> None:
    matrix = np.eye(4)
    axes = Rotation.from_euler("xyz", (25, -15, 40), degrees=True).as_matrix()
    matrix[:3, :3] = axes * (-0.8 if mirrored else 0.8, 1.1, 3.0)
    matrix[:3, 3] = -matrix[:3, :3] @ (40, 30, 12)
    grid = Geometry((25, 60, 80), matrix)
    center = (4.0, -3.0, 2.0)
    share = sample_mask(only(ball(grid, center, (12, 12, 12)), grid), Plane(name, center, 20), 200)
    rows, columns = np.nonzero(share > 0.5)
    assert np.ptp(rows) / 5 == pytest.approx(24, abs=2)  # 200 pixels for 40 mm
    assert np.ptp(columns) / 5 == pytest.approx(24, abs=2)
    assert (rows.mean() - 99.5) / 5 == pytest.approx(0, abs=0.7)
    assert (columns.mean() - 99.5) / 5 == pytest.approx(0, abs=0.7)


def test_planes_cut_through_structures_even_where_their_centre_is_empty(template: Volume) -> None:
    layers = np.zeros((1, *template.geometry.shape_kji), np.uint8)
    for side in (26, -26):
        layers[0][ball(template.geometry, (side, -22, -14), (7, 19, 8))] = 1
    center = best_center((only(layers[0] == 1, template.geometry),), template.geometry)
    assert abs(abs(center[0]) - 26) < 5
    assert center[1:] == pytest.approx((-22, -14), abs=5)


def test_structure_surface_has_the_structures_size_and_faces_outwards() -> None:
    for flip in (1, -1):
        grid = Geometry((20, 40, 40), np.diag((flip * 1.0, 1.0, 2.0, 1.0)))
        center = tuple(grid.ras_of([[20, 20, 10]])[0])
        structure = only(ball(grid, center, (9, 9, 9)), grid)
        surface = structure_surface(structure.mask, structure.geometry, RED)
        radius = np.linalg.norm(surface.corners_ras - center, axis=-1)
        assert radius.mean() == pytest.approx(9, abs=0.7)
        outward = (surface.corners_ras - center) / radius[..., None]
        assert (outward * surface.normals_ras).sum(axis=-1).mean() > 0.9


def test_body_is_drawn_for_a_whole_brain_and_not_for_a_crop(template: Volume) -> None:
    body = body_surface(template, BLUE)
    assert body is not None
    assert np.ptp(body.corners_ras.reshape(-1, 3), axis=0).min() > 100
    assert body_surface(template.cropped(np.s_[50:90, 80:130, 60:110]), BLUE) is None


def test_ct_gets_a_soft_tissue_window() -> None:
    data = np.linspace(-1024, 2000, 1000, dtype=np.float32).reshape(1, 10, 10, 10)
    assert display_range(Volume(data, Geometry((10, 10, 10), np.eye(4)))) == (-160, 240)


def found_nothing(shape: tuple[int, int, int]) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def found_all(shape: tuple[int, int, int]) -> np.ndarray:
    return np.ones(shape, np.uint8)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("found", [found_nothing, found_all])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 40), (12, 13, 14)])
def test_any_image_gets_a_picture(
    tmp_path: Path, kind: str, found: Callable[[tuple[int, int, int]], np.ndarray], shape: tuple[int, int, int]
) -> None:
    if kind != "int16" and shape != (12, 13, 14):
        pytest.skip("one type is enough for the small shapes")
    grid = Geometry(shape, np.diag((1.0, 1.0, 5.0, 1.0)))
    data = np.random.default_rng(0).integers(0, 2, (1, *shape)).astype(kind)
    if kind == "float32":
        data[0, 0, 0, 0] = np.nan
    segmentation = Segmentation(found(shape)[None], (Label(1, "a"),), grid)
    write_picture(segmentation, Volume(data, grid), tmp_path / "a.png", "Anything")
    assert pixels(tmp_path / "a.png").shape == (1000, 1600, 3)


def test_constant_image_and_many_long_names_get_a_picture(tmp_path: Path) -> None:
    grid = Geometry((20, 20, 20), np.eye(4))
    layers = np.arange(8000, dtype=np.uint16).reshape(1, 20, 20, 20) // 400
    labels = tuple(Label(n, f"A structure with a rather long name, number {n}") for n in range(1, 20))
    volume = Volume(np.full((1, 20, 20, 20), 7, np.int16), grid)
    write_picture(Segmentation(layers, labels, grid), volume, tmp_path / "a.png", "Many")
    assert pixels(tmp_path / "a.png").shape == (1000, 1600, 3)


def test_failing_write_leaves_the_older_picture(tmp_path: Path) -> None:
    grid = Geometry((4, 4, 4), np.eye(4))
    volume = Volume(np.zeros((1, 4, 4, 4), np.uint8), grid)
    empty = Segmentation(np.zeros((1, 4, 4, 4), np.uint8), (), grid)
    with pytest.raises(OutputError, match="does not exist; create it"):
        write_picture(empty, volume, tmp_path / "absent" / "a.png", "Nowhere")
    (tmp_path / "a.png").write_text("old")
    (tmp_path / "a.png").chmod(0o444)
    with pytest.raises(OutputError, match="write-protected"):
        write_picture(empty, volume, tmp_path / "a.png", "Protected")
    assert (tmp_path / "a.png").read_text() == "old"
