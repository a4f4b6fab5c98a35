"""Files of a web archive, fetched so that a cut connection, a kill or a lying server costs little and is noticed.

Why not pooch or ``urllib.request.urlretrieve``: neither goes on with a partial file (pooch 1.8 starts every try anew), and a grid
is thousands of files. Only ``http`` and ``https``, with certificates checked; no redirection leaves them or falls from https to
http.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Event
from typing import IO, Any
from urllib.parse import quote, urlsplit

from maury import __version__
from maury.errors import ReadError, UsageError
from maury.files import one_line, written

Count = Callable[[int], None]

_CHUNK = 1 << 16
_LARGEST = 1 << 28  # bytes; the largest file we ask for has 13 MB: an endless answer must not fill the disk
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP states that may be otherwise in a moment (RFC 9110, RFC 6585)
_ABSENT = (404, 410)
_NO_METHOD = (405, 501)
_FORM = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.IGNORECASE)


class FetchError(ReadError):
    """A file could not be had from the archive, after all tries."""


class MissingFileError(FetchError):
    """The archive says that it has no such file."""


class _NoHeadError(FetchError):
    """The archive does not know HEAD requests."""


class StoppedError(FetchError):
    """The caller asked to stop."""


class _PassingError(Exception):
    """A try failed that another try may mend; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Original:
    """What was fetched.

    Parameters
    ----------
    size : bytes.
    sha256 : of those bytes, 64 hexadecimal digits.
    """

    size: int
    sha256: str


