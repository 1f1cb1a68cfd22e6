"""Downloads from a real server on this computer: resumed, compared, refused; nothing is left half there."""

import contextlib
import hashlib
import random
import shutil
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import ModelServer, serving

from MedAILib.errors import DownloadError, OutputError
from MedAILib.progress import Cancelled, Progress
from MedAILib.store.download import CHUNK, download
from MedAILib.store.limits import Limits
from MedAILib.store.remote import Remote

BODY = b"PK" + random.Random(1).randbytes(900_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
SHA1 = hashlib.sha1(BODY, usedforsecurity=False).hexdigest()
OTHER = b"PK" + random.Random(2).randbytes(900_000)


@pytest.fixture(scope="module")
def server() -> ModelServer:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch, server: ModelServer) -> None:
    monkeypatch.setattr("MedAILib.store.download.PAUSES_S", (0.0, 0.0, 0.0))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.requests.clear()


class StopsAt(Progress):
    """Is cancelled at its n-th step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, done: int, total: int, text: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled


@pytest.mark.parametrize("promised", [{"sha256": SHA256}, {"sha1": SHA1}, {"sha256": SHA256.upper(), "sha1": "0"}, {}])
def test_a_file_comes_whole(server: ModelServer, tmp_path: Path, promised: dict[str, str]) -> None:
    path = download(Remote(server.give("/a.zip", BODY), size=len(BODY), **promised), tmp_path, Progress())
    assert path.read_bytes() == BODY
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("breaks", [[1], [450_000], [len(BODY) - 1], [0, 7, 300_001, 400_000], [262_144] * 3])
def test_a_download_that_breaks_off_is_resumed(server: ModelServer, tmp_path: Path, breaks: list[int]) -> None:
    remote = Remote(server.give("/a.zip", BODY, breaks=list(breaks)), SHA256)
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY
    expected, had = [None], 0
    for broken in breaks:
        had += broken // CHUNK * CHUNK
        expected.append(f"bytes={had}-" if had else None)
    assert [request.get("Range") for request in server.requests] == expected


def test_a_server_that_can_t_resume_gives_all_again(server: ModelServer, tmp_path: Path) -> None:
    remote = Remote(server.give("/a.zip", BODY, breaks=[400_000, 600_000], ranges=False), SHA256)
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: ModelServer, tmp_path: Path) -> None:
    remote = Remote(server.give("/a.zip", OTHER))
    with pytest.raises(Cancelled):
        download(remote, tmp_path, StopsAt(2))
    server.give("/a.zip", BODY, tag='"two"')
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY


def test_a_file_that_changed_without_notice_is_fetched_anew(server: ModelServer, tmp_path: Path) -> None:
    remote = Remote(server.give("/a.zip", OTHER, tag=None), SHA256)
    with pytest.raises(Cancelled):
        download(remote, tmp_path, StopsAt(2))
    server.give("/a.zip", BODY, tag=None)
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY
    assert [request.get("Range") is None for request in server.requests] == [True, False, True]


def test_without_hash_and_tag_nothing_is_joined(server: ModelServer, tmp_path: Path) -> None:
    remote = Remote(server.give("/a.zip", OTHER, tag=None))
    with pytest.raises(Cancelled):
        download(remote, tmp_path, StopsAt(2))
    server.give("/a.zip", BODY, tag=None)
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY


def test_a_cancelled_download_goes_on_from_there(server: ModelServer, tmp_path: Path) -> None:
    remote = Remote(server.give("/a.zip", BODY), SHA256)
    with pytest.raises(Cancelled):
        download(remote, tmp_path, StopsAt(1))
    (part,) = tmp_path.glob("*.part")
    assert 0 < part.stat().st_size < len(BODY)
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY
    assert server.requests[-1]["Range"] and server.requests[-1]["If-Range"] == '"one"'


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_that_passes_is_waited_for(server: ModelServer, tmp_path: Path, status: int) -> None:
    left = [status, status]

    def act(request: BaseHTTPRequestHandler) -> None:
        code = left.pop(0) if left else 200
        body = BODY if code == 200 else b""
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    assert download(Remote(server.give("/a.zip", act=act), SHA256), tmp_path, Progress()).read_bytes() == BODY


def test_redirects_are_followed(server: ModelServer, tmp_path: Path) -> None:
    server.give("/real.zip", BODY)
    address = server.give("/a.zip", status=302, headers={"Location": "/real.zip"})
    assert download(Remote(address, SHA256), tmp_path, Progress()).read_bytes() == BODY


def test_no_password_of_the_user_is_sent(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    download(Remote(server.give("/a.zip", BODY)), tmp_path / "out", Progress())
    assert "Authorization" not in server.requests[-1]


def chunked(*pieces: bytes, **headers: str):
    """An answer without its length."""

    def act(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        for key, value in headers.items():
            request.send_header(key.replace("_", "-"), value)
        request.end_headers()
        for piece in pieces:
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")

    return act


def raw(answer: bytes):
    """Anything but an orderly answer."""

    def act(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(answer)
        request.close_connection = True

    return act


def endless(request: BaseHTTPRequestHandler) -> None:
    """A redirect with a text that never ends; the client has to leave."""
    request.send_response(302)
    request.send_header("Location", "http://example.invalid/")
    request.end_headers()
    with contextlib.suppress(ConnectionError):
        while True:
            request.wfile.write(BODY)


def promised_range(request: BaseHTTPRequestHandler) -> None:
    """A part of the file although all of it was asked for."""
    request.send_response(206)
    request.send_header("Content-Range", f"bytes 5-{len(BODY) - 1}/{len(BODY)}")
    request.send_header("Content-Length", str(len(BODY) - 5))
    request.end_headers()
    request.wfile.write(BODY[5:])


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
FAILURES: dict[str, tuple[dict, str]] = {
    "absent": ({"status": 404}, "no such file"),
    "removed": ({"status": 410}, "removed"),
    "forbidden": ({"status": 403}, "does not allow"),
    "login": ({"status": 401}, "wants a login"),
    "strange status": ({"status": 299}, "HTTP 299"),
    "server in trouble": ({"status": 500}, "try again later"),
    "server overloaded": ({"status": 503}, "try again later"),
    "range not to be had": ({"status": 416}, "can't be gone on with"),
    "web page": ({"body": HTML, "headers": {"Content-Type": "text/html; charset=utf-8"}}, "web page"),
    "web page that says it is an archive": ({"body": b"\n" + HTML}, "web page"),
    "another file": ({"body": OTHER}, "another file than promised"),
    "one bit changed": ({"body": BODY[:-1] + bytes([BODY[-1] ^ 1])}, "another file than promised"),
    "shorter than promised": ({"body": BODY[:-1]}, "promised"),
    "longer than promised": ({"body": BODY + b"x"}, "promised"),
    "nothing": ({"body": b""}, "promised"),
    "nothing, without a length": ({"act": chunked()}, "gave 0 bytes"),
    "other size, without a length": ({"act": chunked(BODY, b"x")}, "promised"),
    "too large by its length": ({"body": BODY, "headers": {"Content-Length": "3000000"}}, "gives more"),
    "absurd length": ({"body": BODY, "headers": {"Content-Length": "9" * 5000}}, "gives more"),
    "too large without a length": ({"act": chunked(*[BODY] * 4)}, "gives more"),
    "breaks off every time": ({"body": BODY, "ranges": False, "breaks": [1000] * 99}, "broke off"),
    "hangs up": ({"act": raw(b"")}, "check the network"),
    "no HTTP": ({"act": raw(b"SSH-2.0-OpenSSH_9.9\r\n")}, "check the network"),
    "endless headers": ({"act": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n")}, "check the network"),
    "part that nobody asked for": ({"act": promised_range}, "can't be gone on with"),
    "compressed on the way": ({"act": chunked(b"x", Content_Encoding="gzip")}, "encoding"),
    "leads to a file": ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "only https"),
    "leads away from https": ({"status": 302, "headers": {"Location": "http://example.invalid/a.zip"}}, "only https"),
    "leads to another scheme": ({"status": 301, "headers": {"Location": "ftp://example.invalid/a"}}, "only https"),
    "leads to what steers a terminal": (
        {"status": 302, "headers": {"Location": "ftp://x.invalid/\x1b]0;"}},
        "only https",
    ),
    "leads nowhere": ({"status": 302, "headers": {"Location": "http://[::"}}, "no address"),
    "leads in circles": ({"status": 302, "headers": {"Location": "/a.zip"}}, "on and on"),
    "leads away with an endless text": ({"act": endless}, "only https"),
    "leads to a password": ({"status": 302, "headers": {"Location": "https://u:p@example.invalid/"}}, "password"),
}
ADDRESSES = {
    "http://example.invalid/a.zip": "only https",
    "http://127.0.0.1.example.invalid/a.zip": "only https",
    "http://127.0.0.1@example.invalid/a.zip": "only https",
    "file:///etc/passwd": "only https",
    "ftp://127.0.0.1/a.zip": "only https",
    "https://": "only https",
    "https://user:secret@example.invalid/a.zip": "user or password",
    "https://[/a.zip": "no address",
    "https://example.invalid:99999/a.zip": "no address",
    "https://example.invalid/a.zip": "can't be found",
    "https://\u2024.invalid:1/": "address|network",
    "http://127.0.0.1:9/a.zip": "check the network",
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_says_why_and_keeps_nothing(failure: str, server: ModelServer, tmp_path: Path) -> None:
    how, sentence = FAILURES[failure]
    remote = Remote(server.give("/a.zip", **how), SHA256, size=len(BODY))
    with pytest.raises(DownloadError, match=sentence) as caught:
        download(remote, tmp_path / "here", Progress(), Limits(download_bytes=2_000_000))
    assert str(caught.value).isprintable()
    kept = [name for name in snapshot(tmp_path) if not name.startswith("here/")]
    parts = [name for name in snapshot(tmp_path) if not name.endswith((".part", ".json"))]
    assert (kept, parts) == ([], [])
    if "broke off" not in sentence:
        assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_won_t_do_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=ADDRESSES[address]) as caught:
        download(Remote(address, SHA256), tmp_path, Progress())
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert snapshot(tmp_path) == {}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, and its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("certificate")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext"]
    words += ["subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(folder / "own.pem")]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    return folder / "own.pem"


@pytest.fixture
def secure(certificate: Path) -> Iterator[ModelServer]:
    """A server with https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.parent / "key.pem")
    with serving(context) as running:
        yield running


