"""The whole road on an embedded mini-survey: spectra in LAMOST's file form -> model -> catalogue and figures.

The stars come from :class:`maury.grids.AnalyticSpectra`, so their labels are known exactly and nothing is downloaded. From the
files on, everything goes through the functions that ``maury train`` and ``maury infer`` call. All is seeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.grids import AnalyticSpectra
from maury.prepare.signal import SDSS_BANDS

if TYPE_CHECKING:
    from astropy.table import Table

    from maury.estimates import LabelEstimates
    from maury.model import Model
    from maury.recipes import TrainingRun

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

LABELS = ("teff", "logg", "fe_h")
SEED = 18900101
BROKEN_FILE = "spec-55862-DEMO_sp01-broken.fits"
OUTLIER_FILE = "spec-55862-DEMO_sp01-outlier.fits"
_OUTLIER = (3450.0, 4.8, 0.0)  # an M dwarf among stars of 4200 K and more

_SHOWN = (4800.0, 6400.0)  # Å; in all 2300 pixels of the fit no line can be told from the next

COEFF0, COEFF1, N_PIXELS = 3.5682, 1e-4, 3909  # LAMOST's own grid: log10 Å of the first pixel, step, number
REDSHIFT_ERROR_KM_S = 4.0  # of LAMOST's pipeline for bright stars, roughly


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration left behind.

    Parameters
    ----------
    folder : where all of it is.
    run : the training with its cross-validation.
    estimates : of the held-back stars, the outlier and the broken file.
    truth : (n, K) true labels, one row per estimate; NaN for the broken file.
    files : file below ``folder`` -> what it is.
    seconds : wall time.
    """

    folder: Path
    run: TrainingRun
    estimates: LabelEstimates
    truth: FloatArray
    files: dict[str, str]
    seconds: float


def run_demo(folder: str | Path, progress: Progress | None = None, *, n_stars: int = 400) -> DemoResult:
    """Make the mini-survey, train on half of it, infer the other half, write catalogue, model and figures.

    Parameters
    ----------
    folder : made if it is missing; files of an earlier demonstration are replaced.
    progress : called with (stage, done, all).
    n_stars : half of them with labels.

    Raises
    ------
    UsageError
        If the folder cannot be made, or there are too few stars to train on.
    """
    from maury.recipes import load_recipe, run_recipe
    from maury.store import load_model, save_model

    started = time.perf_counter()
    root = Path(folder)
    truth_table = make_survey(root, progress, n_stars=n_stars)
    run = run_recipe(load_recipe("demo"), root, progress)
    save_model(_undated(run.model), root / "model.safetensors")
    model = load_model(root / "model.safetensors")  # what is inferred below went through the file, as it does for users
    names = [str(name) for name in truth_table["file"]]
    estimates = _infer_files(model, [root / "spectra" / name for name in names], progress)
    truth = np.column_stack([np.asarray(truth_table[name], dtype=float) for name in LABELS])
    _write_catalogue(model, estimates, root / "catalogue.fits")
    figures = _write_figures(model, estimates, truth, root, progress)
    files = {
        "spectra/": f"{n_stars + 2} spectra in LAMOST's file form",
        "labels.csv": "labels of the training half",
        "truth.csv": "true labels of the half that was kept back",
        "model.safetensors": "the model",
        "catalogue.fits": "the catalogue",
        **figures,
    }
    return DemoResult(root, run, estimates, truth, files, time.perf_counter() - started)


# -- the mini-survey ------------------------------------------------------------------------------------------------


