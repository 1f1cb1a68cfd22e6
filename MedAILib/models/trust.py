"""What exactly a model is: one SHA-256 over all that its folder or file holds."""

from MedAILib.store.content import tree_sha256

__all__ = ["tree_sha256"]
