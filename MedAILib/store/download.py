"""A file comes from an address: https, compared with the hash that was promised, resumed where it broke off.

What is half there lies in one folder as `<key>.part`, with a note of whose it is; nothing else is written.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from requests.auth import AuthBase

from MedAILib.config import read_json
from MedAILib.errors import DownloadError, SpecError
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.store.content import file_digest
from MedAILib.store.limits import Limits, in_kilobytes
from MedAILib.store.names import shown
from MedAILib.store.remote import Remote
from MedAILib.version import VERSION

# What has come of a piece is lost when the connection breaks within it.
CHUNK = 1 << 16
TIMEOUT_S = (15.0, 60.0)
# Before each new attempt after one that brought nothing; attempts that bring something are many but not endless.
PAUSES_S = (1.0, 4.0, 10.0)
MOST_ATTEMPTS = 60
MOST_REDIRECTS = 8
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
OFFLINE = "or download it elsewhere and add the file or folder"
_REFUSALS = {
    401: "wants a login",
    403: "does not allow it; it may want a login or an agreement on its web page",
    404: "has no such file; look for a newer address",
    407: "is behind a proxy that wants a login; set HTTPS_PROXY to http://user:password@host:port",
    410: "has removed the file; look for a newer address",
    451: "may not give it out here",
}


def download(remote: Remote, folder: Path, progress: Progress, limits: Limits | None = None) -> Path:
    """Fetch a file into `folder`; what an earlier call left half done is gone on with.

    Returns:
        Its path; the caller removes it when it has served.

    Raises:
        DownloadError: the address, the network, the server or what came is at fault; the sentence says what to do.
        OutputError: the disk is full, or `folder` can't be written.
        Cancelled: by `progress`; the next call goes on from there.
    """
    _require_allowed(remote.address)
    key = sha256(f"{remote.address}\n{remote.checksum}".encode()).hexdigest()[:32]
    part = _Part(folder / f"{key}.part", remote)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        _fetch(remote, part, progress, limits or Limits())
        whole = part.path.with_suffix(".whole")
        part.path.replace(whole)
        part.note.unlink(missing_ok=True)
    except OSError as error:
        part.discard()
        raise cannot_write(folder, error) from error
    finally:
        if not part.size:
            part.discard()
    return whole


def forget_old_parts(folder: Path, days: float = 14) -> None:
    """Remove what was left half done longer ago than that, and whole files that nobody fetched."""
    oldest = time.time() - days * 86_400
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.suffix == ".whole" or path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


class _Transient(Exception):
    """An attempt failed in a way that the next may not; carries the sentence for when none is left."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _NoLogin(AuthBase):
    """Sends no password, so that none is taken from the user's .netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Part:
    """A file that is half there, and a note beside it of where it comes from."""

    def __init__(self, path: Path, remote: Remote) -> None:
        self.path = path
        self.note = path.with_suffix(".json")
        self._remote = remote
        self.resumed = False

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self) -> str | None:
        """What makes the server go on only with the same content; "" where only the promised hash can tell.

        None: what is there can't be gone on with.
        """
        if not self.size:
            return None
        try:
            noted = read_json(self.note)
        except SpecError:
            return None
        if noted.get("address") != self._remote.address:
            return None
        validator = str(noted.get("validator") or "")
        return validator if validator or self._remote.checksum else None

    def begin(self, response: requests.Response) -> None:
        """Start anew, and note what the server says of its content."""
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps({"address": self._remote.address, "validator": validator}), encoding="utf-8")
        self.resumed = False

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.resumed = False


def _require_allowed(address: str, before: str | None = None) -> None:
    """Raise `DownloadError` unless the address is https, or http on this computer (from there only, if redirected)."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{shown(address)} is no address: {error}.") from error
    local = parts.scheme == "http" and host in LOOPBACK and (before is None or urlsplit(before).scheme == "http")
    if not host or not (parts.scheme == "https" or local) or port == 0:
        sent = f"{before} leads on to {shown(address)}, which" if before else shown(address)
        raise DownloadError(f"{sent} is no address that MedAI downloads from; only https:// is.")
    if parts.username or parts.password:
        raise DownloadError(f"The address at {host} has a user or password in it; {OFFLINE.removeprefix('or ')}.")


