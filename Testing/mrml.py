"""Volume nodes and transforms made by hand, with none of the project's own code; where segments lie."""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy


def rotation(axis, degrees):
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return np.array([[transform.GetMatrix().GetElement(r, c) for c in range(4)] for r in range(4)])


def to_vtk(array):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel())
    return matrix


def add_volume(scene, voxels, ijk_to_ras, name="image"):
    """Made by hand, with none of the project's own code."""
    image = vtk.vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(voxels).ravel(), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(to_vtk(ijk_to_ras))
    node.SetAndObserveImageData(image)
    return node


def put_under(scene, node, matrices):
    """Linear transform nodes, the first one directly above the node, each later one above the one before."""
    for matrix in matrices:
        parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        parent.SetMatrixTransformToParent(to_vtk(matrix))
        node.SetAndObserveTransformNodeID(parent.GetID())
        node = parent


def to_world(node):
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix)
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def segment_points_in_world(node, segment_id):
    """World positions (n, 3) of the segment's voxels, from what Slicer itself says of the segment."""
    image = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation(segment_id, image)
    extent, matrix = image.GetExtent(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    array = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    shape = [extent[2 * n + 1] - extent[2 * n] + 1 for n in (2, 1, 0)]
    kji = np.argwhere(vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape))
    ijk = kji[:, ::-1] + np.array(extent[::2])
    return (to_world(node) @ array @ np.c_[ijk, np.ones(len(ijk))].T).T[:, :3]
