"""How much may come in from outside before it is refused, and how far it has come."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Caps on what is downloaded, unpacked or copied.

    Args:
        download_bytes: of one downloaded file.
        total_bytes: of all files of one model.
        members: files and folders of one model.
        ratio: how many times a compressed file may grow; counts for those that grow over `small_bytes`.
        small_bytes: see `ratio`; also what the list of an archive's members may take.
        depth: folders within folders.
        name_length: characters of a file's name with its folders.
    """

    download_bytes: int = 8_000_000_000
    total_bytes: int = 16_000_000_000
    members: int = 10_000
    ratio: int = 200
    small_bytes: int = 4_000_000
    depth: int = 12
    name_length: int = 240


def in_kilobytes(done: int, total: int | None, doing: str) -> tuple[int, int, str]:
    """What a `Progress` is told of so many bytes; the total is None when unknown."""
    if total is None:
        return 0, 1, f"{doing}, {done / 1e6:.1f} MB so far:"
    return done // 1000, max(total // 1000, 1), f"{doing} {done / 1e6:.1f} of {total / 1e6:.1f} MB:"
