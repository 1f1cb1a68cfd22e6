"""What Slicer's window has and the pip package slicer-core lacks, thin, for tests that load the real module files.

Strict: what Slicer's own class does not have raises AttributeError instead of passing silently. No test of how things
look: that is for the real application.
"""
