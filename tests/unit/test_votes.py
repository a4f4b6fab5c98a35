"""Votes of networks: their mode against scipy's kernel density, their interval against numpy's percentiles, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import gaussian_kde
from typer.testing import CliRunner, Result

from maury.catalogue import read_catalogue
from maury.cli import app
from maury.emulate import train_cannon
from maury.errors import CatalogueError, MauryError, UsageError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.model import Model
from maury.networks.topology import Topology
from maury.prepare import Preparation, Resample
from maury.regress.cnn import CnnNetworks, Inputs
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.votes import summarise
from maury.store import save_model

FloatArray = NDArray[np.float64]


def scipy_mode(votes: FloatArray) -> float:
    """The highest point of scipy's density (its default bandwidth is Scott's), searched on 2001 points and then between two."""
    density = gaussian_kde(votes)
    grid = np.linspace(votes.min(), votes.max(), 2001)
    best = int(np.argmax(density(grid)))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, 2000)])
    return float(minimize_scalar(lambda t: -density(t)[0], bounds=around, method="bounded", options={"xatol": 1e-12}).x)


def shapes() -> dict[str, FloatArray]:
    """30 stars of each shape."""
    rng = np.random.default_rng(7)
    return {
        "gaussian": rng.normal(4000.0, 50.0, (30, 50)),
        "skewed": 1.0 + rng.lognormal(-2.0, 1.5, (30, 50)),
        "bimodal": np.concatenate([rng.normal(-0.5, 0.03, (30, 30)), rng.normal(0.1, 0.05, (30, 20))], axis=1),
        "outliers": rng.standard_cauchy((30, 100)),
        "flat": rng.uniform(size=(30, 200)),
        "two": rng.normal(size=(30, 2)),
        "three": rng.normal(size=(30, 3)),
    }


@pytest.mark.parametrize("shape", list(shapes()))
def test_mode_is_that_of_scipy(shape: str) -> None:
    """To 1e-6 of the votes' range; scipy's minimiser itself is good to the square root of the machine's precision, 1.5e-8."""
    votes = shapes()[shape]
    summary = summarise(votes)
    expected = np.array([scipy_mode(row) for row in votes])
    assert (np.abs(summary.mode - expected) < 1e-6 * np.ptp(votes, axis=1)).all()
    assert not summary.degenerate.any()


@pytest.mark.parametrize("shape", ["gaussian", "skewed", "two"])
def test_interval_is_that_of_numpy(shape: str) -> None:
    votes = shapes()[shape]
    summary = summarise(votes)
    q16, q84 = np.percentile(votes, [16, 84], axis=1)
    np.testing.assert_allclose(summary.q16, q16, rtol=1e-14)
    np.testing.assert_allclose(summary.q84, q84, rtol=1e-14)
    np.testing.assert_allclose(summary.sigma, 0.5 * (q84 - q16), rtol=1e-10)
    np.testing.assert_allclose(summary.mode - summary.lower, np.minimum(q16, summary.mode), rtol=1e-12)
    np.testing.assert_allclose(summary.mode + summary.upper, np.maximum(q84, summary.mode), rtol=1e-12)
    assert (summary.lower >= 0).all()
    assert (summary.upper >= 0).all()


def test_a_mode_outside_the_percentiles_has_no_error_on_that_side() -> None:
    """15 % of the votes crowd at one end, the rest is flat: 5000 votes, as with fewer the bandwidth smears such a crowd out.

    The crowd's height is 0.15 / (sqrt(2 pi) h) = 1.1 with h = 0.29 * 5000^-0.2 = 0.053, the rest's 0.85 / 0.9 = 0.94.
    """
    votes = np.r_[np.linspace(0.0, 0.001, 750), np.linspace(0.1, 1.0, 4250)]
    at_low_end, at_high_end = summarise(votes[None]), summarise(-votes[None])
    q16, q84 = np.percentile(votes, [16, 84])
    assert at_low_end.mode[0] < q16
    assert (at_low_end.lower[0], at_high_end.upper[0]) == (0.0, 0.0)
    assert at_low_end.mode[0] + at_low_end.upper[0] == pytest.approx(q84)
    assert at_high_end.mode[0] - at_high_end.lower[0] == pytest.approx(-q84)
    assert at_low_end.sigma[0] == pytest.approx(0.5 * (q84 - q16))


def test_missing_votes_do_not_count_wherever_they_are() -> None:
    votes = np.random.default_rng(8).normal(5.0, 0.1, (4, 30))
    gaps = np.full((4, 40), np.nan)
    places = np.sort(np.random.default_rng(9).permutation(40)[:30])
    gaps[:, places] = votes
    gaps[0, np.setdiff1d(np.arange(40), places)[0]] = np.inf
    whole, found = summarise(votes), summarise(gaps)
    for name in ("mode", "q16", "q84", "degenerate"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)


