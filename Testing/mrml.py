"""Volume nodes and transforms made by hand, with none of the project's own code; what a scene holds, and where."""

import hashlib

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


def mask_of(node, segment_id, shape_kji):
    """The segment's voxels on the whole grid, as Slicer extracts them."""
    image = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation(segment_id, image)
    extent = image.GetExtent()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    mask = np.zeros(shape_kji, bool)
    mask[tuple(slice(extent[2 * n], extent[2 * n + 1] + 1) for n in (2, 1, 0))] = voxels > 0
    return mask


def digest(scene):
    """All that a scene holds, for comparing: every saved property of every node, and hashes of the data in them.

    Times of modification are left out, and nothing in the scene is changed.
    """
    scene.SetSaveToXMLString(1)
    scene.Commit()
    found = {"": scene.GetSceneXMLString().splitlines()}
    scene.SetSaveToXMLString(0)
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        found[node.GetID()] = (node.GetName(), *_content(node))
    return found


def _content(node):
    if node.IsA("vtkMRMLVolumeNode"):
        yield _hash_of(node.GetImageData())
    elif node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            yield segmentation.GetNthSegmentID(index), *_segment_content(segmentation.GetNthSegment(index))
    elif node.IsA("vtkMRMLTableNode"):
        table = node.GetTable()
        for column in (table.GetColumn(n) for n in range(table.GetNumberOfColumns())):
            yield column.GetName(), [column.GetVariantValue(n).ToString() for n in range(column.GetNumberOfValues())]
    elif node.IsA("vtkMRMLSequenceNode"):
        for n in range(node.GetNumberOfDataNodes()):
            yield node.GetNthIndexValue(n), *_content(node.GetNthDataNode(n))


def _segment_content(segment):
    text = str(segment)  # with tags, which Python can't list
    yield segment.GetName(), segment.GetColor(), segment.GetLabelValue(), text[text.index("Tags") :]
    names = []
    segment.GetContainedRepresentationNames(names)
    for name in names:
        yield name, _hash_of(segment.GetRepresentation(name))


def _hash_of(data):
    if data is None:
        return None
    parts = [data.GetPointData().GetScalars()] if data.IsA("vtkImageData") else [data.GetPoints().GetData()]
    geometry = (data.GetDimensions(), data.GetExtent()) if data.IsA("vtkImageData") else data.GetBounds()
    if data.IsA("vtkOrientedImageData"):
        matrix = vtk.vtkMatrix4x4()
        data.GetImageToWorldMatrix(matrix)
        geometry += tuple(matrix.GetElement(r, c) for r in range(4) for c in range(4))
    voxels = [hashlib.sha256(np.ascontiguousarray(vtk_to_numpy(part))).hexdigest() for part in parts if part]
    return geometry, voxels
