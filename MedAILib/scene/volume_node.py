"""A `Volume` as nodes of a scene, for images that did not come from one."""

import re

import numpy as np
import slicer
import vtk

from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.volume import Volume

# MRML and its writers know no such voxels; the next type that holds every value takes their place.
STAND_INS = {"bool": np.uint8, "float16": np.float32, "int64": np.float64, "uint64": np.float64}
_FILE_ENDING = re.compile(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|hdr(\.gz)?|png|jpe?g|dcm)$", re.IGNORECASE)


def add_volume_nodes(scene: "slicer.vtkMRMLScene", volume: Volume) -> "list[slicer.vtkMRMLScalarVolumeNode]":
    """Add an image to a scene, a scalar volume node for each channel, on the image's own grid.

    The nodes have the image's name, without a file's ending, as Slicer names what it loads.
    """
    name = _FILE_ENDING.sub("", volume.name) or volume.name
    names = [name] if volume.channels == 1 else [f"{name} {n + 1}" for n in range(volume.channels)]
    nodes = []
    for name, data in zip(names, volume.data, strict=True):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
        image = vtk.vtkImageData()
        set_voxels(image, data.astype(STAND_INS.get(data.dtype.name, data.dtype.newbyteorder("=")), copy=False))
        node.SetIJKToRASMatrix(matrix_of(volume.geometry.ijk_to_ras))
        node.SetAndObserveImageData(image)
        node.CreateDefaultDisplayNodes()
        nodes.append(node)
    return nodes
