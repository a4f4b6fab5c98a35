"""PARSEC isochrones, read from the tables of the CMD web form (https://stev.oapd.inaf.it/cmd) as they are downloaded.

The tables are text: a line of column names, after ``#`` or bare, before each isochrone or once; numbers; comments. The form has
changed over the years (ages as ``Age`` or ``logAge``, metallicity as ``MH`` or ``Zini`` alone, BP in one band or in two), so
columns are known by name, never by position.

* Metallicity without ``MH``: [M/H] = log10[(Z/X)/0.0207] with Y = 0.2485 + 1.78 Z and X = 1 - Y - Z (Bressan+2012,
  MNRAS 427, 127, sect. 3): the relation that CMD's own ``MH`` column follows.
* Gaia DR2's BP came in two bands, of stars brighter (``G_BPbrmag``) and fainter (``G_BPftmag``) than G = 10.87 mag (CMD's notes
  on the Maíz Apellániz & Weiler 2018 bands); the faint one is taken, as most stars of a survey are. They differ by 0.05 mag.
* The last line of an isochrone may be a placeholder for the remnant, with logL = -9.999: it is no star and is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError, UsageError
from maury.read._source import open_source

FloatArray = NDArray[np.float64]

_COLUMNS: dict[str, tuple[str, ...]] = {
    "log_teff": ("logTe",),
    "logg": ("logg",),
    "m_h": ("MH",),
    "z_initial": ("Zini",),
    "log_age": ("logAge",),
    "age": ("Age",),
    "mass": ("Mass",),
    "log_luminosity": ("logL",),
    "stage": ("label",),
    "g": ("Gmag",),
    "bp": ("G_BPmag", "G_BPftmag", "G_BPbrmag"),
    "rp": ("G_RPmag",),
}
"""What we take -> its names in the tables, the preferred one first."""

_REQUIRED = ("log_teff", "logg")
_SOLAR_Z_OVER_X = 0.0207
_PRIMORDIAL_HELIUM, _HELIUM_SLOPE = 0.2485, 1.78
_REMNANT_LOG_LUMINOSITY = -9.0


@dataclass(frozen=True, eq=False)
class Isochrones:
    """Points of isochrones, each a star that the models predict; NaN where the tables do not say.

    Parameters
    ----------
    teff : (n,) K.
    logg : (n,) dex.
    m_h : (n,) initial metallicity, dex.
    log_age : (n,) log10 of the age in years.
    mass : (n,) present mass, Msun.
    bp_rp : (n,) Gaia BP - RP, mag, free of extinction.
    m_g : (n,) absolute Gaia G magnitude.
    stage : (n,) PARSEC's evolutionary stage (0 pre-main-sequence, 1 main sequence, 2 subgiant, 3 red giant, 4-6 core helium
        burning, 7 early and 8 thermally pulsing asymptotic giant, 9 beyond); -1 where the table has no such column.
    """

    teff: FloatArray
    logg: FloatArray
    m_h: FloatArray
    log_age: FloatArray
    mass: FloatArray
    bp_rp: FloatArray
    m_g: FloatArray
    stage: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.teff)
        wrong = [field.name for field in fields(self) if getattr(self, field.name).shape != (n,)]
        if n == 0 or wrong:
            raise UsageError(f"expected isochrone columns of one length, got {n} of teff and others in {', '.join(wrong)}")

    def __len__(self) -> int:
        return len(self.teff)

    @property
    def has_photometry(self) -> NDArray[np.bool_]:
        """(n,) which points have both Gaia colour and magnitude."""
        return np.asarray(np.isfinite(self.bp_rp) & np.isfinite(self.m_g))


PathLike = str | os.PathLike[str]


def read_isochrones(paths: PathLike | Sequence[PathLike]) -> Isochrones:
    """Isochrones of one or more PARSEC tables.

    Parameters
    ----------
    paths : files of the CMD form, of any ages and metallicities; .gz too. Photometric systems may differ: points of tables
        without Gaia magnitudes have NaN colours.

    Raises
    ------
    ReadError
        If a file is missing, is no isochrone table, or has a line that does not fit its column names.
    UsageError
        If no file is named.
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not files:
        raise UsageError("expected at least one isochrone table, got none; name files of the CMD form")
    tables = []
    for file in files:
        try:
            tables.append(_read_table(Path(file)))
        except ReadError as error:
            raise ReadError(f"{Path(file).name}: {error}") from error
    joined = {field.name: np.concatenate([getattr(table, field.name) for table in tables]) for field in fields(Isochrones)}
    return Isochrones(**joined)


