"""The whole road on an embedded mini-survey: spectra in Gaia's own file form -> the shipped model -> catalogue and figures.

The stars are made by the very model that then fits them, so their labels are known exactly and nothing is downloaded. They get
the errors that the fit allows for: noise, a velocity, and what the model believes that computed spectra lack (drawn at random,
no two stars alike). What that shows: the road from files to a catalogue, and whether labels' errors follow from those. What it
cannot show: whether the model is right about real stars; its card (``maury models gaia-rvs``) says what is known of that.

The noise is Gaia's in kind: white on the detector's pixels of 0.245 Å, each CCD's spectrum brought to the file's 0.1 Å by linear
interpolation, then averaged; neighbours are correlated by 0.80, 0.41, 0.12 at 1, 2, 3 pixels (0.79, 0.43, 0.18 measured on real
RVS spectra), and the file's errors are those of single pixels, as Gaia's are. All is seeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

if TYPE_CHECKING:
    from astropy.table import Table

    from maury.emulate.covariance import ModelError
    from maury.estimates import LabelEstimates
    from maury.model import Model
    from maury.protocols import Emulator

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

MODEL = "gaia-rvs"
SEED = 18900101
BROKEN_FILE = "demo-truncated.csv"
BINARY_FILE = "demo-binary.csv"

LABELS = ("teff", "logg", "m_h", "v_micro", "vsini", "delta_rv")
VELOCITY_KM_S = 0.5  # standard deviation of what is left of the velocity in the spectra, roughly Gaia's for bright stars
DETECTOR_PIXEL = 0.245  # Å, of the RVS (Cropper et al. 2018, A&A 616, A5)
_BINARY = np.array([[5900.0, 4.3, 0.0, 1.2, 6.0, -120.0], [5600.0, 4.4, 0.0, 1.1, 5.0, 120.0]])
_BINARY_LIGHT = np.array([[0.65], [0.35]])
_BINARY_SNR = 200.0
_WHOLE_LINES = 900  # of the truncated file; then the transfer ended within a line
_HEADER = "source_id,solution_id,ra,dec,wavelength,flux,flux_error,combined_transits,combined_ccds,deblended_ccds"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration left behind.

    Parameters
    ----------
    folder : where all of it is.
    estimates : of all files, the binary and the truncated one included.
    truth : (n, K) true labels, one row per estimate; NaN for the binary and the truncated file.
    files : file below ``folder`` -> what it is.
    seconds : wall time.
    """

    folder: Path
    estimates: LabelEstimates
    truth: FloatArray
    files: dict[str, str]
    seconds: float

    @property
    def good(self) -> NDArray[np.bool_]:
        """(n, K) labels without any flag, of the label or of the star."""
        return np.asarray((self.estimates.label_flags == 0) & (self.estimates.flag == 0)[:, None])


def run_demo(folder: str | Path, progress: Progress | None = None, *, n_stars: int = 300) -> DemoResult:
    """Make the mini-survey, read it back, infer labels with the shipped model, write catalogue and figures.

    Parameters
    ----------
    folder : made if it is missing; files of an earlier demonstration are replaced.
    progress : called with (stage, done, all).
    n_stars : single stars; a binary and a truncated file come to them.

    Raises
    ------
    UsageError
        If the folder cannot be made.
    """
    from maury.read import read_files
    from maury.store import load_model

    started = time.perf_counter()
    root, model = Path(folder), load_model(MODEL)
    truth = make_survey(root, model, progress, n_stars=n_stars)
    paths = [str(root / "spectra" / str(name)) for name in truth["file"]]
    read = read_files(paths, progress=None if progress is None else lambda done, total: progress("read", done, total))
    estimates = model.infer_files(read, paths, progress)
    values = np.column_stack([np.asarray(truth[name], dtype=float) for name in estimates.labels.names])
    result = DemoResult(root, estimates, values, {}, 0.0)
    _write_catalogue(model, estimates, root / "catalogue.fits")
    figures = _write_figures(result, model, progress)
    files = {
        "spectra/": f"{len(truth)} spectra in Gaia's file form",
        "truth.csv": "their true labels",
        "catalogue.fits": "the catalogue",
        **figures,
    }
    return DemoResult(root, estimates, values, files, time.perf_counter() - started)


# -- the mini-survey ------------------------------------------------------------------------------------------------