def test_without_spread_there_is_a_median_and_no_interval() -> None:
    nan = np.nan
    summary = summarise(np.array([[nan, nan, nan], [nan, 4.5, nan], [4.5, 4.5, 4.5], [4.5, nan, 4.6]]))
    assert summary.degenerate.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(summary.mode[:3], [nan, 4.5, 4.5])
    for name in ("lower", "upper", "sigma"):
        np.testing.assert_array_equal(getattr(summary, name)[:3], [nan, 0.0, 0.0])
    assert summary.mode[3] == pytest.approx(4.55)  # two equal kernels nearer than two bandwidths: one peak between them
    assert np.isnan(summarise(np.zeros((2, 0))).mode).all()
    assert summarise(np.zeros((0, 5))).mode.shape == (0,)


def test_unit_and_zero_point_go_along() -> None:
    """The votes of one star in K and as a log: only range and offset differ, by much more than float32 could hold."""
    votes = np.random.default_rng(10).normal(size=(5, 40))
    scaled = summarise(1e6 + 1e-3 * votes)
    np.testing.assert_allclose((scaled.mode - 1e6) / 1e-3, summarise(votes).mode, atol=1e-5)  # 1e6 leaves seven digits of 1e-3


def test_one_star_alone_and_small_moves() -> None:
    """A star does not depend on the batch; one vote moved a little moves the mode a little, by less than the grid's step."""
    votes = np.random.default_rng(11).normal(4000.0, 50.0, (300, 60))
    together = summarise(votes).mode
    np.testing.assert_array_equal(summarise(votes[17:18]).mode, together[17:18])
    moved = votes.copy()
    moved[:, 0] += 0.01
    shift = summarise(moved).mode - together
    assert (shift != 0).mean() > 0.95
    assert np.abs(shift).max() < 0.02


def test_wrong_shape() -> None:
    with pytest.raises(UsageError, match=r"expected votes of shape \(n, M\), got \(3,\); one row per star"):
        summarise(np.zeros(3))


# -- maury infer --votes --------------------------------------------------------------------------------------------

NAMES = ("teff", "logg")
FILES = ("star0.csv", "broken.csv", "star1.csv", "elsewhere.csv", "star2.csv")
START, STOP = 5020, 5380


