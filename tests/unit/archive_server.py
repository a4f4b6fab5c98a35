"""A web archive on 127.0.0.1 that serves a folder and misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Fault:
    """What goes wrong with one answer: an HTTP ``state`` with its ``reason``, the connection ends after ``cut`` bytes of the
    body, the answer is ``short``: that many bytes, stated as if they were all, or it states another ``length``."""

    state: int = 200
    cut: int | None = None
    short: int | None = None
    retry_after: str = ""
    reason: str | None = None
    length: str = ""


@dataclass
class ArchiveServer:
    """Serves ``folder``.

    ``faults``: by the end of a path, the answers that go wrong, first to last; later answers are right.
    ``ranges``: whether the server knows range requests, ``if_range``: whether it heeds their condition, ``head``: HEAD requests;
    ``etag``: whether it names versions (else it gives no mark at all).
    ``delay``: seconds before each 64 kB, to have time for a kill.
    ``asked``: (method, path, Range header) of all requests so far.
    """

    folder: Path
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    head: bool = True
    etag: bool = True
    delay: float = 0.0
    lengths: bool = True
    redirect: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def gets(self, ending: str = "") -> list[tuple[str, str]]:
        """Path and Range of all GET requests for paths that end so."""
        return [(path, span) for method, path, span in self.asked if method == "GET" and path.endswith(ending)]

    def fault(self, path: str) -> Fault:
        for ending, faults in self.faults.items():
            if path.endswith(ending) and faults:
                return faults.pop(0)
        return Fault()


@contextmanager
def serving(server: ArchiveServer) -> Iterator[ArchiveServer]:
    """Run it in a thread on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _answer(self, server, body=False)

        def do_GET(self) -> None:
            _answer(self, server, body=True)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, server: ArchiveServer, body: bool) -> None:
    path, span = unquote(handler.path), handler.headers.get("Range", "")
    server.asked.append((handler.command, path, span))
    handler.close_connection = True
    fault = server.fault(path) if body else Fault(state=200 if server.head else 405)
    file = server.folder / path.lstrip("/")
    if server.redirect:
        handler.send_response(302)
        handler.send_header("Location", server.redirect)
        handler.end_headers()
        return
    if fault.state != 200 or not file.is_file():
        handler.send_response(fault.state if fault.state != 200 else 404, fault.reason)
        if fault.retry_after:
            handler.send_header("Retry-After", fault.retry_after)
        handler.end_headers()
        return
    content = file.read_bytes()[: fault.short]
    version = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    condition = handler.headers.get("If-Range", version) if server.if_range else version
    start = _start(span, condition, version) if server.ranges else 0
    if start and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if server.lengths:
        handler.send_header("Content-Length", fault.length or str(len(content) - start))
    if server.etag:
        handler.send_header("ETag", version)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    if body:
        _send(handler, content[start : None if fault.cut is None else start + fault.cut], server.delay)


def _start(span: str, condition: str, version: str) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", span)
    return int(found[1]) if found and condition == version else 0


def _send(handler: BaseHTTPRequestHandler, content: bytes, delay: float) -> None:
    try:
        for at in range(0, len(content), 1 << 16):
            time.sleep(delay)
            handler.wfile.write(content[at : at + (1 << 16)])
    except (BrokenPipeError, ConnectionResetError):  # the client was killed: what the test is about
        pass
