"""The model that ships, on real stars: what it says today is held, and must agree with what is known of them.

A model that was remade shows here: its id, and labels that moved by more than rounding. If the new one is better, its numbers
come into EXPECTED, with the card's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maury
from maury.catalogue import read_catalogue
from maury.estimates import LabelEstimates
from maury.flags import ResultFlag
from maury.labels import LabelSet
from maury.model import Model
from maury.models import SHIPPED
from maury.prepare import Preparation
from maury.read import read_files
from maury.spectra import Spectra, empty_meta

LABELS = ("teff", "logg", "m_h", "v_micro", "vsini", "delta_rv")
MODEL_ID = "f4f19f7abb38"
EXPECTED = {  # labels and quoted errors of this model, from maury infer gaia-rvs
    "HD176650": ((4576.35, 2.2546, -0.1622, 0.4906, 0.0, 0.0151), (47.05, 0.1541, 0.0544, 0.0951, 2.051, 0.2100)),
    "KOI-001": ((5814.05, 4.2265, -0.0498, 1.2615, 0.0, -1.0863), (221.11, 0.4724, 0.0925, 0.3044, 8.368, 0.8059)),
}
ROUNDING = (1.0, 0.002, 0.002, 0.002, 0.02, 0.02)  # in label units: what platforms may differ by, the least error being 48 K
STOPPING = 0.1
"""Of an error: where a fit stops differs between processors. With the same file and packages two ended 4.9 K (0.022 errors) and
0.035 dex in log g (0.073 errors) apart for KOI-001 of S/N 21, along the valley in which its labels trade; 0.01 in chi-square."""
CALCIUM = np.array([8500.35, 8544.44, 8664.52])  # Ca II, vacuum


@pytest.fixture(scope="module")
def model() -> Model:
    return maury.load_model("gaia-rvs")


@pytest.fixture(scope="module")
def stars(data: Path) -> list[Spectra]:
    return read_files(sorted((data / "gaia_rvs").glob("*.csv"))).spectra


@pytest.fixture(scope="module")
def found(model: Model, stars: list[Spectra]) -> dict[str, LabelEstimates]:
    estimates = model.infer(stars)
    return {str(estimates.ids[row]): estimates[np.array([row])] for row in range(len(estimates))}


def same_as_expected(labels: dict[str, float], errors: dict[str, float], star: str) -> None:
    values, sigmas = EXPECTED[star]
    for name, value, sigma, tolerance in zip(LABELS, values, sigmas, ROUNDING, strict=True):
        assert labels[name] == pytest.approx(value, abs=max(tolerance, STOPPING * sigma)), (star, name)
        assert errors[name] == pytest.approx(sigma, abs=max(tolerance, STOPPING * sigma)), (star, name)


# -- two stars of Gaia ------------------------------------------------------------------------------------------------------


def test_through_the_command_line_they_have_the_labels_that_they_had(data: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted((data / "gaia_rvs").glob("*.csv"))]
    command = [sys.executable, "-W", "error", "-m", "maury", "infer", "gaia-rvs", *files, "-o", "rvs.fits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    table = read_catalogue(tmp_path / "rvs.fits")
    assert table.meta["model_id"] == MODEL_ID
    assert {Path(str(row["file"])).stem for row in table} == set(EXPECTED)
    for row in table:
        star = Path(str(row["file"])).stem
        same_as_expected({name: row[name] for name in LABELS}, {name: row[f"e_{name}"] for name in LABELS}, star)


def test_neither_is_flagged_and_both_turn_too_slowly_to_be_seen(found: dict[str, LabelEstimates]) -> None:
    """A giant and a star like the Sun: at R = 11,500 (26 km/s) their rotation is an upper limit."""
    for star, (_, sigmas) in EXPECTED.items():
        assert found[star].flag.tolist() == [0], star
        assert found[star].label_flags[0].tolist() == [0, 0, 0, 0, int(ResultFlag.UPPER_LIMIT), 0], star
        assert 0 < sigmas[4] < 26.0


def test_koi_1_has_the_labels_of_the_literature(found: dict[str, LabelEstimates]) -> None:
    """TrES-2: 5850 K, 4.43, -0.01 (DATA.md), within two of our errors; and these are small enough to say something."""
    estimate = found["KOI-001"]
    for k, (value, largest) in enumerate(((5850.0, 300.0), (4.43, 0.6), (-0.01, 0.15))):
        assert abs(estimate.values[0, k] - value) < 2 * estimate.errors[0, k], LABELS[k]
        assert estimate.errors[0, k] < largest


def test_the_cores_of_calcium_do_not_carry_the_labels(
    model: Model, stars: list[Spectra], found: dict[str, LabelEstimates]
) -> None:
    """LTE makes them too deep; with the model error that says so, labels with and without them differ by less than 1.5 errors."""
    (giant,) = (star for star in stars if star.ids[0] == "HD176650")
    away = np.abs(giant.wavelength[:, None] - CALCIUM).min(axis=1)
    without = model.infer(giant.with_pixels(ivar=np.where(away < 2.5, 0.0, giant.ivar)))
    with_them = found["HD176650"]
    assert without.n_pixels[0] < with_them.n_pixels[0] - 100
    moved = np.abs(without.values - with_them.values) / with_them.errors
    assert moved.max() < 1.5


# -- a star that it must refuse -----------------------------------------------------------------------------------------------


def test_an_m_dwarf_is_flagged(model: Model, data: Path) -> None:
    """GJ 699 by HPF, 3353 K: colder than any spectrum of the library, and full of molecules that it has not.

    Its orders are brought to R = 11,500 and to their own continuum, then to rest (-82 km/s, topocentric: where chi-square of this
    very model is lowest). The survey's own steps that follow find nothing left to do.
    """
    orders = [batch for batch in read_files(sorted((data / "hpf").glob("*.fits"))).spectra if _is_rvs(batch)]
    assert len(orders) == 3
    steps = [{"step": "to_vacuum"}, {"step": "degrade", "resolving_power": 11500}, {"step": "gisic"}]
    prepare = Preparation.from_config(steps)
    grid = model.inferrer.emulator.wavelength
    flux, known = np.zeros(len(grid)), np.zeros(len(grid), dtype=bool)
    for order in map(prepare, orders):
        good = order.ivar[0] > 0
        at_rest = order.wavelength[good] / (1.0 - 82.0 / 299_792.458)
        here = ~known & (grid > at_rest[0]) & (grid < at_rest[-1])
        flux[here] = np.interp(grid[here], at_rest, order.flux[0][good])
        known |= here
    assert known.sum() > 2000
    meta = empty_meta(1)
    meta["resolving_power"] = 11500.0
    star = Spectra.from_arrays(grid, flux[None], ivar=np.where(known, 1e4, 0.0)[None], medium="vacuum", frame="rest", meta=meta)
    estimate = model.infer(star)
    for flag in (ResultFlag.POOR_CHI2, ResultFlag.AT_BOUND):
        assert estimate.flag[0] & int(flag), flag


def _is_rvs(batch: Spectra) -> bool:
    return bool(batch.wavelength[-1] > 8460 and batch.wavelength[0] < 8700)


# -- what is in the package ---------------------------------------------------------------------------------------------------


def test_the_file_says_how_good_its_spectra_are(model: Model) -> None:
    """On base spectra that were not trained on; the issue's limits. 10 MB too."""
    assert model.model_id == MODEL_ID
    error = model.provenance["flux_error"]
    assert error["median"] <= 0.001
    assert error["percentile_99"] <= 0.01
    assert error["n_spectra"] > 3000  # a tenth of 1659 base spectra, twenty draws of each
    assert SHIPPED["gaia-rvs"].file.stat().st_size <= 10_000_000