def make_survey(folder: Path, model: Model, progress: Progress | None = None, *, n_stars: int = 300, seed: int = SEED) -> Table:
    """Write ``spectra/`` and ``truth.csv``: single stars, a double-lined binary, and a file that was cut off.

    Returns
    -------
    The table of ``truth.csv``: file, the labels, delta_rv, snr; labels are NaN for the binary and the truncated file.

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
    for old in spectra.glob("demo-*.csv"):
        old.unlink()
    random = np.random.default_rng(seed)
    values = survey_labels(model, n_stars, random)
    snr = np.append(np.exp(random.uniform(np.log(15.0), np.log(300.0), n_stars)), _BINARY_SNR)
    moving = _moving(model)
    clean = np.vstack([moving.predict_flux(values), (_BINARY_LIGHT * moving.predict_flux(_BINARY)).sum(axis=0)])
    clean += _model_error(model).draw(moving.wavelength, len(clean), random)
    names = [f"demo-{i + 1:03d}.csv" for i in range(n_stars)] + [BINARY_FILE]
    for i, name in enumerate(names):
        text = gaia_csv(i + 1, moving.wavelength, clean[i], float(snr[i]), random)
        (spectra / name).write_text(text, encoding="ascii", newline="\n")
        if progress is not None:
            progress("simulate", i + 1, len(names))
    text = (spectra / names[0]).read_text(encoding="ascii")
    lines = text.split("\n")
    (spectra / BROKEN_FILE).write_text("\n".join(lines[:_WHOLE_LINES])[:-8], encoding="ascii", newline="\n")
    unknown = np.full((2, len(LABELS)), np.nan)
    return _write_truth(folder / "truth.csv", [*names, BROKEN_FILE], np.vstack([values, unknown]), np.append(snr, np.nan))


def survey_labels(model: Model, n: int, random: np.random.Generator) -> FloatArray:
    """(n, 6) teff, logg, m_h, v_micro, vsini, delta_rv: half dwarfs, a third giants, the rest hot, many of them fast.

    Their v_micro scatter about the relation that the model expects.
    """
    kind = random.choice(3, n, p=[0.5, 0.33, 0.17])
    place, spread = random.random(n), random.normal(0.0, 1.0, n)
    teff = np.choose(kind, [4600.0 + 2400.0 * place, 4100.0 + 1200.0 * place, 7500.0 + 4500.0 * place])
    logg = np.choose(kind, [4.65 - 0.5 * place + 0.08 * spread, 2.4 + 1.1 * place + 0.1 * spread, 3.9 + 0.25 * spread])
    m_h = random.normal(-0.2, 0.3, n).clip(-1.2, 0.4)
    slowest, fastest = np.choose(kind, [3.0, 2.0, 20.0]), np.choose(kind, [40.0, 8.0, 250.0])
    vsini = slowest * (fastest / slowest) ** random.random(n)
    columns = [teff.round(1), logg.round(3), m_h.round(3), np.ones(n), vsini.round(2)]
    values = np.column_stack([*columns, random.normal(0.0, VELOCITY_KM_S, n).round(3)])
    values[:, 3] = _likely_v_micro(model, values[:, :-1], random).round(3)
    return values


def _likely_v_micro(model: Model, values: FloatArray, random: np.random.Generator) -> FloatArray:
    """(n,) km/s, about what the model's prior expects from the other labels, inside its range."""
    from maury.fit.inferrer import fitted

    inferrer = fitted(model.inferrer)
    labels, prior = inferrer.emulator.labels, inferrer.fitter.prior
    assert prior is not None  # the recipe has a relation
    k = labels.index("v_micro")
    scaled = labels.scale(values)
    expected, sigma = prior.expected(scaled, k)
    scaled[:, k] = expected + sigma * random.standard_normal(len(values))
    return np.asarray(np.clip(labels.unscale(scaled)[:, k], 0.05, labels.upper[k]))


def _model_error(model: Model) -> ModelError:
    """What the recipe of the model says that computed spectra lack."""
    from maury.recipes.train_schema import ModelErrorRecipe

    return ModelErrorRecipe.model_validate(model.provenance["recipe"]["train"]["model_error"]).to_error()


def _moving(model: Model) -> Emulator:
    """The model's emulator with a velocity as its last label, which its fitter has, too."""
    from maury.fit.inferrer import fitted

    inferrer = fitted(model.inferrer)
    if inferrer.fitter.velocity is None or inferrer.labels.names != LABELS:
        raise UsageError(f"expected a model that fits {', '.join(LABELS)}, got {', '.join(model.labels.names)}; update maury")
    return inferrer.fitter.velocity.extend(inferrer.emulator)


def gaia_noise(wavelength: FloatArray, n_ccds: int, random: np.random.Generator) -> FloatArray:
    """(n_pixels,) noise of unit variance in each pixel, correlated as in a mean spectrum of ``n_ccds`` CCD spectra."""
    place = (wavelength - wavelength[0]) / DETECTOR_PIXEL + random.random((n_ccds, 1))  # every CCD has its own phase
    pixel = place.astype(np.int64)
    right = place - pixel
    white = random.standard_normal((n_ccds, int(pixel.max()) + 2))
    ccd = np.arange(n_ccds)[:, None]
    total = ((1.0 - right) * white[ccd, pixel] + right * white[ccd, pixel + 1]).sum(axis=0)
    return np.asarray(total / np.sqrt(((1.0 - right) ** 2 + right**2).sum(axis=0)))


