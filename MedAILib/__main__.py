"""`python -m MedAILib` is `medai`."""

import sys

from MedAILib.cli import console

sys.exit(console())
