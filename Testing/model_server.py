"""A web server on this computer that gives out models, well or badly."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What the server does with a path.

    Args:
        body: the file.
        status, headers: instead of 200 and the usual ones; None as a header's value leaves it out.
        ranges: whether it goes on where a client asks it to.
        tag: the ETag.
        breaks: after how many bytes of the body it hangs up, request for request; afterwards it gives all.
        act: takes the whole request over.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str | None] = field(default_factory=dict)
    ranges: bool = True
    tag: str | None = '"one"'
    breaks: list[int] = field(default_factory=list)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


class ModelServer(ThreadingHTTPServer):
    """Answers by path, and remembers the headers of every request."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._scheme = "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self._scheme = "https"
        self.answers: dict[str, Answer] = {}
        self.requests: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_port}"

    def give(self, path: str, body: bytes = b"", **how: object) -> str:
        """Answer a path from now on; returns its address."""
        self.answers[path] = Answer(body, **how)  # type: ignore[arg-type]
        return self.address + path


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        answer = self.server.answers.get(self.path, Answer(b"nothing here", 404))
        if answer.act is not None:
            answer.act(self)
            return
        start = self._start(answer)
        status = 206 if start else answer.status
        body = answer.body[start:]
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/zip", "ETag": answer.tag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
        self.send_response(status)
        for key, value in (headers | answer.headers).items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: answer.breaks.pop(0)] if answer.breaks else body)
        self.close_connection = True

    def _start(self, answer: Answer) -> int:
        span = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        if not answer.ranges or not span or (condition is not None and condition != answer.tag):
            return 0
        return int(span.removeprefix("bytes=").partition("-")[0])

    def do_CONNECT(self) -> None:
        """As a proxy, it lets nobody through."""
        self.send_error(403)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client may leave at any time
            super().handle()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[ModelServer]:
    """A server that runs while the block does; with https where a context is given."""
    with ModelServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
