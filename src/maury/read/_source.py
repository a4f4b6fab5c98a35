"""Opening a file at the door: what it is, by its content, with one sentence for everything that can be wrong."""

from __future__ import annotations

import gzip
import mmap
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from maury.errors import ReadError
from maury.read._fits import Hdu, read_hdus

MAX_UNPACKED = 8 * 1024**3
"""Bytes that a .gz file may unfold to; beyond it is no spectrum file (MaStar, the largest we know, has 5 GB)."""
_MAP_ABOVE = 64 * 1024**2
_MAX_TEXT = 512 * 1024**2

FOREIGN = {
    b"PK\x03\x04": "a zip or numpy .npz archive; load it with numpy and use Spectra.from_arrays",
    b"\x93NUMPY": "a numpy array; load it with numpy and use Spectra.from_arrays",
    b"\x89HDF": "an HDF5 file; convert it to FITS or ECSV",
    b"PAR1": "a Parquet table; convert it to FITS or ECSV",
    b"\x89PNG": "a picture; give the file that holds the spectrum",
    b"%PDF": "a PDF; give the file that holds the spectrum",
    b"BZh": "a bzip2 file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
}


@dataclass(frozen=True, eq=False)
class Source:
    """One opened file: FITS units, or text. ``kind`` is "fits", "votable", "ecsv" or "text";
    ``format`` is the name of the format once it is recognised."""

    path: Path
    kind: str
    hdus: tuple[Hdu, ...] = ()
    text: str = ""
    format: str = ""

    @property
    def stem(self) -> str:
        """File name without folder and endings; the base of the ids."""
        name = self.path.name
        for ending in (".gz", ".fits", ".fit", ".fts", ".csv", ".ecsv", ".vot", ".xml", ".txt", ".dat"):
            if name.lower().endswith(ending) and len(name) > len(ending):
                name = name[: -len(ending)]
        return name

    def tables(self) -> list[Hdu]:
        """The binary tables among the units."""
        return [hdu for hdu in self.hdus if hdu.kind == "table"]

    def named(self, name: str) -> Hdu | None:
        """The unit with this EXTNAME (case does not matter), or None."""
        return next((hdu for hdu in self.hdus if hdu.name.upper() == name.upper()), None)


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a file and find out what it is.

    Raises
    ------
    ReadError
        If it is absent, a folder, unreadable, empty, truncated, or neither FITS nor a text table.
    """
    file = Path(path)
    content = _load(file)
    head = bytes(content[:16])
    if head[:2] == b"\x1f\x8b":
        content = memoryview(_unpack(content))
        head = bytes(content[:16])
    if head[:6] == b"SIMPLE":
        return Source(file, "fits", hdus=read_hdus(content))
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise ReadError(f"expected a FITS file or a text table, got {what}")
    return _text_source(file, content)


def _load(file: Path) -> memoryview:
    try:
        if not file.exists():
            raise ReadError("expected a file, found none of that name; check the path")
        if not file.is_file():
            what = "a folder" if file.is_dir() else "a device or pipe"
            raise ReadError(f"expected a file, got {what}; name the spectrum files themselves")
        size = file.stat().st_size
        if size == 0:
            raise ReadError("expected a spectrum, got an empty file (0 bytes); fetch it again")
        with file.open("rb") as stream:
            if size < _MAP_ABOVE:
                return memoryview(stream.read())
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except PermissionError:
        raise ReadError("expected a readable file, got no permission to read it; change its rights") from None
    except (OSError, ValueError) as error:
        raise ReadError(f"expected a readable file, the system says {error}; check the path and the disk") from None


def _unpack(content: memoryview) -> bytes:
    import io

    limit = min(MAX_UNPACKED, 256 * 1024**2 + 50 * len(content))  # spectra shrink by 2 to 10; beyond 50 it is a gzip bomb
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            unpacked = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error):
        raise ReadError("expected a whole gzip file, got a truncated or damaged one; fetch it again") from None
    if len(unpacked) > limit:
        raise ReadError(
            f"expected a gzip file of at most {limit >> 20} MiB unpacked, got more; unpack it and read it uncompressed"
        )
    if not unpacked:
        raise ReadError("expected a spectrum, got a gzip file of nothing (0 bytes); fetch it again")
    return unpacked


def _text_source(file: Path, content: memoryview) -> Source:
    if len(content) > _MAX_TEXT:
        raise ReadError("expected a text table of at most 512 MiB, got a larger file; convert it to FITS")
    try:
        text = str(content, "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ReadError("expected a FITS file or a text table, got binary content of another kind (or damaged); check the file")
    start = text.lstrip()[:2000]
    if not start:
        raise ReadError("expected a spectrum, got an empty file (white space only); fetch it again")
    if start.startswith("<"):
        if "<VOTABLE" in start.upper():
            return Source(file, "votable", text=text)
        raise ReadError(
            "expected a FITS file or a text table, got XML or HTML that is no VOTable (an error page?); fetch it again"
        )
    return Source(file, "ecsv" if start.startswith("# %ECSV") else "text", text=text)
