"""What Slicer's window has and the pip package slicer-core lacks, thin, for tests that load the real module files.

`qt` is Qt itself through PySide6, shaped as PythonQt shapes it; `ctk`, the qMRML widgets, the module base classes,
parameter nodes and the application are small classes written for the tests. `slicer.util` and MRML are Slicer's own.

Strict: what PythonQt or Slicer's own class does not have raises instead of passing silently. No test of how things
look: that is for the real application.
"""