def _fetch(remote: Remote, part: _Part, progress: Progress, limits: Limits) -> None:
    """Bring the part to its end and compare it with what was promised."""
    while True:
        with requests.Session() as session:
            session.auth = _NoLogin()
            session.headers["User-Agent"] = f"medai/{VERSION}"
            # Ranges count bytes as sent; a compressed answer would also hide how much comes.
            session.headers["Accept-Encoding"] = "identity"
            session.trust_env = urlsplit(remote.address).scheme == "https"  # no proxy to this computer itself
            _fetch_patiently(session, remote, part, progress, limits)
        problem = _mismatch(part.path, remote)
        if problem is None:
            return
        resumed = part.resumed
        part.discard()
        if not resumed:  # joined from two different files, perhaps: once more from the start
            raise problem


def _mismatch(path: Path, remote: Remote) -> DownloadError | None:
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return DownloadError(
            f"{remote.address} gave {size} bytes, not the {remote.size} that were promised; try again later, {OFFLINE}."
        )
    if remote.checksum is not None:
        algorithm, promised = remote.checksum
        found = file_digest(path, algorithm)
        if found != promised:
            return DownloadError(
                f"{remote.address} gave another file than promised ({algorithm.upper()} {found}, promised {promised}); "
                "nothing was kept of it. Try again later, or ask its publisher."
            )
    return None


def _fetch_patiently(
    session: requests.Session, remote: Remote, part: _Part, progress: Progress, limits: Limits
) -> None:
    fruitless = 0
    for _ in range(MOST_ATTEMPTS):
        before = part.size
        try:
            _attempt(session, remote, part, progress, limits)
            return
        except _Transient as error:
            fruitless = 0 if part.size > before else fruitless + 1
            last = error
        if fruitless > len(PAUSES_S):
            break
        _pause(PAUSES_S[fruitless - 1] if fruitless else PAUSES_S[0], progress)
    raise DownloadError(last.sentence)


def _pause(seconds: float, progress: Progress) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress.step(0, 1, "Waiting to try again:")
        time.sleep(min(left, 0.2))


def _attempt(session: requests.Session, remote: Remote, part: _Part, progress: Progress, limits: Limits) -> None:
    validator = part.validator()
    headers = {}
    if validator is not None:
        headers = {"Range": f"bytes={part.size}-"} | ({"If-Range": validator} if validator else {})
    with closing(_answer(session, remote.address, headers)) as response:
        total = _total(response, remote, part)
        _receive(response, remote, part, total, progress, limits)
    if total is not None and part.size < total:
        raise _Transient(_broke_off(remote))


def _answer(session: requests.Session, address: str, headers: dict[str, str]) -> requests.Response:
    """The server's answer with a body to read, redirects followed to safe addresses only."""
    for _ in range(MOST_REDIRECTS):
        response = _get(session, address, headers)
        if not response.is_redirect:
            break
        response.close()
        address = _onward(address, response.headers["Location"])
    else:
        raise DownloadError(f"{shown(address)} leads on and on; look for a newer address.")
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    host, code = urlsplit(address).hostname, response.status_code
    if code in TRANSIENT:
        raise _Transient(f"{host} is in trouble (HTTP {code}); try again later, {OFFLINE}.")
    reason = _REFUSALS.get(code, "does not give the file")
    raise DownloadError(f"{shown(address)} can't be downloaded (HTTP {code}): {host} {reason}, {OFFLINE}.")


def _onward(address: str, location: str) -> str:
    """Where a redirect leads.

    Raises:
        DownloadError: to no address, or to none that MedAI downloads from.
    """
    try:
        onward = urljoin(address, location)
    except ValueError as error:
        raise DownloadError(f"{address} leads on to {shown(location)}, which is no address.") from error
    _require_allowed(onward, address)
    return onward


