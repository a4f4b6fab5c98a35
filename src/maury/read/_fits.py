"""FITS read with care: structure checked against the file's length before anything is allocated.

Why not ``astropy.io.fits`` here: a survey is millions of small files, and opening one costs astropy about ten times
what its bytes cost; and a damaged header must neither allocate what it claims nor warn nor raise from the inside.
So this module walks the header blocks (FITS standard 4.0, sections 3, 4, 7), checks every size and hands out numpy
arrays. Only tile-compressed images (section 10) are left to astropy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError

BLOCK = 2880
CARD = 80
MAX_CARDS = 100_000  # HARPS headers, the longest we know, have about 3000 cards
_IMAGE_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_COLUMN_TYPES = {"L": "S1", "B": ">u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16"}
_TFORM = re.compile(r"^(\d{0,9})([LXBIJKAEDCMPQ])")

HeaderValue = str | int | float | bool | None


class Header:
    """The cards of one header; the first card of a keyword counts, values are parsed when asked for."""

    def __init__(self, cards: str) -> None:
        self._raw: dict[str, str] = {}
        last = ""
        for start in range(0, len(cards), CARD):
            card = cards[start : start + CARD]
            if card[8:10] == "= ":
                last = card[:8].rstrip()
                self._raw.setdefault(last, card[10:])
            elif card.startswith("HIERARCH "):
                key, _, value = card[9:].partition("=")
                last = key.strip().upper()
                self._raw.setdefault(last, value)
            elif card.startswith("CONTINUE") and last:
                self._raw[last] = _join_long_string(self._raw[last], card[8:])

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def __iter__(self) -> Iterator[str]:
        """All keywords, in the order of the header."""
        return iter(self._raw)

    def get(self, key: str) -> HeaderValue:
        """The value of a card: str, bool, int or float; None where absent or not in FITS form."""
        raw = self._raw.get(key)
        return None if raw is None else _parse_value(raw)

    def text(self, *keys: str) -> str:
        """The first of ``keys`` that holds something, as text; "" if none does."""
        for key in keys:
            value = self.get(key)
            if value not in (None, ""):
                return str(value)
        return ""

    def number(self, *keys: str) -> float:
        """The first of ``keys`` that holds a finite number; NaN if none does."""
        for key in keys:
            value = self.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        return math.nan

    def integer(self, key: str, default: int) -> int:
        """An integer card, ``default`` where absent; ReadError where it is no integer."""
        value = self.get(key)
        if value is None and key not in self._raw:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ReadError(f"expected an integer in header card {key}, got {value!r}: the header is damaged; fetch it again")
        return value


def _join_long_string(first: str, more: str) -> str:
    """CONTINUE convention: a string ending in & goes on in the next card."""
    head, tail = first.rstrip(), more.strip()
    if not head.startswith("'") or "&'" not in head or not tail.startswith("'"):
        return first
    return head[: head.rindex("&'")] + tail[1:]


def _parse_value(raw: str) -> HeaderValue:
    text = raw.strip()
    if text.startswith("'"):
        end = text.find("'", 1)
        while end != -1 and text[end : end + 2] == "''":
            end = text.find("'", end + 2)
        return None if end == -1 else text[1:end].replace("''", "'").rstrip()
    token = text.partition("/")[0].strip()
    if token in ("T", "F"):
        return token == "T"
    try:
        return (
            int(token) if token.lstrip("+-").isdigit() and len(token) < 20 else float(token.replace("D", "E").replace("d", "e"))
        )
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class Hdu:
    """One header and data unit.

    ``kind`` is "image", "table", "compressed" or "other"; ``shape`` is in numpy order, () without data.
    """

    index: int
    name: str
    kind: str
    header: Header
    shape: tuple[int, ...]
    data: memoryview
    whole: memoryview
    _columns: dict[str, _Column] = field(default_factory=dict)

    # -- images -------------------------------------------------------------------------------------------------

    def image(self) -> NDArray[Any]:
        """The image in native byte order, BSCALE and BZERO applied.

        Raises
        ------
        ReadError
            If the unit holds no image.
        """
        if self.kind == "compressed":
            return self._decompressed()
        if self.kind != "image" or not self.shape or 0 in self.shape:
            raise ReadError(f"expected an image in extension {self.index} ({self.name or 'unnamed'}), got none; check the file")
        stored = np.frombuffer(self.data, dtype=_IMAGE_TYPES[self.header.integer("BITPIX", 8)], count=math.prod(self.shape))
        native = stored.astype(stored.dtype.newbyteorder("="))  # a copy: the file's buffer is let go
        blank = self.header.get("BLANK")
        return _scaled(native, self.header.get("BSCALE"), self.header.get("BZERO"), blank).reshape(self.shape)

    def _decompressed(self) -> NDArray[Any]:
        import io
        import warnings

        from astropy.io import fits

        if math.prod(self.shape) > 4000 * max(len(self.data), 1):  # no tile compression reaches 4000 bytes per byte
            raise ReadError(
                f"expected a compressed image of possible size in extension {self.index}, got {self.shape}; fetch it again"
            )
        primary = fits.PrimaryHDU().header.tostring().encode("ascii")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with fits.open(io.BytesIO(primary + bytes(self.whole)), memmap=False) as hdus:
                    return np.array(hdus[1].data)
            except Exception as error:  # astropy raises many kinds for a damaged stream
                raise ReadError(
                    f"expected a tile-compressed image in extension {self.index}, got a damaged one; fetch it again"
                ) from error

    # -- tables -------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Column names as written in the file; [] for images."""
        if self.kind != "table":
            return []
        if not self._columns:
            self._columns.update(_table_columns(self.header, self.shape))
        return [column.name for column in self._columns.values()]

    def has(self, *names: str) -> bool:
        """Whether all these columns are there (case does not matter)."""
        present = {name.upper() for name in self.names}
        return all(name.upper() in present for name in names)

    def unit(self, name: str) -> str:
        """TUNITn of a column, "" where it has none."""
        return self._find(name).unit

    def repeat(self, name: str) -> int:
        """Number of elements of a column in one row."""
        return self._find(name).repeat

    def column(self, name: str) -> NDArray[Any]:
        """A column in native byte order: (n_rows,) or (n_rows, repeat); text columns as str, scaling applied."""
        column = self._find(name)
        rows, width = self.shape
        if column.code is None:
            raise ReadError(f"expected a column of fixed length, got {column.name!r} of variable length; convert it first")
        dtype = np.dtype({"names": ["x"], "formats": [column.format()], "offsets": [column.offset], "itemsize": width})
        stored = np.frombuffer(self.data, dtype=dtype, count=rows)["x"]
        if column.code == "A":
            return np.array([bytes(item).split(b"\0")[0].decode("ascii", "replace").rstrip() for item in stored], dtype=np.str_)
        if column.code in "LX":
            return stored == b"T" if column.code == "L" else stored.copy()
        return _scaled(stored.astype(stored.dtype.newbyteorder("=")), column.scale, column.zero, column.null)

    def _find(self, name: str) -> _Column:
        if name.upper() not in {n.upper() for n in self.names}:
            raise ReadError(
                f"expected a column {name!r} in extension {self.index}, got {', '.join(self.names[:12])}; check the file"
            )
        return self._columns[name.upper()]


