"""Spectra made from labels, and the file they go to: FITS for any number of stars, CSV for one.

The FITS form is that of :mod:`maury.read.generated`, which reads it back. Stars are computed and written in batches, so memory
does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.region import TrainingRegion
from maury.catalogue.columns import ascii_text, label_meanings
from maury.emulate import PayneEmulator, generate_flux
from maury.errors import CatalogueError, UsageError
from maury.files import canonical_json, replacing
from maury.flags import RESULT_FLAG_MEANING, ResultFlag, names_of
from maury.labels import Label
from maury.prepare import Preparation
from maury.protocols import Emulator
from maury.read.generated import PIXELS, STARS, VERSION, VERSION_KEYWORD
from maury.spectra import Medium
from maury.threads import cores

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]

_BATCH_VALUES = 4_000_000  # flux values per batch: 32 MB in float64
_FITS_BLOCK = 2880
_FLAGS = (ResultFlag.OUT_OF_RANGE, ResultFlag.OUTSIDE_TRAINING, ResultFlag.THIN_TRAINING)
_SMALLEST_ERROR = float(np.finfo(np.float32).eps)  # flux is stored in float32, so no smaller error is true of a flux near 1


@dataclass(frozen=True, eq=False)
class SpectrumGenerator:
    """Labels -> spectra as a model's emulator predicts them, with what must be said of them.

    Parameters
    ----------
    emulator : labels -> flux.
    region : region of the training labels, or None.
    preparation : of the model; the flux has the form that it gives to observed spectra.
    medium : of the emulator's wavelengths.
    model_id : of the model.
    """

    emulator: Emulator
    region: TrainingRegion | None
    preparation: Preparation
    medium: Medium
    model_id: str

    @cached_property
    def ivar(self) -> FloatArray:
        """(n_pixels,) inverse variance of the model's own error, correlated part included; 0 where the model knows nothing."""
        covariance = self.emulator.model_covariance
        variance = covariance.diagonal
        if covariance.factors is not None:
            variance = variance + (covariance.factors**2).sum(axis=1)
        return np.where(np.isfinite(variance), 1.0 / np.maximum(variance, _SMALLEST_ERROR**2), 0.0)

    def flux(self, values: FloatArray) -> NDArray[np.float32]:
        """(n, K) labels in label units -> (n, n_pixels); NaN where the model knows nothing."""
        if isinstance(self.emulator, PayneEmulator):
            flux: NDArray[Any] = generate_flux(self.emulator, values, cores())
        else:
            flux = self.emulator.predict_flux(values)
        return np.where(self.ivar > 0, flux, np.nan).astype(np.float32)

    def flags(self, values: FloatArray) -> NDArray[np.int64]:
        """(n,) OUT_OF_RANGE, OUTSIDE_TRAINING and THIN_TRAINING of (n, K) labels."""
        labels = self.emulator.labels
        out = np.where(labels.in_range(values).all(axis=1), 0, int(ResultFlag.OUT_OF_RANGE)).astype(np.int64)
        return out if self.region is None else np.asarray(out | self.region.bits(labels, values))


