"""What exactly a model is, by one SHA-256, and whether the user lets that execute code of its own."""

from pathlib import Path

from MedAILib.errors import UntrustedCodeError
from MedAILib.store.content import tree_sha256
from MedAILib.store.trust_list import is_trusted, revoke, trust, trust_list

ALLOWS = "execute the TorchScript code in it, which may do what any program of yours can"

__all__ = ["ALLOWS", "is_trusted", "require_trust", "revoke", "tree_sha256", "trust", "trust_list"]


def require_trust(source: Path, sha256: str, trust_code: str = "") -> None:
    """Raise unless the user allows the model of exactly this content to execute its code.

    Args:
        source: where it is, for the message.
        sha256: of its content now.
        trust_code: the SHA-256 that the user allows for this one call.

    Raises:
        UntrustedCodeError: she does not.
        SpecError: the list of what she allows can't be read.
    """
    if trust_code.lower() == sha256 or is_trusted(sha256):
        return
    if trust_code:
        raise UntrustedCodeError(
            f"The model {source} has the SHA-256 {sha256}, and not {trust_code}, which you allow to execute code; "
            "it is another model, or has changed."
        )
    raise UntrustedCodeError(
        f"The model {source} is TorchScript, which can only run by executing the code in it; if you trust who made it, "
        f"allow exactly this content once with --trust-code {sha256}, or until you revoke it with "
        f"`medai models trust`."
    )
