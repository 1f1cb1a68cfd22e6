"""What is promised of a file that lies elsewhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A file at an address and what was promised of it.

    Args:
        address: https, or http on this computer.
        sha256, sha1: its hash, the better one of the two counts; without any only what the server says is compared.
        size: its bytes, None when unknown.
    """

    address: str
    sha256: str | None = None
    sha1: str | None = None
    size: int | None = None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The algorithm and the hash to compare with."""
        if self.sha256:
            return "sha256", self.sha256.lower()
        return ("sha1", self.sha1.lower()) if self.sha1 else None
