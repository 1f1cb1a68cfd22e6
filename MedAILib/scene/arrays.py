"""Voxels and matrices between numpy and VTK; every array is K, J, I here and every copy a real one."""

from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedAILib.volume import Geometry


def voxels_of(image: "vtk.vtkImageData") -> NDArray[Any]:
    """A view (C, K, J, I) of an image's scalars, valid while the image lives unchanged."""
    i, j, k = image.GetDimensions()
    scalars = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.moveaxis(scalars.reshape(k, j, i, -1), -1, 0)


def set_voxels(image: "vtk.vtkImageData", voxels: NDArray[Any]) -> None:
    """Give an image a copy of the voxels (K, J, I) as its scalars, and their size."""
    image.SetDimensions(*voxels.shape[::-1])
    scalars = numpy_to_vtk(np.ascontiguousarray(voxels).reshape(-1), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)


def array_of(matrix: "vtk.vtkMatrix4x4") -> NDArray[np.float64]:
    """A 4x4 matrix as float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_of(array: NDArray[np.float64]) -> "vtk.vtkMatrix4x4":
    """A 4x4 array as VTK's matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(array.ravel())
    return matrix


def node_matrix(volume_node: Any) -> NDArray[np.float64]:
    """A volume node's own voxel-to-RAS matrix (4x4, mm), its parent transform left out."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


def node_geometry(volume_node: Any) -> Geometry:
    """A volume node's own grid, its parent transform left out.

    Raises:
        GeometryError: the grid is sheared or degenerate.
    """
    i, j, k = volume_node.GetImageData().GetDimensions()
    return Geometry((k, j, i), node_matrix(volume_node))
