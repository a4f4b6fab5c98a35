"""Any grid given as labels plus spectra in one file: a small description says what its arrays are called and measured in.

The file is read by :func:`maury.read.library.read_library` (npz, zarr, HDF5, FITS); a description adds what a grid must know
beyond a library. As TOML::

    file = "spectra.npz"              # beside this description
    wavelength = "wavelength_air_angstrom"
    wavelength_unit = "Angstrom"
    medium = "air"
    flux = "flux_u16"
    flux_scale = "flux_scale"
    labels = "labels"
    label_names = ["teff", "logg", "m_h", "v_micro"]
    label_units = ["K", "dex", "dex", "km/s"]
    fwhm = 0.02
    where = { kind = "lattice" }      # only the spectra of which the array `kind` says so
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from maury.errors import ReadError, RecipeError, UsageError
from maury.files import one_line
from maury.grids.grid import ArrayRows, Grid
from maury.labels import KNOWN_LABELS, make_label
from maury.read.library import read_library
from maury.spectra import Medium

_OPTIONAL = ("flux_scale", "labels")
_TEXTS = ("file", "wavelength", "wavelength_unit", "medium", "flux", "flux_unit", *_OPTIONAL)
_NOMINAL_SNR = 1000.0  # a library is read with errors; a grid has none


@dataclass(frozen=True)
class GridDescription:
    """What the arrays of a file are (see :func:`maury.read.library.read_library` for those without a word here).

    Parameters
    ----------
    file : path; in TOML relative to the description.
    label_names : of the columns of ``labels``: the house's names, or ``columns`` says which is which.
    label_units : one per label; may be left out where all names are the house's own (``teff`` in K, ``logg`` in dex, ...).
    columns : house name -> name in the file; only these become labels.
    flux_unit : of the flux; "" (the default) for flux over continuum.
    where : array (n,) -> the value it must have; other spectra are left out.

    Raises
    ------
    RecipeError
        For a value of the wrong kind.
    """

    file: str
    wavelength: str
    wavelength_unit: str
    medium: Medium
    flux: str
    flux_scale: str | None = None
    labels: str | None = None
    label_names: str | tuple[str, ...] | None = None
    label_units: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    flux_unit: str = ""
    where: Mapping[str, str | float] = field(default_factory=dict)
    resolving_power: float | None = None
    fwhm: float | None = None

    def __post_init__(self) -> None:
        texts = [(name, getattr(self, name)) for name in _TEXTS]
        texts += [(f"columns.{house}", name) for house, name in _mapping("columns", self.columns)]
        names = () if self.label_names is None else self.label_names
        for name, words in (("label_names", (names,) if isinstance(names, str) else names), ("label_units", self.label_units)):
            if not isinstance(words, tuple):
                raise RecipeError(f'expected {name} as a list of texts, got {words!r}; write ["...", "..."]')
            texts += [(name, word) for word in words]
        for name, text in texts:
            if not isinstance(text, str) and not (text is None and name in _OPTIONAL):
                raise RecipeError(f"expected {name} as text, got {text!r}; put it in quotes")
        for name, value in _mapping("where", self.where):
            if not isinstance(value, (str, int, float)):
                raise RecipeError(f"expected where.{name} as a text or number, got {value!r}; correct it")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], origin: str = "description") -> GridDescription:
        """From parsed TOML.

        Raises
        ------
        RecipeError
            For a key that is not known, one that is missing, or a value of the wrong kind.
        """
        known = [one.name for one in fields(cls)]
        unknown = [key for key in content if key not in known]
        if unknown:
            raise RecipeError(f"{origin}: expected a known key, got {unknown[0]!r}; known are {', '.join(known)}")
        missing = [key for key in ("file", "wavelength", "wavelength_unit", "medium", "flux") if key not in content]
        if missing:
            raise RecipeError(f"{origin}: expected a value for {missing[0]}, got none; add it, units are never guessed")
        settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        try:
            return cls(**settings)
        except RecipeError as failure:
            raise RecipeError(f"{origin}: {failure}") from None

    @classmethod
    def from_toml(cls, path: Path) -> GridDescription:
        """From a file; its ``file`` becomes relative to it.

        Raises
        ------
        RecipeError
            If it cannot be read, is no TOML, or no description.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as failure:
            raise RecipeError(f"{path}: expected a description in TOML, got {one_line(failure)}; correct the file") from None
        found = cls.from_dict(content, str(path))
        return cls(**{**found._settings(), "file": str(path.parent / found.file)})

    def _settings(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}


def _mapping(name: str, value: object) -> list[tuple[Any, Any]]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"expected {name} as {{ name = ... }}, got {value!r}; correct it")
    return list(value.items())


def open_described(description: GridDescription) -> Grid:
    """Read the file of a description as a grid; all of it is in memory afterwards, in single precision.

    Raises
    ------
    ReadError
        If the file is missing or damaged, does not hold the arrays, or holds NaN or the same labels twice.
    RecipeError, UsageError
        If the description contradicts itself or names impossible units.
    """
    own = ("label_units", "columns", "flux_unit")
    settings = {name: value for name, value in description._settings().items() if name not in own}
    library = read_library(settings.pop("file"), snr=_NOMINAL_SNR, **settings)
    table, name = library.labels, Path(description.file).name
    columns = dict(description.columns) or {column: column for column in library.names}
    absent = [column for column in columns.values() if column not in table.colnames]
    if absent:
        raise ReadError(f"{name}: expected a label {absent[0]!r}, got {', '.join(library.names)}; correct columns")
    units = _units(name, list(columns), description.label_units)
    try:
        values = np.column_stack([np.asarray(table[column], dtype=np.float64) for column in columns.values()])
        return Grid(
            name=name,
            labels=tuple(make_label(house, unit) for house, unit in zip(columns, units, strict=True)),
            values=values,
            wavelength=np.asarray(library.spectra.wavelength),
            medium=library.spectra.medium,
            rows=ArrayRows(library.spectra.flux),
            flux_unit=description.flux_unit,
            resolving_power=description.resolving_power,
            fwhm=description.fwhm,
            provenance={"file": name},
        )
    except UsageError:
        raise
    except (ValueError, TypeError) as failure:
        raise ReadError(f"{name}: expected labels as numbers, got {one_line(failure)}; name the labels in columns") from None


def _units(name: str, names: list[str], units: tuple[str, ...]) -> list[str]:
    """A unit for each label: said, or that of the house's label of this name."""
    if units and len(units) != len(names):
        raise RecipeError(f"{name}: expected {len(names)} label_units, one for each of {', '.join(names)}, got {len(units)}")
    strange = [label for label in names if label not in KNOWN_LABELS]
    if strange and not units:
        raise RecipeError(
            f"{name}: expected label_units beside the label {strange[0]!r}, which is none of {', '.join(KNOWN_LABELS)}, got "
            "none; units are never guessed"
        )
    return list(units) or [KNOWN_LABELS[label].unit for label in names]