def make_survey(folder: Path, progress: Progress | None = None, *, n_stars: int = 400, seed: int = SEED) -> Table:
    """Write ``spectra/``, ``labels.csv`` (first half) and ``truth.csv`` (second half, outlier, broken file).

    Returns
    -------
    The table of ``truth.csv``: file, teff, logg, fe_h (NaN for the broken file).

    Raises
    ------
    UsageError
        If the folder cannot be made.
    """
    spectra = folder / "spectra"
    try:
        spectra.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"expected a folder that can be made, got {folder} ({error.strerror}); choose another") from None
    for old in spectra.glob("spec-55862-DEMO_*.fits"):
        old.unlink()
    random = np.random.default_rng(seed)
    values = np.vstack([_mini_survey_labels(n_stars, random), _OUTLIER])
    names = [f"spec-55862-DEMO_sp01-{i + 1:03d}.fits" for i in range(n_stars)] + [OUTLIER_FILE]
    half = n_stars // 2
    # training stars are bright, as surveys choose them: noise in the coefficients pulls labels of other stars to the middle
    typical = np.where(np.arange(n_stars) < half, 150.0, 60.0)
    snr = np.r_[(typical * np.exp(random.normal(0.0, 0.4, n_stars))).clip(20.0, 400.0), 80.0]
    velocity = random.normal(-10.0, 45.0, n_stars + 1)
    write_lamost_files(
        spectra, names, AnalyticSpectra(LABELS), values, snr=snr, velocity=velocity, random=random, progress=progress
    )
    (spectra / BROKEN_FILE).write_bytes((spectra / names[-2]).read_bytes()[:20_000])
    _write_labels(folder / "labels.csv", names[:half], values[:half])
    return _write_labels(folder / "truth.csv", [*names[half:], BROKEN_FILE], np.vstack([values[half:], np.full(3, np.nan)]))


def _mini_survey_labels(n: int, random: np.random.Generator) -> FloatArray:
    """(n, 3) dwarfs of 4200 to 6800 K and, two fifths, giants of 4200 to 5400 K, in random order."""
    giant = random.random(n) < 0.4
    place = random.random(n)
    teff = np.where(giant, 4200.0 + 1200.0 * place, 4200.0 + 2600.0 * place)
    spread = random.normal(0.0, 1.0, n)
    logg = np.where(giant, 1.3 + 2.2 * place + 0.25 * spread, 4.65 - 0.45 * place + 0.08 * spread)
    fe_h = np.clip(random.normal(-0.3, 0.35, n), -1.4, 0.4)
    return np.column_stack([teff.round(1), logg.round(3), fe_h.round(3)])


def _write_labels(path: Path, names: Sequence[str], values: FloatArray) -> Table:
    from astropy.table import Table

    table = Table({"file": list(names), **{name: values[:, k] for k, name in enumerate(LABELS)}})
    table.write(path, format="ascii.csv", overwrite=True)
    return table


def write_lamost_files(
    folder: Path,
    names: Sequence[str],
    generator: AnalyticSpectra,
    values: ArrayLike,
    *,
    snr: ArrayLike,
    velocity: ArrayLike,
    random: np.random.Generator,
    progress: Progress | None = None,
) -> None:
    """Spectra of a generator as LAMOST low-resolution image files (rows as in DR8, which every release until then shares).

    Noise follows counts and a throughput that falls to both ends; one pixel in 500 is bad: a wild flux, no inverse variance,
    mask bit 0, as in the released files. The header's redshift is off by LAMOST's own 4 km/s (one standard deviation).

    Parameters
    ----------
    folder, names : where to write, one file per star.
    generator, values : the stars.
    snr : (n,) signal-to-noise per pixel at 6500 Å; velocity : (n,) true radial velocities, km/s.
    random : for noise, redshift errors and bad pixels.
    """
    wavelength = 10.0 ** (COEFF0 + COEFF1 * np.arange(N_PIXELS))
    speed = np.asarray(velocity, dtype=float)
    clean = generator.flux(wavelength, values, speed)
    throughput = np.exp(-(((wavelength - 6800.0) / 2600.0) ** 2))
    for i, (name, ratio) in enumerate(zip(names, np.asarray(snr, dtype=float), strict=True)):
        counts = 10.0 ** random.uniform(2.5, 4.0)
        ivar = ratio**2 * throughput / np.maximum(clean[i], 1e-3)
        flux = clean[i] + random.standard_normal(N_PIXELS) / np.sqrt(ivar)
        bad = random.random(N_PIXELS) < 1.0 / 500.0
        flux[bad] *= random.uniform(-1.0, 5.0, int(bad.sum()))
        ivar[bad] = 0.0
        rows = np.array([flux * counts, ivar / counts**2, wavelength, bad, bad], dtype=np.float32)
        redshift = (speed[i] + random.normal(0.0, REDSHIFT_ERROR_KM_S)) / SPEED_OF_LIGHT_KM_S
        header = _lamost_header(name, i, redshift, _band_snr(np.asarray(wavelength, np.float64), flux, ivar))
        _write_fits(folder / name, rows, header)
        if progress is not None:
            progress("simulate", i + 1, len(names))