def test_the_card_is_finished_and_names_the_command() -> None:
    card = SHIPPED["gaia-rvs"].card.read_text(encoding="utf-8")
    assert "maury train gaia-rvs --data" in card
    assert "TODO" not in card


def random_labels(labels: LabelSet, n: int) -> np.ndarray:
    """(n, K) uniform in the model's coordinates, always the same."""
    low, high = np.sort(labels.scale(np.array([labels.lower, labels.upper])), axis=0)
    return labels.unscale(np.random.default_rng(11).uniform(low, high, (n, len(labels))))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_remade_it_is_the_same(model: Model, data: Path, stars: list[Spectra], tmp_path: Path) -> None:
    """By the card's command, four minutes on two cores. Sums of other libraries and processors are of another order, so the
    networks end elsewhere: by about their own error, 0.0005 of the flux in the median and 0.002 in the rms.
    """
    command = [sys.executable, "-m", "maury", "train", "gaia-rvs", "--data", str(data), "-o", "again.safetensors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr
    again = maury.load_model(tmp_path / "again.safetensors")
    labels = model.inferrer.emulator.labels
    values = random_labels(labels, 50)
    difference = again.inferrer.emulator.predict_flux(values) - model.inferrer.emulator.predict_flux(values)
    assert np.sqrt(np.mean(difference**2)) < 0.002
    before, after = model.infer(stars), again.infer(stars)
    assert (np.abs(after.values - before.values) / before.errors).max() < 0.3