@dataclass(frozen=True)
class _Column:
    name: str
    code: str | None  # None: variable length
    repeat: int
    offset: int
    unit: str
    scale: HeaderValue
    zero: HeaderValue
    null: HeaderValue

    def format(self) -> Any:
        if self.code == "A":
            return f"S{max(self.repeat, 1)}"
        if self.code == "X":
            return (">u1", ((self.repeat + 7) // 8,))
        assert self.code is not None
        return _COLUMN_TYPES[self.code] if self.repeat == 1 else (_COLUMN_TYPES[self.code], (self.repeat,))


def _table_columns(header: Header, shape: tuple[int, ...]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    offset = 0
    for i in range(1, min(header.integer("TFIELDS", 0), 999) + 1):
        form = _TFORM.match(header.text(f"TFORM{i}").strip())
        if form is None:
            raise ReadError(
                f"expected a column form in TFORM{i}, got {header.text(f'TFORM{i}')!r}: the header is damaged; fetch it again"
            )
        repeat, code = int(form[1] or 1), form[2]
        width = {"P": 8, "Q": 16, "A": 1, "X": 0}.get(code) or np.dtype(_COLUMN_TYPES.get(code, "u1")).itemsize
        size = (repeat + 7) // 8 if code == "X" else repeat * width
        name = header.text(f"TTYPE{i}") or f"col{i}"
        columns.setdefault(
            name.upper(),
            _Column(
                name,
                None if code in "PQ" or repeat == 0 else code,
                repeat,
                offset,
                header.text(f"TUNIT{i}"),
                header.get(f"TSCAL{i}"),
                header.get(f"TZERO{i}"),
                header.get(f"TNULL{i}"),
            ),
        )
        offset += size
    if len(shape) != 2 or offset != shape[1]:
        raise ReadError(
            f"expected columns that fill rows of {shape[-1:]} bytes, got {offset}: the header is damaged; fetch it again"
        )
    return columns


def _scaled(array: NDArray[Any], scale: HeaderValue, zero: HeaderValue, null: HeaderValue) -> NDArray[Any]:
    """Apply BSCALE/BZERO or TSCAL/TZERO; unsigned integers (zero = half the range) stay integers; nulls become NaN."""
    scale = 1 if scale is None or isinstance(scale, (str, bool)) else scale
    zero = 0 if zero is None or isinstance(zero, (str, bool)) else zero
    if array.dtype.kind == "i" and scale == 1 and zero == 2.0 ** (8 * array.dtype.itemsize - 1):
        unsigned = np.dtype(f"u{array.dtype.itemsize}")
        return np.asarray(array.view(unsigned) ^ unsigned.type(1 << (8 * array.dtype.itemsize - 1)))
    is_null = array == null if array.dtype.kind in "iu" and isinstance(null, int) and not isinstance(null, bool) else None
    if scale == 1 and zero == 0 and (is_null is None or not is_null.any()):
        return array
    with np.errstate(all="ignore"):
        scaled = array.astype(np.float64) * scale + zero if array.dtype.kind in "iuf" else array
    return scaled if is_null is None else np.where(is_null, np.nan, scaled)


# -- the walk over the file -----------------------------------------------------------------------------------------


def read_hdus(buffer: bytes | memoryview) -> tuple[Hdu, ...]:
    """All header and data units of a FITS file held in memory (or mapped).

    Raises
    ------
    ReadError
        If a header does not end, a mandatory card is wrong, or the data are shorter than their header says.
    """
    view = memoryview(buffer)
    hdus: list[Hdu] = []
    start = 0
    while start < len(view):
        if hdus and bytes(view[start : start + 8]) != b"XTENSION":
            break  # the standard allows special records and padding after the last unit
        header, data_start = _read_header(view, start, len(hdus))
        hdu, size = _read_unit(view, start, data_start, header, len(hdus))
        hdus.append(hdu)
        start = data_start + -(-size // BLOCK) * BLOCK
    return tuple(hdus)


def _read_header(view: memoryview, start: int, index: int) -> tuple[Header, int]:
    end = start
    limit = min(len(view), start + MAX_CARDS * CARD)
    while end < limit:
        block = bytes(view[end : end + BLOCK])
        for card in range(0, len(block), CARD):
            if block[card : card + 8] == b"END     ":
                text = str(view[start : end + card], "latin-1")
                return Header(text), end + BLOCK
        end += BLOCK
    raise ReadError(f"expected a header that ends with END in extension {index}, got none: the file is truncated; fetch it again")


def _read_unit(view: memoryview, start: int, data_start: int, header: Header, index: int) -> tuple[Hdu, int]:
    bitpix = header.integer("BITPIX", 8)
    n_axes = header.integer("NAXIS", 0)
    if bitpix not in _IMAGE_TYPES or not 0 <= n_axes <= 9:
        raise ReadError(
            f"expected FITS values of BITPIX and NAXIS, got {bitpix} and {n_axes}: the header is damaged; fetch it again"
        )
    axes = [header.integer(f"NAXIS{i + 1}", -1) for i in range(n_axes)]
    extra, groups = header.integer("PCOUNT", 0), header.integer("GCOUNT", 1)
    if min([*axes, extra]) < 0 or groups < 1:
        raise ReadError(f"expected axis lengths in extension {index}, got {axes}: the header is damaged; fetch it again")
    if index == 0 and "GROUPS" in header:
        raise ReadError("expected images or tables, got a FITS file of random groups; maury reads no such spectra")
    extension = header.text("XTENSION").strip()
    size = abs(bitpix) // 8 * groups * (extra + math.prod(axes)) if axes else 0
    if data_start + size > len(view):
        missing = data_start + size - len(view)
        raise ReadError(
            f"expected {size} bytes in extension {index}, but {missing} are missing: the file is truncated; fetch it again"
        )
    if extension == "BINTABLE" and n_axes != 2:
        raise ReadError(f"expected a table of 2 axes in extension {index}, got {n_axes}: the header is damaged; fetch it again")
    kind = "image" if index == 0 or extension == "IMAGE" else "table" if extension in ("BINTABLE", "A3DTABLE") else "other"
    shape = tuple(reversed(axes))
    if kind == "table" and header.get("ZIMAGE") is True:
        kind = "compressed"
        n_axes = min(max(header.integer("ZNAXIS", 0), 0), 9)
        shape = tuple(reversed([max(header.integer(f"ZNAXIS{i + 1}", 0), 0) for i in range(n_axes)]))
    padded = view[start : data_start + -(-size // BLOCK) * BLOCK]
    name = header.text("EXTNAME").strip()
    return Hdu(index, name, kind, header, shape, view[data_start : data_start + size], padded), size