def test_https_needs_a_certificate_that_is_trusted(
    secure: ModelServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(secure.give("/a.zip", BODY), SHA256)
    with pytest.raises(DownloadError, match="can't show who it is"):
        download(remote, tmp_path, Progress())
    assert secure.requests == [] and snapshot(tmp_path) == {}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert download(remote, tmp_path, Progress()).read_bytes() == BODY


def test_https_never_leads_to_http(
    secure: ModelServer, server: ModelServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    headers: dict[str, str | None] = {"Location": server.give("/a.zip", BODY)}
    with pytest.raises(DownloadError, match="only https"):
        download(Remote(secure.give("/a.zip", status=302, headers=headers)), tmp_path, Progress())
    assert server.requests == [] and snapshot(tmp_path) == {}


def test_a_server_that_falls_silent_is_not_waited_for(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedAILib.store.download.TIMEOUT_S", (5.0, 0.1))

    def silent(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        request.wfile.write(BODY[:200_000])
        request.connection.recv(1)  # until the client leaves

    with pytest.raises(DownloadError, match="broke off"):
        download(Remote(server.give("/a.zip", act=silent), SHA256), tmp_path, Progress())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.integers(0, len(BODY)), max_size=3), ranges=st.booleans(), tag=st.sampled_from([None, '"t"']))
def test_a_download_that_breaks_off_at_any_byte_comes_whole(
    server: ModelServer, breaks: list[int], ranges: bool, tag: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    remote = Remote(server.give("/a.zip", BODY, breaks=breaks, ranges=ranges, tag=tag), SHA256)
    assert download(remote, tmp_path_factory.mktemp("any"), Progress()).read_bytes() == BODY


@pytest.mark.parametrize("port", ["closed", "refusing"])
def test_a_proxy_that_fails_is_named(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9" if port == "closed" else server.address)
    with pytest.raises(DownloadError, match="HTTPS_PROXY"):
        download(Remote("https://example.invalid/a.zip", SHA256), tmp_path, Progress())


def test_a_full_disk_is_said_and_freed(server: ModelServer, tmp_path: Path) -> None:
    code = f"""
        import resource
        from pathlib import Path
        from MedAILib.errors import OutputError
        from MedAILib.progress import Progress
        from MedAILib.store.download import download
        from MedAILib.store.remote import Remote
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            download(Remote({server.give("/a.zip", BODY)!r}), Path({str(tmp_path)!r}), Progress())
        except OutputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "larger than allowed" in done.stdout and snapshot(tmp_path) == {}


def test_a_folder_that_can_t_be_written_is_said(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        download(Remote(server.give("/a.zip", BODY)), tmp_path / "file" / "folder", Progress())


def test_the_address_s_last_part_is_no_way_out(server: ModelServer, tmp_path: Path) -> None:
    address = server.give("/..%2F..%2Fevil.zip", BODY, headers={"Content-Disposition": 'filename="../../evil.zip"'})
    path = download(Remote(address, SHA256), tmp_path / "a" / "b", Progress())
    assert path.parent == tmp_path / "a" / "b" and len(snapshot(tmp_path)) == 1
