"""The names by which callers of the models' room know the store; it is in `MedAILib.store`."""

from MedAILib.store.find import CHECKSUMS, builtin_checksums, builtin_models, find_model
from MedAILib.store.folders import RESOURCES

__all__ = ["CHECKSUMS", "RESOURCES", "builtin_checksums", "builtin_models", "find_model"]