def gaia_csv(source_id: int, wavelength: FloatArray, flux: FloatArray, snr: float, random: np.random.Generator) -> str:
    """The text of a Gaia DR3 ``rvs_mean_spectrum`` file (DataLink, CSV, RAW): nm in vacuum, flux, its error; some ends empty.

    Parameters
    ----------
    source_id : a number that no Gaia source has.
    wavelength : (n_pixels,) Å, vacuum; flux : (n_pixels,) without noise.
    snr : signal-to-noise per pixel where the flux is 1; the noise is that of photons.
    random : for noise, how many transits there were, where the star is, and how many pixels at the end have no data.
    """
    transits = int(random.integers(3, 20))
    error = np.sqrt(np.maximum(flux, 0.05)) / snr
    noisy = flux + error * gaia_noise(wavelength, 3 * transits, random)
    ra, dec = random.uniform(0.0, 360.0), random.uniform(-90.0, 90.0)
    before, after = f"{source_id},0,{ra!r},{dec!r},", f",{transits},{3 * transits},0"
    empty = len(flux) - int(random.integers(0, 5))
    numbers: list[NDArray[Any]] = [(wavelength / 10.0).round(2), noisy.astype(np.float32), error.astype(np.float32)]
    rows = [",".join(row) for row in zip(*(column.astype(str).tolist() for column in numbers), strict=True)]
    rows[empty:] = [row.split(",")[0] + ",," for row in rows[empty:]]
    return "\n".join([_HEADER, *(before + row + after for row in rows)]) + "\n"


def _write_truth(path: Path, names: Sequence[str], values: FloatArray, snr: FloatArray) -> Table:
    from astropy.table import Table

    columns = {name: values[:, k] for k, name in enumerate(LABELS)}
    table = Table({"file": list(names), **columns, "snr": snr.round(1)})
    table.write(path, format="ascii.csv", overwrite=True)
    return table


# -- catalogue and figures ------------------------------------------------------------------------------------------


def _write_catalogue(model: Model, estimates: LabelEstimates, path: Path) -> None:
    from maury.catalogue import build_catalogue, run_provenance, write_catalogue

    provenance = run_provenance(["maury", "demo"], model_file=MODEL, model=MODEL)
    del provenance["date"]  # so that every demonstration writes the same table
    write_catalogue(build_catalogue(estimates, model_id=model.model_id, provenance=provenance), path)


def _write_figures(result: DemoResult, model: Model, progress: Progress | None) -> dict[str, str]:
    """Kiel diagram, true against recovered, pulls and one fit; file -> what it is."""
    from maury.catalogue import build_catalogue
    from maury.report import kiel_diagram, pull_histogram, save_figure, true_vs_recovered

    estimates, truth = result.estimates, result.truth
    labels, values, errors = estimates.labels, estimates.values, estimates.errors
    title = f"maury demo: stars made and fitted by {MODEL}"
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "kiel.png": (
            "Kiel diagram",
            lambda: kiel_diagram(build_catalogue(estimates, model_id=model.model_id), title=title),
        ),
        "recovered.png": (
            "recovered against true labels",
            lambda: true_vs_recovered(labels, truth, values, errors, ~result.good, title=title),
        ),
        "pulls.png": (
            "residuals in units of their errors",
            lambda: pull_histogram(labels, np.where(result.good, truth, np.nan), values, errors, title=title),
        ),
        "fit.png": ("a spectrum, its fit and the residuals", lambda: _fit_figure(result, model)),
    }
    for done, (name, (_, make)) in enumerate(makers.items(), start=1):
        save_figure(make(), result.folder / name)
        if progress is not None:
            progress("draw", done, len(makers))
    return {name: what for name, (what, _) in makers.items()}


def _fit_figure(result: DemoResult, model: Model) -> Any:
    """The unflagged star cooler than 7000 K of median signal-to-noise: there are lines to look at."""
    from maury.fit.inferrer import fitted
    from maury.read import read_file
    from maury.report import fit_figure

    estimates = result.estimates
    cool = estimates.values[:, estimates.labels.index("teff")] < 7000.0
    rows = np.flatnonzero(cool & result.good.all(axis=1))
    row = rows[np.argsort(np.asarray(estimates.meta["snr"], dtype=float)[rows], kind="stable")[len(rows) // 2]]
    star = model.preparation(read_file(result.folder / "spectra" / str(estimates.meta["file"][row])))
    return fit_figure(star, fitted(model.inferrer), estimates[row : row + 1])
