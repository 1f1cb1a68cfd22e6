"""Archives of a model that want to write elsewhere, fill the disk or mislead; each is refused."""

import gzip
import io
import random
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

NOISE = random.Random(0).randbytes(6_000_000)

Files = dict[str, bytes]
Maker = Callable[[Files], bytes]


def files_of(folder: Path) -> Files:
    """A model's files by their names with the folder's own in front, as archives usually have them."""
    return {
        path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An ordinary archive."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def with_members(*members: tuple[zipfile.ZipInfo | str, bytes]) -> Maker:
    """The model, and these members after it."""

    def make(files: Files) -> bytes:
        memory = io.BytesIO(zipped(files))
        with warnings.catch_warnings(), zipfile.ZipFile(memory, "a", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore")  # of duplicates
            for member, content in members:
                archive.writestr(member, content)
        return memory.getvalue()

    return make


def named(name: str) -> Maker:
    return with_members((name, b"evil"))


def renamed(placeholder: str, name: bytes) -> Maker:
    """A member whose name `zipfile` would not write: put in place of one of the same length afterwards."""
    assert len(placeholder) == len(name)
    return lambda files: named(placeholder)(files).replace(placeholder.encode(), name)


def special(name: str, kind: int, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info, content


def flagged(bits: int) -> Maker:
    """One member's flags in the list and in its header changed."""

    def make(files: Files) -> bytes:
        data = bytearray(named("model/flagged")(files))
        for signature, offset, back in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
            place = data.rindex(b"model/flagged", 0, None if signature[2] == 1 else data.rindex(b"PK\x01\x02")) - back
            assert data[place : place + 4] == signature
            data[place + offset] |= bits
        return bytes(data)

    return make


def in_list(name: str, offset: int, layout: str, value: int) -> Maker:
    """A number in a member's entry of the list changed, the header left as it is."""

    def make(files: Files) -> bytes:
        data = bytearray(with_members((name, bytes(range(256)) * 64))(files))
        place = data.rindex(name.encode()) - 46
        assert data[place : place + 4] == b"PK\x01\x02"
        struct.pack_into(layout, data, place + offset, value)
        return bytes(data)

    return make


def overlapping(files: Files) -> bytes:
    """Hundreds of entries that all stand for the same compressed bytes."""
    data = with_members(("model/kernel", NOISE[:20_000]))(files)
    end = data.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<2L", data, end + 12)
    place = data.rindex(b"model/kernel", 0, end) - 46
    entry = data[place:end]
    more = b"".join(entry.replace(b"model/kernel", f"model/kern{n:02d}".encode()) for n in range(100))
    record = bytearray(data[end:])
    count = struct.unpack_from("<H", record, 8)[0] + 100
    struct.pack_into("<2H2L", record, 8, count, count, size + len(more), offset)
    return data[:end] + more + bytes(record)


def long_list(files: Files) -> bytes:
    """An end record that speaks of a list of members as long as the file, which is filled up for it."""
    data = zipped(files)
    end = data.rindex(b"PK\x05\x06")
    record = bytearray(data[end:])
    struct.pack_into("<2L", record, 12, 5_000_000, 0)
    return data[:end] + bytes(5_000_000) + bytes(record)


def damaged(files: Files) -> bytes:
    """A bit of the weights turned over."""
    data = bytearray(zipped(files, zipfile.ZIP_STORED))
    data[data.index(files["model/models/model.pt"][:64]) + 40] ^= 1
    return bytes(data)


ATTACKS: dict[str, Maker] = {
    "parent folder": named("../evil"),
    "parent folder further in": named("model/../../evil"),
    "top of the disk": named("/evil"),
    "network share": named("//server/share/evil"),
    "drive": named("C:/evil"),
    "drive without a folder": named("C:evil"),
    "backslashes": named("..\\evil"),
    "stream beside a file": named("model/models/model.pt:evil"),
    "link out": with_members(special("model/link", stat.S_IFLNK, b"/etc")),
    "link and a file through it": with_members(
        special("model/link", stat.S_IFLNK, b"../../.."), ("model/link/evil", b"evil")
    ),
    "pipe": with_members(special("model/pipe", stat.S_IFIFO, b"")),
    "device file": with_members(special("model/device", stat.S_IFCHR, b"")),
    "device name": named("model/CON"),
    "device name with an ending": named("model/nul.txt"),
    "device name as a folder": named("COM1/evil"),
    "the same but for case": named("model/models/MODEL.pt"),
    "folders the same but for case": named("Model/models/extra"),
    "the same but for how it is spelled": with_members(("model/\u00e9", b""), ("model/e\u0301", b"")),
    "twice": with_members(("model/a", b"1"), ("model/a", b"2")),
    "twice by a dot": with_members(("model/a", b"1"), ("model/./a", b"2")),
    "file and folder": with_members(("model/a", b"1"), ("model/a/b", b"2")),
    "line break": named("model/a\nb"),
    "zero byte": renamed("model/a_b", b"model/a\0b"),
    "only a zero byte": renamed("Q", b"\0"),
    "reversed writing": named("model/\u202etp.ledom"),
    "space at the end": named("model/a "),
    "dot at the end": named("model/a."),
    "empty part": named("model//a"),
    "wildcard": named("model/*"),
    "too deep": named("/".join(["model", *"abcdefghijklmnop"])),
    "too long": named("model/" + "a" * 250),
    "bomb": with_members(("model/bomb", bytes(30_000_000))),
    "too many": with_members(*((f"model/{n}", b"") for n in range(400))),
    "too much": with_members(("model/much", NOISE)),
    "overlapping": overlapping,
    "long list": long_list,
    "less than it says": in_list("model/less", 24, "<L", 20_000),
    "more than it says": in_list("model/more", 24, "<L", 100),
    "wrong checksum": in_list("model/crc", 16, "<L", 12345),
    "header elsewhere": in_list("model/head", 42, "<L", 7),
    "of a later version": in_list("model/late", 6, "<H", 200),
    "encrypted": flagged(0x1),
    "patch data": flagged(0x20),
    "unusual compression": lambda files: zipped(files, zipfile.ZIP_LZMA),
    "folder with content": with_members(("model/folder/", b"evil")),
    "damaged": damaged,
    "cut off": lambda files: zipped(files)[:-200],
    "empty": lambda files: zipped({}),
    "only folders": lambda files: zipped({"model/": b""}),
    "no archive": lambda files: b"hello",
    "nothing": lambda files: b"",
    "no model": lambda files: zipped({"notes.txt": b"hello"}),
    "archive in an archive": lambda files: zipped({"model.zip": zipped(files)}),
    "several models": lambda files: zipped(
        {f"all/{letter}/{name}": content for letter in "ab" for name, content in files.items()}
    ),
}


def tarred(files: Files, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """An ordinary archive of gzipped tar."""
    return with_tar_members(kind=kind)(files)


def with_tar_members(*members: tuple[tarfile.TarInfo | str, bytes], kind: int = tarfile.PAX_FORMAT) -> Maker:
    """The model as gzipped tar, and these members after it."""

    def make(files: Files) -> bytes:
        memory = io.BytesIO()
        with tarfile.open(fileobj=memory, mode="w:gz", format=kind) as archive:
            for member, content in (*files.items(), *members):
                info = tarfile.TarInfo(member) if isinstance(member, str) else member
                info.size = len(content) if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else info.size
                archive.addfile(info, io.BytesIO(content))
        return memory.getvalue()

    return make


def of_type(name: str, kind: bytes, target: str = "", size: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info, b""


def tar_named(name: str) -> Maker:
    return with_tar_members((name, b"evil"))


def with_pax(name: str, **headers: str) -> Maker:
    """A member with extended headers."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {key.replace("_", "."): value for key, value in headers.items()}
    return with_tar_members((info, b"evil"))


def rewritten_tar(change: Callable[[bytearray], None]) -> Maker:
    """The bytes under the compression changed."""

    def make(files: Files) -> bytes:
        data = bytearray(gzip.decompress(tar_named("model/changed")(files)))
        change(data)
        return gzip.compress(bytes(data))

    return make


def _head_changed(data: bytearray, offset: int, value: bytes) -> None:
    """A field of the last member's head, its checksum made right again."""
    place = data.rindex(b"model/changed")
    data[place + offset : place + offset + len(value)] = value
    data[place + 148 : place + 156] = b" " * 8
    data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])


def _bomb(files: Files) -> bytes:
    return with_tar_members(("model/bomb", bytes(30_000_000)))(files)


def _long_name(files: Files) -> bytes:
    """A name of many megabytes, which tarfile would hold whole."""
    return with_tar_members(("model/" + "ab" * 8_000_000, b""), kind=tarfile.GNU_FORMAT)(files)


def _only_chain(files: Files) -> bytes:
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 2
    one = head.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    return gzip.compress(one * 3000)


TAR_ATTACKS: dict[str, Maker] = {
    "parent folder": tar_named("../evil"),
    "parent folder further in": tar_named("model/../../evil"),
    "top of the disk": tar_named("/evil"),
    "top of the disk in a header": with_pax("model/a", path="/evil"),
    "parent folder in a header": with_pax("model/a", path="../../evil"),
    "drive": tar_named("C:/evil"),
    "backslashes": tar_named("..\\evil"),
    "stream beside a file": tar_named("model/models/model.pt:evil"),
    "link out": with_tar_members(of_type("model/link", tarfile.SYMTYPE, "/etc")),
    "link and a file through it": with_tar_members(
        of_type("model/link", tarfile.SYMTYPE, "../../.."), ("model/link/evil", b"evil")
    ),
    "link in a header": with_pax("model/a", linkpath="/etc/passwd"),
    "hard link out": with_tar_members(of_type("model/link", tarfile.LNKTYPE, "/etc/passwd")),
    "hard link to the weights": with_tar_members(of_type("model/link", tarfile.LNKTYPE, "model/models/model.pt")),
    "pipe": with_tar_members(of_type("model/pipe", tarfile.FIFOTYPE)),
    "device of characters": with_tar_members(of_type("model/device", tarfile.CHRTYPE)),
    "device of blocks": with_tar_members(of_type("model/device", tarfile.BLKTYPE)),
    "contiguous file": with_tar_members(of_type("model/cont", tarfile.CONTTYPE)),
    "unknown kind": with_tar_members(of_type("model/kind", b"Z")),
    "sparse by kind": with_tar_members(of_type("model/sparse", tarfile.GNUTYPE_SPARSE)),
    "sparse by a header": with_pax(
        "model/a", GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="99999999999"
    ),
    "sparse of the old way": with_pax("model/a", GNU_sparse_size="99999999999", GNU_sparse_map="0,1"),
    "device name": tar_named("model/CON"),
    "device name with an ending": tar_named("model/nul.txt"),
    "the same but for case": tar_named("model/models/MODEL.pt"),
    "the same but for how it is spelled": with_tar_members(("model/\u00e9", b""), ("model/e\u0301", b"")),
    "twice": with_tar_members(("model/a", b"1"), ("model/a", b"2")),
    "twice by a dot": with_tar_members(("model/a", b"1"), ("model/./a", b"2")),
    "file and folder": with_tar_members(("model/a", b"1"), ("model/a/b", b"2")),
    "line break": tar_named("model/a\nb"),
    "no text": rewritten_tar(lambda data: _head_changed(data, 6, b"ch\xff\xfe")),
    "reversed writing": tar_named("model/\u202etp.ledom"),
    "space at the end": tar_named("model/a "),
    "wildcard": tar_named("model/*"),
    "too deep": tar_named("/".join(["model", *"abcdefghijklmnop"])),
    "too long": tar_named("model/" + "a" * 250),
    "name of megabytes": _long_name,
    "header of megabytes": with_pax("model/a", comment="x" * 16_000_000),
    "chain of heads": _only_chain,
    "bomb": _bomb,
    "bomb in a bomb": lambda files: gzip.compress(gzip.compress(bytes(30_000_000))),
    "too many": with_tar_members(*((f"model/{n}", b"") for n in range(400))),
    "too much": with_tar_members(("model/much", NOISE)),
    "says more than it has": rewritten_tar(lambda data: _head_changed(data, 124, b"77777777777\0")),
    "says less than nothing": rewritten_tar(lambda data: _head_changed(data, 124, b"\xff" * 12)),
    "size in a header": with_pax("model/a", size="-5"),
    "folder with content": with_tar_members((of_type("model/folder", tarfile.DIRTYPE, size=4)[0], b"evil")),
    "damaged head": rewritten_tar(lambda data: data.__setitem__(148, 0x38)),
    "damaged": lambda files: tarred(files)[:-400] + bytes(200) + tarred(files)[-200:],
    "cut off": lambda files: tarred(files)[:-200],
    "wrong checksum": lambda files: tarred(files)[:-8] + b"\1\2\3\4" + tarred(files)[-4:],
    "empty": lambda files: tarred({}),
    "only folders": lambda files: with_tar_members(of_type("model/", tarfile.DIRTYPE))({}),
    "no tar": lambda files: gzip.compress(b"hello"),
    "nothing in it": lambda files: gzip.compress(b""),
    "no model": lambda files: tarred({"notes.txt": b"hello"}),
    "archive in an archive": lambda files: tarred({"model.tar.gz": tarred(files)}),
    "several models": lambda files: tarred(
        {f"all/{letter}/{name}": content for letter in "ab" for name, content in files.items()}
    ),
}
