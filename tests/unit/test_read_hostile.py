"""2,000 damaged files over all readers: read or refused with one sentence, never another exception, a hang, or a wrong unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from file_makers import MAKERS

from maury.errors import MauryError
from maury.read import read_file
from maury.read.files import UNEXPECTED
from maury.spectra import Spectra

N_FILES = 2000
SECONDS_PER_FILE = 5.0
SEED = 20260101

Mutation = Callable[[bytes, np.random.Generator], tuple[bytes, bool]]
"""Damaged content, and whether the wavelengths may have been hit (then the range need not be right)."""


def truncated(content: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    return content[: int(rng.integers(0, len(content)))], False


def flipped(content: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    damaged = bytearray(content)
    for position in rng.integers(0, len(content), int(rng.integers(1, 30))):
        damaged[position] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged), True


def header_flipped(content: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    damaged = bytearray(content)
    for position in rng.integers(0, min(len(content), 2880), int(rng.integers(1, 6))):
        damaged[position] = int(rng.integers(32, 127))
    return bytes(damaged), True


def emptied(content: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    return b"" if rng.random() < 0.5 else b"\0" * len(content), True


def repeated(content: bytes, rng: np.random.Generator) -> tuple[bytes, bool]:
    start = int(rng.integers(0, len(content)))
    return content + content[start : start + 5000], False


BYTES: tuple[Mutation, ...] = (truncated, flipped, header_flipped, emptied, repeated)


def damage_values(path: Path, rng: np.random.Generator) -> bool:
    """Replace numbers of one extension by NaN, zero, huge, reversed, shuffled or another type; True if wavelengths may be hit."""
    with fits.open(path, memmap=False) as hdus:
        with_data = [i for i, hdu in enumerate(hdus) if hdu.data is not None]
        hdu = hdus[int(rng.choice(with_data))]
        data = hdu.data
        arrays = [data[name] for name in data.names if data[name].dtype.kind in "fi"] if data.dtype.names else [data]
        array = arrays[int(rng.integers(len(arrays)))] if arrays else None
        how = int(rng.integers(0, 7))
        if array is None or array.size == 0:
            return False
        if how == 0:
            array[...] = 0
        elif how == 1 and array.dtype.kind == "f":
            array[...] = np.nan
        elif how == 2:
            array[...] = np.flip(array, -1).copy()
        elif how == 3:
            rng.shuffle(array.reshape(-1) if array.flags.contiguous else array)
        elif how == 4 and array.dtype.kind == "f":
            array[...] = array * np.float32(1e30)
        elif how == 5 and not data.dtype.names:
            hdu.data = array.astype(rng.choice([">i2", ">f8", ">i4"]))
        else:
            array[...] = -array
        hdus.writeto(path, overwrite=True, output_verify="silentfix")
    return True


def damage_text(text: str, rng: np.random.Generator) -> str:
    lines = text.splitlines()
    row = int(rng.integers(0, len(lines)))
    lines[row] = str(rng.choice(["", "nan,nan,nan", "x", lines[row] * 2, lines[row].replace(",", ";"), "1e400,1,1"]))
    if rng.random() < 0.3:
        lines[1:] = lines[:0:-1]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[float, float]]]:
    folder = tmp_path_factory.mktemp("originals")
    made = {}
    for i, (name, (maker, file, _, _)) in enumerate(MAKERS.items()):
        path = folder / f"{i}{Path(file).suffix}"
        made[name] = (path, maker(path))
    return made


def mutate(path: Path, rng: np.random.Generator) -> bool:
    kind = int(rng.integers(0, 10))
    if kind < 5:
        content, hit = BYTES[kind](path.read_bytes(), rng)
        path.write_bytes(content)
        return hit
    if path.suffix == ".fits":
        return damage_values(path, rng)
    path.write_text(damage_text(path.read_text(encoding="utf-8"), rng), encoding="utf-8")
    return True


def test_two_thousand_damaged_files(originals: dict[str, tuple[Path, tuple[float, float]]], tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    names = list(originals)
    n_read = 0
    for number in range(N_FILES):
        name = names[number % len(names)]
        source, (low, high) = originals[name]
        path = tmp_path / f"x{source.suffix}"
        path.write_bytes(source.read_bytes())
        wavelengths_hit = mutate(path, rng)
        start = time.monotonic()
        found, refusal = _read(path)
        assert time.monotonic() - start < SECONDS_PER_FILE, f"file {number} ({name}) took too long"
        assert UNEXPECTED not in refusal, f"file {number} ({name}): the reader itself failed: {refusal}"
        assert "\n" not in refusal
        n_read += bool(found)
        if found and not wavelengths_hit:  # a wrong unit would be a factor of 10 or more
            assert min(s.wavelength[0] for s in found) > low - 1e-3, name
            assert max(s.wavelength[-1] for s in found) < high + 1e-3, name
    assert 100 < n_read < N_FILES - 100  # both happen, so the test looks at both


def _read(path: Path) -> tuple[list[Spectra], str]:
    """The spectra, or the sentence with which they were refused; any other exception fails the test."""
    try:
        return read_file(path), ""
    except MauryError as error:
        return [], str(error)


def test_damage_outside_the_wavelengths_leaves_the_range_alone(
    originals: dict[str, tuple[Path, tuple[float, float]]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(SEED + 1)
    for name in ("lamost image", "sdss", "desi", "miles", "image", "hpf", "mastar"):
        source, (low, high) = originals[name]
        path = tmp_path / "y.fits"
        for _ in range(10):
            path.write_bytes(source.read_bytes())
            with fits.open(path, memmap=False) as hdus:
                for hdu in hdus:
                    if hdu.data is None or "wav" in hdu.name.lower():
                        continue
                    columns = [n for n in (hdu.data.dtype.names or ()) if n.lower() in ("flux", "ivar")]
                    arrays = [hdu.data[n] for n in columns] if hdu.data.dtype.names else [hdu.data]
                    for array in arrays:
                        flat = array.reshape(-1) if array.flags.contiguous else array
                        if flat.dtype.kind == "f":
                            flat[rng.integers(0, len(flat), 5)] = rng.choice([np.nan, 0.0, -1.0, 1e30])
                hdus.writeto(path, overwrite=True)
            found, _ = _read(path)
            if not found:
                continue
            assert min(s.wavelength[0] for s in found) == pytest.approx(low, abs=1e-3), name
            assert max(s.wavelength[-1] for s in found) == pytest.approx(high, abs=1e-3), name
