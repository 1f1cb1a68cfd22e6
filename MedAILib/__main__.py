"""`python -m MedAILib` is `medai`."""

import sys

from MedAILib.cli import main

sys.exit(main())
