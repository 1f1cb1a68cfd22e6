# Slicer writes the extension's package description here.
