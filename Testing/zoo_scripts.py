"""Stand-ins for what bundles of the Model Zoo have in their scripts, for stock MONAI to run them beside MedAI."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class ConcatImages:
    """Images as channels of one, which is no MetaTensor any more and so has no way back of its own."""

    def __init__(self, keys_merge: list[str], keys_out: str) -> None:
        self.keys, self.into = keys_merge, keys_out

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, self.into: np.concatenate([np.asarray(data[key]) for key in self.keys])}
