"""Gaia RVS mean spectra from DataLink (CSV, ECSV, VOTable or FITS), one or many sources in a file.

https://gea.esac.esa.int/archive/documentation/GDR3/Gaia_archive/chap_datamodel/sec_dm_spectroscopic_tables/ssec_dm_rvs_mean_spectrum.html:
wavelength in nm, **vacuum**, at rest; flux normalised by Gaia's own pseudo-continuum; flux_error. The flux at the ends may be
NaN. The file holds no velocity (it was removed), so ``rv`` is NaN. specutils has no loader for it.
"""

from __future__ import annotations

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, build
from maury.read._hints import angstrom_per_unit
from maury.read._source import Source
from maury.read._tables import NamedColumns, load_columns
from maury.spectra import Spectra

RESOLVING_POWER = 11_500.0
_SIGNATURE = ("source_id", "wavelength", "flux", "flux_error")
_RVS_ONLY = ("combined_transits", "combined_ccds", "deblended_ccds", "solution_id")


def matches(source: Source) -> bool:
    """Whether the table has Gaia's columns; text is judged by its header line alone."""
    if source.kind == "fits":
        return any(hdu.has(*_SIGNATURE) and any(hdu.has(name) for name in _RVS_ONLY) for hdu in source.tables())
    head = source.text[: 20_000 if source.kind != "text" else source.text.find("\n") + 1].lower()
    return all(name in head for name in _SIGNATURE) and any(name in head for name in _RVS_ONLY)


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a Gaia RVS file; see the module's docstring. Sources share one grid, so they become rows of one Spectra."""
    tables = [t for t in load_columns(source) if set(_SIGNATURE) <= {c.name.lower() for c in t.columns}]
    if not tables:
        raise ReadError(f"expected Gaia columns {', '.join(_SIGNATURE)}, got others; check the file or its format")
    columns = {c.name.lower(): c for c in tables[0].columns}
    unit = columns["wavelength"].unit or "nm"  # the CSV has no units; the documentation fixes nm
    values = {name: np.asarray(columns[name].values) for name in _SIGNATURE}
    if any(values[name].dtype.kind != "f" for name in _SIGNATURE[1:]):
        raise ReadError("expected numbers for wavelength, flux and flux_error, got text: the file is damaged; fetch it again")
    wave, flux, error, names = _rows_of_sources(values)
    return [
        build(
            source,
            wave * angstrom_per_unit(unit),
            flux,
            error=error,
            medium="vacuum",
            frame="rest",
            instrument="Gaia RVS",
            resolving_power=RESOLVING_POWER,
            meta={
                "star_id": np.array([f"Gaia DR3 {name}" for name in names]),
                "ra": _first(tables[0], "ra", len(names)),
                "dec": _first(tables[0], "dec", len(names)),
                "mjd": np.nan,
                "velocity_frame": "rest",
            },
        )
    ]


def _rows_of_sources(values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Wavelengths, and flux and error as (n_sources, n_pixels), from one row per pixel or one row of vectors per source."""
    ids = values["source_id"].astype(np.str_)
    if values["flux"].ndim == 2:
        wave = values["wavelength"][0]
        if not (values["wavelength"] == wave).all():
            raise ReadError("expected sources of one file on one wavelength grid, got several; save one source per file")
        return wave, values["flux"], values["flux_error"], [str(i) for i in ids]
    names = list(dict.fromkeys(ids.tolist()))
    n_pixels = int((ids == names[0]).sum())
    expected = np.repeat(names, n_pixels)
    if expected.size != ids.size or not (expected == ids).all():
        raise ReadError(
            "expected the same number of pixels for every source_id, in blocks, got others: truncated? fetch it again"
        )
    wave = values["wavelength"].reshape(len(names), n_pixels)
    if not (wave == wave[0]).all():
        raise ReadError("expected sources of one file on one wavelength grid, got several; save one source per file")
    return wave[0], values["flux"].reshape(wave.shape), values["flux_error"].reshape(wave.shape), names


def _first(table: NamedColumns, name: str, n_sources: int) -> np.ndarray:
    """A per-source number that is repeated for every pixel; NaN where absent."""
    column = next((c for c in table.columns if c.name.lower() == name), None)
    values = np.asarray(column.values) if column is not None else np.full(n_sources, np.nan)
    ok = values.dtype.kind == "f" and values.ndim == 1 and values.size % n_sources == 0
    return values.reshape(n_sources, -1)[:, 0] if ok else np.full(n_sources, np.nan)