def _get(session: requests.Session, address: str, headers: dict[str, str]) -> requests.Response:
    host = urlsplit(address).hostname
    try:
        request = session.prepare_request(requests.Request("GET", address, headers=headers))
        settings = session.merge_environment_settings(address, {}, True, None, None)
        # Not by the session, which would read a redirect's content to its end, however long that is.
        return session.get_adapter(address).send(request, timeout=TIMEOUT_S, **settings)
    except (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL) as error:
        raise DownloadError(
            f"{host} can't be reached through the proxy; check the environment variables HTTPS_PROXY and NO_PROXY, "
            f"{OFFLINE}."
        ) from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"{host} can't show who it is, so that nothing was downloaded; behind a network that checks https set "
            f"REQUESTS_CA_BUNDLE to its certificates, {OFFLINE}."
        ) from error
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidHeader,
        requests.exceptions.InvalidSchema,
    ) as error:
        raise DownloadError(f"{shown(address)} is no address to download from.") from error
    except requests.exceptions.RequestException as error:
        if any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
            raise DownloadError(
                f"{host} can't be found; check the network connection and the address, {OFFLINE}."
            ) from error
        late = isinstance(error, requests.exceptions.Timeout)
        why = "does not answer in time" if late else "can't be reached"
        raise _Transient(f"{host} {why}; check the network connection and try again, {OFFLINE}.") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _total(response: requests.Response, remote: Remote, part: _Part) -> int | None:
    """The file's whole size as the server says; the part is made ready for what comes."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{remote.address} sends the file in an encoding that was not asked for, {OFFLINE}.")
    if response.status_code == 200:
        _require_no_page(response.headers.get("Content-Type", ""), remote)
        part.begin(response)
        length = response.headers.get("Content-Length", "")
        return int(length[:18]) if length.isascii() and length.isdigit() else None
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    if response.status_code == 206 and first == str(part.size) and total.isascii() and total.isdigit():
        part.resumed = True
        return int(total[:18])
    part.discard()
    raise _Transient(f"{remote.address} can't be gone on with where it broke off; try again, {OFFLINE}.")


def _receive(
    response: requests.Response,
    remote: Remote,
    part: _Part,
    total: int | None,
    progress: Progress,
    limits: Limits,
) -> None:
    size, first = part.size, True
    with part.path.open("ab") as file:
        for piece in _pieces(response, remote):
            if first:
                _require_expected(piece, total, remote, part, limits)
                first = False
            size += len(piece)
            if size > limits.download_bytes or (total is not None and size > total):
                part.discard()
                raise _too_large(remote, limits)
            file.write(piece)
            file.flush()
            progress.step(*in_kilobytes(size, total, "Downloading"))


def _require_expected(piece: bytes, total: int | None, remote: Remote, part: _Part, limits: Limits) -> None:
    """Raise `DownloadError` when the first piece, or the size that the server says, shows that it is another file."""
    if part.size == 0 and piece.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        _require_no_page("text/html", remote)
    if total is not None and total > limits.download_bytes:
        part.discard()
        raise _too_large(remote, limits)
    if total is not None and remote.size is not None and total != remote.size:
        part.discard()
        raise DownloadError(
            f"{remote.address} has {total} bytes, not the {remote.size} that were promised; look for a newer address, "
            f"{OFFLINE}."
        )


def _pieces(response: requests.Response, remote: Remote) -> Iterator[bytes]:
    try:
        yield from response.iter_content(CHUNK)
    except requests.exceptions.RequestException as error:
        raise _Transient(_broke_off(remote)) from error


def _broke_off(remote: Remote) -> str:
    return f"The download of {remote.address} broke off; try again to go on from there, {OFFLINE}."


def _too_large(remote: Remote, limits: Limits) -> DownloadError:
    return DownloadError(
        f"{remote.address} gives more than it promised or than the {limits.download_bytes / 1e6:,.0f} MB that a "
        "download may have; nothing was kept of it."
    )


def _require_no_page(kind: str, remote: Remote) -> None:
    if kind.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise DownloadError(
            f"{remote.address} gave a web page, not a file; a login page or a proxy may be in between: open it in a "
            "browser, download the file there and add it."
        )
