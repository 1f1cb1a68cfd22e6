"""One volume node's image on the grid of another, through both parent transforms."""

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.scene.arrays import array_of, matrix_of, node_matrix, set_voxels, voxels_of

# Points along each axis at which overlap and agreement of two grids are looked at.
_LATTICE = 9
# Voxels by which two grids may differ and still count as one.
_TOLERANCE = 1e-3


def voxels_on_grid(node: Any, grid_node: Any) -> NDArray[Any]:
    """The image of `node` at the voxels of `grid_node`, in the world.

    Linear interpolation, in float32 for 8 and 16 bit integers and float32, in float64 for others; outside of the
    node's field of view its minimum. Voxels are taken over unchanged where both nodes lie on one grid in the world.

    Args:
        node: a scalar volume node with image data.
        grid_node: another one, in the same scene.

    Returns:
        (C, K, J, I) with the components of `node` as channels, and the shape of `grid_node`.

    Raises:
        InputError: the nodes nowhere overlap.
    """
    transform, linear = _grid_to_node(node, grid_node)
    size = np.array(node.GetImageData().GetDimensions())
    grid_size = np.array(grid_node.GetImageData().GetDimensions())
    points = _lattice(grid_size)
    mapped = _apply(transform, points)
    if linear and (size == grid_size).all() and np.abs(mapped - points).max() <= _TOLERANCE:
        return voxels_of(node.GetImageData())
    back = _apply(transform.GetInverse(), _lattice(size))
    if not (_inside(mapped, size).any() or _inside(back, grid_size).any()):
        raise InputError(
            f"{node.GetName()} and {grid_node.GetName()} don't overlap anywhere; choose channels of one patient and "
            "place them on each other first (in Slicer: the Transforms module, or a registration)."
        )
    return _resliced(node.GetImageData(), transform, grid_size)


def _grid_to_node(node: Any, grid_node: Any) -> tuple[Any, bool]:
    """From voxel indices of the grid's node to those of the other, and whether a matrix says it all."""
    source, target = grid_node.GetParentTransformNode(), node.GetParentTransformNode()
    to_grid_ras = node_matrix(grid_node)
    to_node_ijk = np.linalg.inv(node_matrix(node)).astype(np.float64)
    between = vtk.vtkMatrix4x4()
    if slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, between):
        transform = vtk.vtkTransform()
        transform.SetMatrix(matrix_of(to_node_ijk @ array_of(between) @ to_grid_ras))
        return transform, True
    warp = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, warp)
    whole = vtk.vtkGeneralTransform()
    whole.PostMultiply()
    whole.Concatenate(matrix_of(to_grid_ras))
    whole.Concatenate(warp)
    whole.Concatenate(matrix_of(to_node_ijk))
    return whole, False


def _resliced(image: Any, transform: Any, grid_size: NDArray[np.int_]) -> NDArray[Any]:
    """Sample an image, given in its voxel indices, at the transformed voxel indices of a grid."""
    plain = vtk.vtkImageData()
    plain.ShallowCopy(image)
    plain.SetOrigin(0, 0, 0)
    plain.SetSpacing(1, 1, 1)
    plain.SetDirectionMatrix(1, 0, 0, 0, 1, 0, 0, 0, 1)
    plain.SetExtent(*[int(x) for n in image.GetDimensions() for x in (0, n - 1)])
    voxels = voxels_of(image)
    lowest = voxels.min(axis=(1, 2, 3)).astype(float).tolist()
    reslice = _reslice(plain, transform, grid_size)
    reslice.SetInterpolationModeToLinear()
    narrow = voxels.dtype.itemsize <= 2 or voxels.dtype == np.float32
    reslice.SetOutputScalarType(vtk.VTK_FLOAT if narrow else vtk.VTK_DOUBLE)
    reslice.SetBackgroundColor(*(lowest + [lowest[-1]] * 3)[:4])
    reslice.Update()
    return voxels_of(reslice.GetOutput())


def labels_on_right_angles(
    labels: NDArray[np.unsignedinteger], ijk_to_ras: NDArray[np.float64]
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]:
    """Labels of a sheared grid on the closest one with right angles, of the same spacings, that holds all of it.

    Each voxel takes the label of the voxel in whose cell its centre lies, 0 outside.

    Args:
        labels: (K, J, I).
        ijk_to_ras: its sheared voxel-to-RAS matrix (4x4, mm).

    Returns:
        The labels (K, J, I) and the matrix of the new grid.
    """
    size = np.array(labels.shape[::-1])
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(ijk_to_ras[:3, :3] / spacing)
    matrix = np.eye(4)
    matrix[:3, :3] = (u @ vt) * spacing
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in size], indexing="ij"), axis=-1).reshape(-1, 3)
    reached = (np.linalg.inv(matrix) @ ijk_to_ras @ np.c_[corners, np.ones(8)].T)[:3]
    first, last = np.floor(reached.min(axis=1)), np.ceil(reached.max(axis=1))
    matrix[:3, 3] = matrix[:3, :3] @ first
    grid_size = (last - first).astype(int) + 1
    image = vtk.vtkImageData()
    set_voxels(image, labels)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix_of(np.linalg.inv(ijk_to_ras) @ matrix))
    reslice = _reslice(image, transform, grid_size)
    reslice.SetInterpolationModeToNearestNeighbor()
    reslice.Update()
    return voxels_of(reslice.GetOutput())[0].copy(), matrix


def _reslice(image: Any, transform: Any, grid_size: NDArray[np.int_]) -> Any:
    """A filter that samples an image, given in its voxel indices, at the transformed voxel indices of a grid."""
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceTransform(transform)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent(*[int(x) for n in grid_size for x in (0, n - 1)])
    return reslice


def _lattice(size: NDArray[np.int_]) -> NDArray[np.float64]:
    """Points (n, 3) evenly over a grid of voxels, its outermost voxels among them."""
    axes = [np.linspace(0, n - 1, min(n, _LATTICE)) for n in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _apply(transform: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([transform.TransformPoint(point) for point in points.tolist()])


def _inside(points: NDArray[np.float64], size: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Which points lie within the voxels of a grid, half a voxel beyond the outermost centres included."""
    return np.asarray(((points >= -0.5) & (points <= size - 0.5)).all(axis=1))