def untrained(labels: LabelSet, wavelength: FloatArray, members: int, seed: int) -> CnnNetworks:
    """Networks with one filter of three pixels, two neurons and random weights: they vote, whatever their votes are worth."""
    rng = np.random.default_rng(seed)
    n = members * len(labels)
    sizes = [(n, 3, 1), (n, len(wavelength), 2), (n, 2, 1)]
    layers = tuple(
        (rng.normal(0, size[1] ** -0.5, size).astype(np.float32), rng.normal(0, 0.3, (n, size[2])).astype(np.float32))
        for size in sizes
    )
    inputs = Inputs(wavelength, np.ones(len(wavelength), np.float32), 0.1)
    return CnnNetworks(labels, inputs, Topology((1,), kernel=3, pool="none", dense=(2,)), layers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cannon, an ensemble (five networks vote on teff, three on logg), three spectra and two files that give none."""
    folder = tmp_path_factory.mktemp("votes")
    labels = (make_label("teff", "K", "inverse"), make_label("logg", "dex"))
    values = np.random.default_rng(3).uniform([4500, 1.0], [6500, 4.8], (60, 2))
    analytic = AnalyticSpectra(NAMES)
    preparation = Preparation((Resample(start=START, stop=STOP, spacing=2.0, missing_velocity="zero"),))
    training = preparation(analytic.spectra(np.arange(5000.0, 5400.0, 2.0), values, snr=100.0, seed=1))
    cannon = EmulatorInferrer(train_cannon(training, labels, values), ChiSquareFitter())
    save_model(Model(preparation, cannon), folder / "cannon.safetensors")
    label_set = LabelSet.from_training(labels, values)
    both = untrained(label_set, training.wavelength, 3, seed=1)
    one = untrained(label_set.only(["teff"]), training.wavelength, 2, seed=2)
    save_model(
        Model(
            preparation,
            EnsembleInferrer.of(
                training.wavelength, (both, one), (tuple(f"wide#{i}" for i in range(3)), ("second#0", "second#1"))
            ),
        ),
        folder / "ensemble.safetensors",
    )
    wavelength = np.arange(4980.0, 5420.0, 1.0)
    stars = np.array([[5000.0, 2.5], [5800.0, 4.4], [6200.0, 4.0]])
    flux = analytic.flux(wavelength, stars) / analytic.continuum(wavelength, stars)
    for i, row in enumerate(flux):
        write_spectrum(folder / f"star{i}.csv", wavelength, row)
    write_spectrum(folder / "elsewhere.csv", wavelength + 3000.0, flux[0])
    (folder / "broken.csv").write_text("wavelength_vac [Angstrom],flux\n", encoding="utf-8")
    return folder


def write_spectrum(path: Path, wavelength: FloatArray, flux: FloatArray) -> None:
    Table({"wavelength_vac [Angstrom]": wavelength, "flux": flux, "error": np.full(len(flux), 0.01)}).write(path)


def infer(folder: Path, model: str, *words: str) -> Result:
    files = [str(folder / name) for name in FILES]
    return CliRunner().invoke(app, ["infer", str(folder / f"{model}.safetensors"), *files, *words])


def test_votes_are_kept_row_by_row(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's values are the summary of the votes in the file, so both come from the same spectra in the same rows."""
    calls: list[int] = []
    prepare_each = Preparation.prepare_each
    monkeypatch.setattr(Preparation, "prepare_each", lambda *args, **kwargs: calls.append(1) or prepare_each(*args, **kwargs))
    result = infer(folder, "ensemble", "-o", str(tmp_path / "stars.fits"), "--votes", str(tmp_path / "votes.fits"))
    assert result.exit_code == 0, result.output
    assert len(calls) == 1
    votes, stars = Table.read(tmp_path / "votes.fits"), read_catalogue(tmp_path / "stars.fits")
    assert [str(name) for name in votes["file"]] == [str(name) for name in stars["file"]] == list(FILES)
    assert (votes["vote_teff"].shape, votes["vote_logg"].shape) == ((5, 5), (5, 3))
    for name in NAMES:
        own = np.ma.filled(np.ma.MaskedArray(votes[f"vote_{name}"], dtype=float), np.nan)
        assert np.isnan(own[[1, 3]]).all()
        summary = summarise(own)
        np.testing.assert_allclose(summary.mode, stars[name], rtol=1e-6)  # votes are kept in float32
        np.testing.assert_allclose(summary.lower, stars[f"e_{name}_lo"], atol=2e-6 * np.nanmax(own))
        np.testing.assert_allclose(summary.upper, stars[f"e_{name}_up"], atol=2e-6 * np.nanmax(own))


def test_the_networks_names_are_in_order(folder: Path, tmp_path: Path) -> None:
    infer(folder, "ensemble", "-o", str(tmp_path / "stars.fits"), "--votes", str(tmp_path / "votes.ecsv"))
    networks = Table.read(tmp_path / "votes.ecsv").meta["networks"]
    assert networks["teff"] == ["wide#0", "wide#1", "wide#2", "second#0", "second#1"]
    assert networks["logg"] == ["wide#0", "wide#1", "wide#2"]


def test_labels_are_printed_as_in_the_papers_table_4(folder: Path, tmp_path: Path) -> None:
    result = infer(folder, "ensemble", "-o", str(tmp_path / "stars.fits"))
    stars = read_catalogue(tmp_path / "stars.fits")
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert lines["star"].split() == ["star", "teff", "(K)", "logg", "(dex)", "flags"]
    first = stars[0]
    assert f"{first['teff']:.0f} +{first['e_teff_up']:.0f} -{first['e_teff_lo']:.0f}" in lines["star0"]
    assert f"{first['logg']:.2f} +{first['e_logg_up']:.2f} -{first['e_logg_lo']:.2f}" in lines["star0"]
    assert lines["broken"].split() == ["broken", "-", "-", "UNREADABLE"]
    assert "star " not in infer(folder, "cannon", "-o", str(tmp_path / "cannon.fits")).stdout  # errors on one side alone


def test_votes_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    for model, name, error, sentence in (
        ("cannon", "votes.fits", UsageError, "expected an ensemble of networks for --votes, got a model without votes"),
        ("ensemble", "stars.fits", UsageError, "expected another file for --votes than the catalogue's"),
        ("ensemble", "no/votes.fits", UsageError, "expected an existing folder for"),
        ("ensemble", "votes.csv", CatalogueError, "expected a name for votes ending in .fits, .vot, .parquet or .ecsv"),
    ):
        result = infer(folder, model, "-o", str(tmp_path / "stars.fits"), "--votes", str(tmp_path / name))
        assert isinstance(result.exception, error)
        assert isinstance(result.exception, MauryError)
        assert sentence in str(result.exception)
        assert not list(tmp_path.iterdir())  # said before any work