def original_of(path: Path) -> Original:
    """Size and hash of a file that is here."""
    content = path.read_bytes()
    return Original(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Parameters
    ----------
    attempts : tries per file without progress; a try that brought at least 64 kB counts as progress.
    first_wait, longest_wait : seconds before the second try; doubled each time up to the longest.
    timeout : seconds without a byte after which a connection counts as cut.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or self.longest_wait < 0 or self.timeout <= 0:
            raise UsageError(f"expected attempts >= 1, waits >= 0 s and timeout > 0 s, got {self}; correct them")

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures (1, 2, ...)."""
        return float(min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait))


@dataclass(frozen=True)
class Archive:
    """A web archive.

    Parameters
    ----------
    address : base address, ``http(s)://host[:port][/folder]``, without user name, query or fragment.
    patience : how long to try.
    stop : set by the caller to make all downloads end at once with :class:`StoppedError`.

    Raises
    ------
    UsageError
        If the address has another form.
    """

    address: str
    patience: Patience = field(default_factory=Patience)
    stop: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", _checked_address(self.address))

    def url(self, name: str) -> str:
        """Full address of the file ``name`` (a path below the base); ``+`` and ``=`` in names are escaped, as servers differ."""
        return f"{self.address}/{quote(name)}"

    def size(self, name: str) -> int | None:
        """Size of a file in bytes as the archive states it; None if it does not say, or answers no HEAD request.

        Raises
        ------
        FetchError
            If the archive does not answer, or has no such file (:class:`MissingFileError`).
        """
        try:
            with self._retried(name, lambda: self._open(name, {}, "HEAD"), tries=min(2, self.patience.attempts)) as answer:
                return _number(answer.headers.get("Content-Length"))
        except _NoHeadError:
            return None

    def fetch(self, name: str, path: Path, count: Count | None = None) -> Original:
        """Fetch one file, going on with what of it lies at ``path`` already.

        The part goes on with an HTTP range request (RFC 9110, section 14) guarded by ``If-Range`` with the strong ETag or the
        date that the server gave with its first bytes (kept in ``path`` + ``.json``), so that two versions of a file are never
        joined; without such a mark, or where the server ignores ranges, the file is fetched anew.

        Parameters
        ----------
        name : path below the base address.
        path : where the file is to be; incomplete until this returns.
        count : called with the number of bytes of each piece as it comes; negative where bytes had to be dropped.

        Raises
        ------
        MissingFileError, FetchError, StoppedError
            As their names say; the part stays at ``path`` for another try.
        UsageError
            If ``path`` cannot be written.
        """
        self._retried(name, lambda: self._continue(name, path, count or (lambda _: None)), path, tries=self.patience.attempts)
        _mark(path).unlink(missing_ok=True)
        return original_of(path)

    def _retried(self, name: str, attempt: Callable[[], Any], path: Path | None = None, *, tries: int) -> Any:
        """The result of ``attempt``, tried again with growing waits while it fails in a passing way."""
        failures, most = 0, _size(path)
        while True:
            if self.stop.is_set():
                raise StoppedError("stopped")
            try:
                return attempt()
            except _PassingError as failure:
                have = _size(path)
                failures = 1 if have >= most + _CHUNK else failures + 1
                most = max(have, most)
                if failures >= tries:
                    raise FetchError(
                        f"expected {self.url(name)}, got {failure} in {failures} tries; try again later or name another --archive"
                    ) from None
                self.stop.wait(max(self.patience.wait(failures), min(failure.wait, self.patience.longest_wait)))

    def _open(self, name: str, headers: dict[str, str], method: str = "GET") -> Any:
        """The server's answer to one request; its state is 200 or 206, or 416 for a range it cannot serve."""
        ours = {"User-Agent": f"maury/{__version__}", "Accept-Encoding": "identity"}
        request = urllib.request.Request(self.url(name), headers=ours | headers, method=method)
        try:
            return _opener().open(request, timeout=self.patience.timeout)
        except urllib.error.HTTPError as answer:
            if answer.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return answer
            with answer:
                raise self._refusal(name, answer) from None
        except ValueError as failure:  # a host name that is none, which may come with a redirection (UnicodeError is one)
            raise FetchError(
                f"expected {self.url(name)}, got an impossible address ({_reason(failure)}); check --archive"
            ) from None
        except urllib.error.URLError as failure:
            if isinstance(failure.reason, ssl.SSLCertVerificationError):
                raise FetchError(
                    f"expected a server with a valid certificate at {self.address}, got: {failure.reason.verify_message}; check "
                    "the address and the certificates of this computer"
                ) from None
            raise _PassingError(f"no connection ({_reason(failure.reason)})") from None
        except (OSError, http.client.HTTPException) as failure:
            raise _PassingError(f"no answer ({_reason(failure)})") from None

    def _refusal(self, name: str, answer: urllib.error.HTTPError) -> Exception:
        """What an HTTP state of 300 and above means."""
        what = f"HTTP state {answer.code} ({_reason(answer.reason)})"
        if answer.code in _PASSING:
            return _PassingError(what, _number(answer.headers.get("Retry-After")) or 0)
        error = MissingFileError if answer.code in _ABSENT else _NoHeadError if answer.code in _NO_METHOD else FetchError
        return error(f"expected {self.url(name)}, got {what}; check the --archive address")

    def _continue(self, name: str, path: Path, count: Count) -> None:
        """One try: ask for what is missing, append what comes; returns only when the file is complete."""
        have, mark = _size(path), _read_mark(path)
        if have and not mark:
            have = _drop(path, count)
        headers = {"Range": f"bytes={have}-", "If-Range": mark} if have else {}
        with self._open(name, headers) as answer:
            state = answer.status
            if state == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and answer.headers.get("Content-Range") == f"bytes */{have}":
                return  # killed after the last byte had come
            total = _number(answer.headers.get("Content-Length"))
            if state == http.client.PARTIAL_CONTENT:
                start, total = _content_range(answer.headers.get("Content-Range", ""))
                if have and _version(answer.headers) not in ("", mark):
                    start = -1  # a server that knows ranges and not If-Range sends the rest of another version
            else:
                start = 0
            if have and start != have:
                have = _drop(path, count)
            if start != have or state not in (http.client.OK, http.client.PARTIAL_CONTENT):
                raise _PassingError(f"an answer to another range of bytes (HTTP state {state})")
            if not have:
                _write_mark(path, answer.headers)
            have += self._append(answer, path, count)
        if total is not None and have != total:
            raise _PassingError(f"{have} of {total} bytes")

    def _append(self, answer: http.client.HTTPResponse, path: Path, count: Count) -> int:
        """Write the body as it comes; the number of bytes, fewer than promised if the connection ends early."""
        written = 0
        with _writing(path) as handle:
            while not self.stop.is_set():
                try:
                    piece = answer.read1(_CHUNK)  # what is here: read() would wait for all of it, and lose it on a cut
                except (OSError, http.client.HTTPException) as failure:
                    raise _PassingError(f"a cut connection ({_reason(failure)})") from None
                if not piece:
                    return written
                handle.write(piece)
                handle.flush()
                written += len(piece)
                count(len(piece))
                if handle.tell() > _LARGEST:
                    raise FetchError(f"expected less than {_LARGEST} bytes from {self.address}, got more; check the address")
        raise StoppedError("stopped")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise FetchError(f"expected an answer from {req.full_url}, got sent on to {newurl!r}; name a safe --archive address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@cache
def _opener() -> urllib.request.OpenerDirector:
    """http and https only (the library's default also opens ftp and local files); proxies from the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        _SafeRedirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _checked_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        right = _FORM.fullmatch(address) is not None and address.isascii() and address.isprintable() and (parts.port or 1) > 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # the port is no number, or the host name has an empty part
        right = False
    if not right:
        raise UsageError(f"expected an archive as http(s)://host/folder, got {address!r}; correct --archive")
    return address.rstrip("/")


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_mark(path: Path) -> str:
    """The mark of the version whose first bytes lie at ``path``; "" if there is none."""
    try:
        return str(json.loads(_mark(path).read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _version(headers: Any) -> str:
    """Strong ETag or date; a weak ETag may stand for different bytes and is of no use here (RFC 9110, section 13.1.5)."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _write_mark(path: Path, headers: Any) -> None:
    with _writing(_mark(path), "wb") as handle:
        handle.write(json.dumps({"version": _version(headers)}).encode())


def _drop(path: Path, count: Count) -> int:
    """Forget the part at ``path``; 0, the bytes that are left."""
    count(-_size(path))
    with written(path):
        path.unlink(missing_ok=True)
        _mark(path).unlink(missing_ok=True)
    return 0


def _content_range(text: str) -> tuple[int, int | None]:
    """First byte and total size from ``bytes 100-199/200``; -1 where it has another form."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    return (int(found[1]), _number(found[2])) if found else (-1, None)


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.is_file() else 0


def _number(text: str | None) -> int | None:
    """A count of bytes or seconds; None for other text, or more digits than any file has (int() refuses thousands)."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) else None


def _reason(failure: object) -> str:
    """In one line, without the control characters that a server may send to a terminal."""
    text = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
    text = one_line(Exception(text)) if text else type(failure).__name__
    return "".join(letter for letter in text if letter.isprintable())[:200]


@contextmanager
def _writing(path: Path, mode: str = "ab") -> Iterator[IO[bytes]]:
    """An open file whose ``OSError`` is a sentence."""
    with written(path), open(path, mode) as handle:
        yield handle