def _band_snr(wavelength: FloatArray, flux: FloatArray, ivar: FloatArray) -> dict[str, float]:
    """SNRU to SNRZ as LAMOST's headers hold them: the median over each band."""
    ratio = flux * np.sqrt(ivar)
    inside = {band: (wavelength > low) & (wavelength < high) & (ivar > 0) for band, (low, high) in SDSS_BANDS.items()}
    return {f"SNR{band.upper()}": round(float(np.median(ratio[pixels])), 2) for band, pixels in inside.items()}


def _lamost_header(name: str, number: int, redshift: float, snr: dict[str, float]) -> dict[str, Any]:
    """The keywords of a LAMOST low-resolution header that say something about the spectrum."""
    ra, dec = 90.0 + 0.05 * (number % 100), 27.0 + 0.05 * (number // 100)
    hours, minutes = divmod(ra * 4.0, 60.0)
    degrees, arcmin = int(dec), (dec - int(dec)) * 60.0
    place = f"J{int(hours):02d}{int(minutes):02d}{minutes % 1 * 60:05.2f}+{degrees:02d}{int(arcmin):02d}{arcmin % 1 * 60:04.1f}"
    return {
        "FILENAME": name,
        "OBSID": 900_000_000 + number,
        "AUTHOR": "LAMOST Pipeline",
        "DATA_V": "maury demo, not observed",
        "EXTEN0": "Flux, Inverse, Wavelength, Andmask, Ormask",
        "N_EXTEN": 1,
        "ORIGIN": "NAOC-LAMOST",
        "TELESCOP": "LAMOST",
        "LMJD": 55862,
        "MJD": 55861,
        "RA": ra,
        "DEC": dec,
        "DESIG": f"LAMOST {place}",
        "HELIO": True,
        "VACUUM": True,
        "NWORDER": 2,
        "WFITTYPE": "LOG-LINEAR",
        "COEFF0": COEFF0,
        "COEFF1": COEFF1,
        "DC-FLAG": 1,
        "CLASS": "STAR",
        "Z": round(redshift, 8),
        "Z_ERR": round(REDSHIFT_ERROR_KM_S / SPEED_OF_LIGHT_KM_S, 8),
        **snr,
    }


def _write_fits(path: Path, rows: NDArray[np.float32], header: dict[str, Any]) -> None:
    from astropy.io import fits

    hdu = fits.PrimaryHDU(rows)
    for key, value in header.items():
        hdu.header[key] = value
    hdu.writeto(path, overwrite=True)


# -- from the model on ----------------------------------------------------------------------------------------------


def _undated(model: Model) -> Model:
    """The same model without the date and command in its provenance, so that every demonstration writes the same file."""
    provenance = {key: value for key, value in model.provenance.items() if key != "date"}
    return replace(model, provenance={**provenance, "command": "maury demo"})


def _infer_files(model: Model, paths: Sequence[Path], progress: Progress | None) -> LabelEstimates:
    """Estimates of all files, one row each, in order; a file that cannot be read keeps its row and its reason."""
    from maury.estimates import LabelEstimates
    from maury.flags import ResultFlag
    from maury.read import read_files
    from maury.spectra import empty_meta

    report = None if progress is None else lambda done, total: progress("read", done, total)
    result = read_files(paths, progress=report)
    parts = [model.infer(result.spectra, progress)]
    if result.failures:
        names = [Path(failure.file).name for failure in result.failures]
        meta = empty_meta(len(names))
        meta["file"] = names
        reasons = [failure.reason for failure in result.failures]
        parts.append(LabelEstimates.missing(model.labels, names, reasons, meta, int(ResultFlag.UNREADABLE)))
    together = LabelEstimates.concatenate(parts)
    position = {path.name: i for i, path in enumerate(paths)}
    return together[np.argsort([position[str(name)] for name in together.meta["file"]], kind="stable")]


def _write_catalogue(model: Model, estimates: LabelEstimates, path: Path) -> None:
    from maury.catalogue import build_catalogue, run_provenance, write_catalogue

    provenance = run_provenance(["maury", "demo"], model_file="model.safetensors", model="demo")
    del provenance["date"]
    write_catalogue(build_catalogue(estimates, model_id=model.model_id, provenance=provenance), path)


def _write_figures(
    model: Model, estimates: LabelEstimates, truth: FloatArray, folder: Path, progress: Progress | None
) -> dict[str, str]:
    """Kiel diagram, true against recovered, pulls and one fit; file -> what it is."""
    from maury.catalogue import build_catalogue
    from maury.report import kiel_diagram, pull_histogram, save_figure, true_vs_recovered

    good = estimates.flag == 0
    title = "maury demo: stars the model has not seen"
    table = build_catalogue(estimates, model_id=model.model_id)
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "kiel.png": ("Kiel diagram", lambda: kiel_diagram(table, title=title)),
        "recovered.png": (
            "recovered against true labels",
            lambda: true_vs_recovered(model.labels, truth, estimates.values, estimates.errors, estimates.flag, title=title),
        ),
        "pulls.png": (
            "residuals in units of their errors",
            lambda: pull_histogram(model.labels, truth[good], estimates.values[good], estimates.errors[good], title=title),
        ),
        "fit.png": ("a spectrum and its fit", lambda: _fit_figure(model, estimates, folder)),
    }
    for done, (name, (_, make)) in enumerate(makers.items(), start=1):
        save_figure(make(), folder / name)
        if progress is not None:
            progress("draw", done, len(makers))
    return {name: what for name, (what, _) in makers.items()}