def _read_table(path: Path) -> Isochrones:
    source = open_source(path)
    if source.kind != "text":
        raise ReadError(f"expected an isochrone table as text, got {source.kind.upper()}; download it from stev.oapd.inaf.it/cmd")
    blocks = [_block(names, rows) for names, rows in _blocks(source.text) if rows]
    if not blocks:
        raise ReadError(
            "expected a PARSEC isochrone table with a line of column names (logTe, logg, ...) and rows below it, got none; "
            "download it from stev.oapd.inaf.it/cmd as isochrone tables"
        )
    return _isochrones({name: np.concatenate([block[name] for block in blocks]) for name in _COLUMNS})


def _blocks(text: str) -> Iterator[tuple[list[str], list[tuple[int, str]]]]:
    """Column names and the numbered lines of data below them, for each line of names in the file."""
    names: list[str] = []
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.lstrip("# \t").split()
        if "logTe" in words:
            if names:
                yield names, rows
            names, rows = words, []
        elif names and words and not line.lstrip().startswith("#"):
            rows.append((number, line))
    if names:
        yield names, rows


def _block(names: list[str], rows: list[tuple[int, str]]) -> dict[str, FloatArray]:
    """(n_rows,) of each of :data:`_COLUMNS`; NaN for a column that is not there."""
    place = {what: next((names.index(name) for name in known if name in names), None) for what, known in _COLUMNS.items()}
    missing = [_COLUMNS[what][0] for what in _REQUIRED if place[what] is None]
    if missing:
        raise ReadError(
            f"expected isochrone columns logTe and logg, got none named {', '.join(missing)}; download the table again"
        )
    wanted = [index for index in place.values() if index is not None]
    values = np.empty((len(rows), len(wanted)))
    for i, (number, line) in enumerate(rows):
        cells = line.split()
        try:
            if len(cells) != len(names):
                raise ValueError
            values[i] = [float(cells[index]) for index in wanted]
        except ValueError:
            raise ReadError(
                f"expected {len(names)} numbers in line {number}, as many as column names, got {line.strip()[:60]!r}; "
                "the table is damaged: download it again"
            ) from None
    found = dict(zip([what for what, index in place.items() if index is not None], values.T, strict=True))
    return {what: found.get(what, np.full(len(rows), np.nan)) for what in _COLUMNS}


def _isochrones(columns: dict[str, FloatArray]) -> Isochrones:
    with np.errstate(divide="ignore", invalid="ignore"):
        log_age = np.where(np.isfinite(columns["log_age"]), columns["log_age"], np.log10(columns["age"]))
        m_h = np.where(np.isfinite(columns["m_h"]), columns["m_h"], _metallicity(columns["z_initial"]))
    star = ~(columns["log_luminosity"] < _REMNANT_LOG_LUMINOSITY) & np.isfinite(columns["log_teff"] + columns["logg"])
    if not star.any():
        raise ReadError("expected isochrone points with finite logTe and logg, got none; download the table again")
    return Isochrones(
        teff=10.0 ** columns["log_teff"][star],
        logg=columns["logg"][star],
        m_h=m_h[star],
        log_age=log_age[star],
        mass=columns["mass"][star],
        bp_rp=(columns["bp"] - columns["rp"])[star],
        m_g=columns["g"][star],
        stage=np.where(np.isfinite(columns["stage"]), columns["stage"], -1)[star].astype(np.int64),
    )


def _metallicity(z: FloatArray) -> FloatArray:
    """[M/H] of the initial metal mass fraction Z; see the module's docstring."""
    x = 1.0 - (_PRIMORDIAL_HELIUM + _HELIUM_SLOPE * z) - z
    return np.asarray(np.log10(z / x / _SOLAR_Z_OVER_X))
