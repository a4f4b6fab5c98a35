"""The gap before and after a transfer, in flux and in latent numbers: none where there is none, else in its place."""

from __future__ import annotations

import numpy as np
import pytest

from maury.assess.gap_transfer import SPACES, SpaceGap, transfer_gap
from maury.regress.cnn import Inputs
from maury.regress.latent import Encoder, PixelScale
from maury.regress.latent_run import ReconstructionError
from maury.report.transfer_figure import transfer_figure
from maury.spectra import Spectra

N_PIXELS = 30
PATTERN = np.sin(np.arange(N_PIXELS))  # what observed spectra have and synthetic ones lack


def spectra(n: int, seed: int, pattern: float = 0.0) -> Spectra:
    """Lines of two depths, noise of S/N 100, and a pattern."""
    rng = np.random.default_rng(seed)
    pixel = np.arange(N_PIXELS)
    lines = np.exp(-0.5 * ((pixel - np.array([[8.0], [20.0]])) / 2.0) ** 2)
    flux = 1.0 - rng.uniform(0.1, 0.6, (n, 2)) @ lines + pattern * PATTERN
    flux = flux + (0.01 * rng.standard_normal(flux.shape) if pattern or seed else 0.0)
    wave = 5000.0 + pixel
    return Spectra.from_arrays(wave, flux, ivar=np.full(flux.shape, 1e4), medium="vacuum", frame="rest")


SYNTHETIC, ALIKE, OTHER = spectra(600, 0), spectra(100, 1), spectra(100, 2, pattern=0.05)


def encoder(directions: np.ndarray) -> Encoder:
    """Linear (leaky ReLU, shifted up) latent numbers: flux along some directions."""
    scale = PixelScale(Inputs(SYNTHETIC.wavelength, np.zeros(N_PIXELS, np.float32), 1.0))
    return Encoder(scale, "leaky_relu", ((directions.T.astype(np.float32), np.full(len(directions), 50.0, np.float32)),))


SEES = encoder(np.eye(N_PIXELS))
LINES = np.eye(N_PIXELS)[[8, 20]]
HIDES = encoder(LINES - np.outer(LINES @ PATTERN, PATTERN) / (PATTERN @ PATTERN))  # blind to the pattern


def gaps(observed: Spectra, before: Encoder, after: Encoder) -> dict[str, SpaceGap]:
    found = transfer_gap(SYNTHETIC, observed, [before], [after])
    assert [space.space for space in found] == list(SPACES)
    return {space.space: space for space in found}


def test_no_gap_is_none_in_any_space() -> None:
    for space in gaps(ALIKE, SEES, HIDES).values():
        assert abs(space.auc - 0.5) < 4 * space.auc_error
        assert space.beyond < 0.06  # 1 % expected of a hundred
        assert space.ratio < 1


def test_a_pattern_is_a_gap_where_it_is_seen() -> None:
    found = gaps(OTHER, SEES, HIDES)
    flux, before, after = (found[space] for space in SPACES)
    assert flux.auc > 0.95
    assert before.auc == pytest.approx(flux.auc, abs=0.02)  # these latent numbers are the pixels
    assert abs(after.auc - 0.5) < 4 * after.auc_error
    assert before.beyond > 0.9
    assert after.beyond < 0.06
    turned = gaps(OTHER, HIDES, SEES)
    assert turned[SPACES[1]].auc == after.auc
    assert turned[SPACES[2]].auc == before.auc


def test_the_same_again_and_arrays_left_alone() -> None:
    flux = OTHER.flux.copy()
    first, again = (gaps(OTHER, SEES, HIDES)[SPACES[2]] for _ in range(2))
    np.testing.assert_array_equal(first.observed, again.observed)
    assert first.auc == again.auc
    np.testing.assert_array_equal(OTHER.flux, flux)


def test_few_spectra_have_no_area_and_one_latent_number_can_be_drawn() -> None:
    one = encoder(LINES[:1])
    found = transfer_gap(SYNTHETIC, ALIKE[:10], [one], [one])
    assert np.isnan(found[1].auc)
    assert found[1].observed.shape == (10, 2)
    errors = (ReconstructionError("synthetic", 600, 1e-4, 2e-4), ReconstructionError("observed", 10, 4e-4, 1e-4))
    figure = transfer_figure(found, errors)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*SPACES, "reconstruction"]
    heights = [patch.get_height() for patch in figure.axes[3].patches]
    np.testing.assert_allclose(heights, [0.01, 0.02, 2**0.5 * 0.01, 0.01])
