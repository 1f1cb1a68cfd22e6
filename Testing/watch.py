"""Watches what a process does while it looks at a model: what is executed, started, unpickled, written or connected.

Python's own audit events tell; a hook can't be taken out again, so that it is there once and is armed for a while.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Never on the way of a model, whatever it is.
FORBIDDEN = (
    "ctypes.call_function", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.system", "pickle.find_class", "pty.spawn", "shutil.copyfile", "shutil.move", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "urllib.Request", "webbrowser.open",
)  # fmt: skip
CHANGING = (
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "shutil.rmtree",
)  # fmt: skip
WITHIN = ("os.chmod", "os.mkdir", "os.remove", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MAKERS = (os.path.join("", "dataclasses.py"), os.path.join("collections", "__init__.py"))  # noqa: PTH118
SPECIAL = ("/dev/null", "/dev/shm", "/proc/self")


class Watch:
    """The one hook of this process.

    Args:
        report: told of each forbidden event, in words.
        models: the folder in which hostile models lie; code that comes from there is never executed.
        writable: folders that may be written to.
    """

    def __init__(self, report: Callable[[str], None], models: Path, writable: tuple[Path, ...] = ()) -> None:
        self.report = report
        self.models, self.writable = str(models), tuple(str(path) for path in writable)
        self.armed = False
        sys.addaudithook(self._hear)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.armed = True
        try:
            yield
        finally:
            self.armed = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN:
            self._tell(event, arguments)
        elif (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING) or event in CHANGING:
            self._touched(event, arguments[0], arguments)
        elif event == "exec":
            file = getattr(arguments[0], "co_filename", "")
            # The standard library makes dataclasses and named tuples so.
            caller = sys._getframe(1).f_code.co_filename
            if file.startswith(self.models) or (file == "<string>" and not caller.endswith(MAKERS)):
                self._tell(event, (file, getattr(arguments[0], "co_names", ())))
        elif event == "import" and isinstance(arguments[1], str) and arguments[1].startswith(self.models):
            self._tell(event, arguments[:2])

    def _touched(self, event: str, path: Any, arguments: tuple[Any, ...]) -> None:
        if isinstance(path, int):  # a file that is open already
            return
        name = os.fsdecode(path)
        if event in WITHIN and isinstance(arguments[-1], int) and arguments[-1] >= 0:  # a name in a folder that is open
            name = os.path.join(os.readlink(f"/proc/self/fd/{arguments[-1]}"), name)  # noqa: PTH115, PTH118
        name = os.path.abspath(name)  # noqa: PTH100  no Path here: resolving would itself be heard
        if not name.startswith((*self.writable, *SPECIAL)) and "__pycache__" not in name:
            self._tell(event, arguments)

    def _tell(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.armed = False  # what the report itself does is not of interest
        try:
            self.report(f"{event} {arguments!r}"[:300])
        finally:
            self.armed = True
