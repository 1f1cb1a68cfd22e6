"""`python -m MedAILib` is `medai`."""

import os
import sys

# `python -m` puts the folder that the user stands in before all others. A model's folder may hold a numpy.py.
if not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  as Python wrote it
    del sys.path[0]

from MedAILib.cli import console

sys.exit(console())
