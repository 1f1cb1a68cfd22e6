"""What the modules' own tests share, which run inside of Slicer: Reload and Test in developer mode, or ctest."""

import unittest
from typing import Any

import numpy as np
import slicer
import slicer.util
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class ModuleTest(ScriptedLoadableModuleTest):
    """Each of its tests has the scene for itself."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test; this alone is what Slicer calls after a reload."""
        for name in unittest.TestLoader().getTestCaseNames(type(self)):
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.doCleanups()

    def addRamp(self) -> Any:
        """An image, large enough for the built-in models, whose voxels count up."""
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Ramp")
        ramp = np.arange(36 * 48 * 40, dtype=np.float32).reshape(36, 48, 40)  # K, J, I
        slicer.util.updateVolumeFromArray(volumeNode, ramp)
        return volumeNode