def _fit_figure(model: Model, estimates: LabelEstimates, folder: Path) -> Any:
    """The unflagged star of median signal-to-noise, as prepared, with the model at its labels."""
    from maury.read import read_file
    from maury.report import fit_example

    good = np.flatnonzero(estimates.flag == 0)
    row = good[np.argsort(np.asarray(estimates.meta["snr"], dtype=float)[good], kind="stable")[len(good) // 2]]
    spectra = model.preparation(read_file(folder / "spectra" / str(estimates.meta["file"][row])))
    flux = model.inferrer.emulator.predict_flux(estimates.values[row : row + 1])[0]
    shown = (spectra.wavelength > _SHOWN[0]) & (spectra.wavelength < _SHOWN[1])
    flux = np.where(spectra.ivar[0] > 0, flux, np.nan)  # where no star had data the model knows nothing
    values, errors = estimates.values[row], estimates.errors[row]
    text = "\n".join(
        f"{label.name} {x:.{digits}f} ± {e:.{digits}f} {label.unit}"
        for label, x, e, digits in zip(model.labels.labels, values, errors, (0, 2, 2), strict=True)
    )
    text += f"\nχ² = {estimates.chi2[row]:.0f} for {estimates.n_pixels[row]} pixels"
    title = f"{estimates.ids[row]}, S/N {float(estimates.meta['snr'][row]):.0f} per pixel"
    pixels = (spectra.wavelength[shown], spectra.flux[0, shown], spectra.ivar[0, shown], flux[shown])
    return fit_example(*pixels, medium=spectra.medium, title=title, text=text)