def write_spectra(
    path: str | os.PathLike[str],
    generator: SpectrumGenerator,
    values: FloatArray,
    *,
    ids: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Generate the spectra of these labels into a file.

    Parameters
    ----------
    path : .fits, or .csv for a single star (which ``maury read`` and TOPCAT read as a table); an existing file is replaced.
    values : (n, K) labels in label units, finite. Any range is computed: labels outside the training range are flagged.
    ids : (n,) names of the stars; default their numbers.
    provenance : plain JSON values, for example of :func:`~maury.catalogue.run_provenance`.
    progress : called with (stars done, stars in all).

    Returns
    -------
    (n,) flags of the stars.

    Raises
    ------
    UsageError
        If shapes disagree, a label is not finite, or a .csv is asked for several stars.
    CatalogueError
        If the extension is another, or the file cannot be written.
    """
    n_labels = len(generator.emulator.labels)
    if values.ndim != 2 or values.shape[1] != n_labels or len(values) == 0 or not np.isfinite(values).all():
        raise UsageError(f"expected finite labels of shape (n, {n_labels}), got {values.shape} or NaN; one row per star")
    names = [str(i) for i in range(len(values))] if ids is None else [ascii_text(str(name)) for name in ids]
    if len(names) != len(values):
        raise UsageError(f"expected a name for each of {len(values)} stars, got {len(names)}")
    writer = _WRITERS[check_spectra_name(path, len(values))]
    flags = generator.flags(values)
    with replacing(path, CatalogueError) as temporary:
        writer(temporary, generator, _Stars(names, values, flags), dict(provenance or {}), progress)
    return flags


def check_spectra_name(path: str | os.PathLike[str], n_stars: int) -> str:
    """ "fits" or "csv", by extension: the form that so many spectra go into.

    Raises
    ------
    CatalogueError
        If the extension is another, or .csv is asked for more than one star.
    """
    kind = {".fits": "fits", ".fit": "fits", ".csv": "csv"}.get(Path(path).suffix.lower())
    if kind is None:
        raise CatalogueError(f"expected a name ending in .fits, or in .csv for a single star, got {path}; add one of them")
    if kind == "csv" and n_stars != 1:
        raise CatalogueError(f"expected a single star for a .csv file, got {n_stars}; write them to .fits")
    return kind


def medium_of(preparation: Preparation) -> Medium | None:
    """What wavelengths a preparation ends in, None where it converts none and so leaves them as they are."""
    media: dict[str, Medium] = {"to_vacuum": "vacuum", "to_air": "air"}
    found = [media[step["step"]] for step in preparation.to_config() if step["step"] in media]
    return found[-1] if found else None


@dataclass(frozen=True, eq=False)
class _Stars:
    """Names, labels (n, K) and flags (n,) of the stars to write."""

    ids: list[str]
    values: FloatArray
    flags: NDArray[np.int64]


# -- FITS ---------------------------------------------------------------------------------------------------------


def _write_fits(
    path: Path, generator: SpectrumGenerator, stars: _Stars, provenance: dict[str, Any], progress: Progress | None
) -> None:
    """Header and pixels by astropy; the rows of stars are appended batch by batch, as their table's header announces them."""
    from astropy.io import fits

    table = _star_table(generator, stars)
    table.header["NAXIS2"] = len(stars.ids)
    row = table.columns.dtype.newbyteorder(">")
    fits.HDUList([_primary(generator, provenance), _pixel_table(generator)]).writeto(path)
    with open(path, "ab") as file:
        file.write(table.header.tostring().encode("ascii"))
        for batch in _batches(generator, len(stars.ids), progress):
            rows = np.zeros(batch.stop - batch.start, dtype=row)
            rows["id"], rows["flag"] = np.array(stars.ids[batch], dtype=row["id"]), stars.flags[batch]
            for k, name in enumerate(generator.emulator.labels.names):
                rows[name] = stars.values[batch, k]
            rows["flux"] = generator.flux(stars.values[batch])
            file.write(rows.tobytes())
        file.write(b"\0" * (-file.tell() % _FITS_BLOCK))


def _batches(generator: SpectrumGenerator, n: int, progress: Progress | None) -> Iterator[slice]:
    size = max(1, _BATCH_VALUES // len(generator.ivar))
    for start in range(0, n, size):
        batch = slice(start, min(start + size, n))
        yield batch
        if progress is not None:
            progress(batch.stop, n)


def _primary(generator: SpectrumGenerator, provenance: dict[str, Any]) -> Any:
    from astropy.io import fits

    hdu = fits.PrimaryHDU()
    header = hdu.header
    version = str(provenance.get("versions", {}).get("maury", ""))
    header[VERSION_KEYWORD] = (VERSION, "version of this form of spectra by maury")
    header["CREATOR"] = (f"maury {version}".strip(), "program that wrote this file")
    header["MODELID"] = (ascii_text(generator.model_id), "id of the model")
    header["MEDIUM"] = (generator.medium, "what wavelengths are measured in")
    header["SPECSYS"] = ("SOURCE", "wavelengths are in the star's rest frame")
    header["PREPARED"] = (generator.preparation.fingerprint, "preparation whose form the flux has")
    if "date" in provenance:
        header["DATE"] = (ascii_text(str(provenance["date"])), "UTC of this file")
    header["PROVENAN"] = canonical_json(provenance, "the provenance of spectra")
    header["STEPS"] = canonical_json(generator.preparation.to_config(), "a preparation")
    header.add_comment(form_sentence(generator.preparation))
    header.add_comment("ivar is that of the model's own error; noise is not added. Bits of flag:")
    for bit in _FLAGS:
        header.add_comment(f"{int(bit):6d} {bit.name}: {RESULT_FLAG_MEANING[bit]}")
    if "command" in provenance:
        header.add_history(ascii_text(f"made by: {provenance['command']}"))
    return hdu


def form_sentence(preparation: Preparation) -> str:
    """In which form the flux is, for people."""
    steps = ", ".join(str(step["step"]) for step in preparation.to_config()) or "no step"
    return f"Flux is in the form of the model's preparation ({steps}): a relative flux, not a flux density."


def _pixel_table(generator: SpectrumGenerator) -> BinTableHDU:
    from astropy.io import fits

    columns = [
        fits.Column("wavelength", "D", unit="Angstrom", array=generator.emulator.wavelength),
        fits.Column("ivar", "D", array=generator.ivar),
    ]
    return fits.BinTableHDU.from_columns(columns, name=PIXELS)


def _star_table(generator: SpectrumGenerator, stars: _Stars) -> BinTableHDU:
    """The table of stars without its rows."""
    from astropy.io import fits

    width = max(1, *(len(name) for name in stars.ids))
    labels = generator.emulator.labels.labels
    columns = [fits.Column("id", f"{width}A")]
    columns += [fits.Column(label.name, "D", unit=_fits_unit(label)) for label in labels]
    columns += [fits.Column("flag", "J"), fits.Column("flux", f"{len(generator.ivar)}E")]
    table = fits.BinTableHDU.from_columns(columns, nrows=0, name=STARS)
    sentences = ["name of the star", *(label_meanings(label)[0].description for label in labels)]
    for n, text in enumerate([*sentences, "reasons to doubt it, sum of bits", "flux on the wavelengths of PIXELS"], start=1):
        table.header[f"TCOMM{n}"] = ascii_text(text)
    return table


def _fits_unit(label: Label) -> str | None:
    """The unit as FITS writes it; None for those it does not know, such as dex (the column's comment says it then)."""
    import astropy.units as u

    try:
        return str(u.Unit(label.unit).to_string(format="fits"))
    except ValueError:
        return None


# -- CSV ----------------------------------------------------------------------------------------------------------


def _write_csv(
    path: Path, generator: SpectrumGenerator, stars: _Stars, provenance: dict[str, Any], progress: Progress | None
) -> None:
    """One star: ``# key: value`` lines that the reader of tables knows, then wavelength, flux and error."""
    labels = generator.emulator.labels.labels
    about = {
        "medium": generator.medium,
        "frame": "rest",
        "instrume": f"maury {generator.model_id}",
        "star_id": stars.ids[0],
        "rv": "0",
        **{label.name: repr(float(value)) for label, value in zip(labels, stars.values[0], strict=True)},
        "label units": ", ".join(f"{label.name} [{label.unit}]" for label in labels),
        "flag": f"{stars.flags[0]} {'|'.join(names_of(ResultFlag, int(stars.flags[0])))}".strip(),
        "model_id": generator.model_id,
        "preparation": generator.preparation.fingerprint,
        "flux form": form_sentence(generator.preparation),
        "made by": str(provenance.get("command", "")),
    }
    with np.errstate(divide="ignore"):
        error = np.where(generator.ivar > 0, 1.0 / np.sqrt(generator.ivar), np.nan)
    flux = generator.flux(stars.values)[0]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in about.items() if value)
        file.write("wavelength [Angstrom],flux,error\n")
        for w, f, e in zip(generator.emulator.wavelength.tolist(), flux, error, strict=True):
            file.write(f"{w!r},{f!s},{float(e):.6g}\n")
    if progress is not None:
        progress(1, 1)


_WRITERS: dict[str, Callable[[Path, SpectrumGenerator, _Stars, dict[str, Any], Progress | None], None]] = {
    "fits": _write_fits,
    "csv": _write_csv,
}
