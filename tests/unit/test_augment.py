"""Augmentations: what is drawn has the distribution that is promised, and depends on a spectrum's own number alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from maury.errors import UsageError
from maury.grids.augment import Augmentation, ContinuumWiggles, DroppedPixels, VelocityJitter, WhiteNoise
from maury.spectra import Spectra

N_PIXELS = 400
ALL: tuple[Augmentation, ...] = (
    ContinuumWiggles(0.02, 3),
    WhiteNoise((20.0, 200.0)),
    DroppedPixels(0.05, run=3, fill=0.5),
)
SEED = 11


def flat(n: int, level: float = 1.0) -> Spectra:
    flux, wavelength = np.full((n, N_PIXELS), level), np.linspace(8800.0, 8835.0, N_PIXELS)
    return Spectra.from_arrays(wavelength, flux, ivar=np.full(flux.shape, 1e6), medium="air", frame="rest")


def apply(augmentations: tuple[Augmentation, ...], spectra: Spectra, rows: np.ndarray, seed: int = SEED) -> Spectra:
    for augmentation in augmentations:
        spectra = augmentation(spectra, seed, rows)
    return spectra


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.name)
def test_input_stays_and_chunks_do_not_matter(augmentation: Augmentation) -> None:
    spectra, rows = flat(12), 100 + np.arange(12)
    flux, ivar = spectra.flux.copy(), spectra.ivar.copy()
    whole = augmentation(spectra, SEED, rows)
    assert np.array_equal(spectra.flux, flux)
    assert np.array_equal(spectra.ivar, ivar)
    for a, b in pairwise((0, 1, 5, 12)):
        part = augmentation(spectra[a:b], SEED, rows[a:b])
        assert np.array_equal(part.flux, whole.flux[a:b])
        assert np.array_equal(part.ivar, whole.ivar[a:b])
    backwards = augmentation(spectra[::-1], SEED, rows[::-1])
    assert np.array_equal(backwards.flux, whole.flux[::-1])


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.name)
def test_spectra_and_seeds_differ(augmentation: Augmentation) -> None:
    made = augmentation(flat(3), SEED, np.arange(3)).flux
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made, augmentation(flat(3), SEED + 1, np.arange(3)).flux)


def test_augmentations_do_not_move_each_other() -> None:
    """Noise is the same whether or not pixels are dropped or wiggles were there before (at equal level)."""
    rows = np.arange(5)
    noisy = WhiteNoise((50.0, 50.0))(flat(5), SEED, rows)
    both = apply((WhiteNoise((50.0, 50.0)), DroppedPixels(0.1)), flat(5), rows)
    kept = both.ivar > 0
    assert 0.8 < kept.mean() < 0.99
    assert np.array_equal(both.flux[kept], noisy.flux[kept])


def test_white_noise_has_the_snr_it_states() -> None:
    """Pulls of 2000 x 400 pixels: mean 0 ± 0.0011, variance 1 ± 0.0016 (sqrt(2/n)); five standard errors each. Median level 3."""
    made = WhiteNoise((20.0, 200.0))(flat(2000, level=3.0), SEED, np.arange(2000))
    pull = (made.flux - 3.0) * np.sqrt(made.ivar)
    assert abs(pull.mean()) < 0.0056
    assert abs(pull.var() - 1.0) < 0.008
    snr = np.asarray(made.meta["snr"])
    assert np.allclose(3.0 * np.sqrt(made.ivar[:, 0]), snr)
    assert (snr >= 20).all()
    assert (snr <= 200).all()
    # uniform in the logarithm: half of them below the geometric mean, ± 0.011 (sqrt(0.25/2000)), five of these
    assert abs((snr < np.sqrt(20 * 200)).mean() - 0.5) < 0.056


def test_masked_pixels_get_no_noise_and_change_none() -> None:
    spectra = flat(2)
    ivar = spectra.ivar.copy()
    ivar[:, :50] = 0
    masked = WhiteNoise((50.0, 50.0))(spectra.with_pixels(ivar=ivar), SEED, np.arange(2))
    plain = WhiteNoise((50.0, 50.0))(spectra, SEED, np.arange(2))
    assert (masked.flux[:, :50] == 1).all()
    assert (masked.ivar[:, :50] == 0).all()
    assert np.array_equal(masked.flux[:, 50:], plain.flux[:, 50:])


def test_wiggles_have_their_rms_and_are_smooth() -> None:
    """Mean square deviation of 4000 curves with three coefficients each: relative standard error sqrt(2/12000) = 0.013; five."""
    made = ContinuumWiggles(0.02, 3)(flat(4000), SEED, np.arange(4000))
    deviation = made.flux - 1.0
    # Legendre polynomials are orthonormal under the integral; the sum over 400 pixels with both ends differs by 1/400
    assert np.mean(deviation**2) == pytest.approx(0.02**2, rel=0.07)
    x = np.linspace(-1, 1, N_PIXELS)
    fitted = np.polynomial.legendre.legval(x, np.polynomial.legendre.legfit(x, deviation[:20].T, 3))
    assert np.allclose(fitted, deviation[:20], atol=1e-12)
    assert np.allclose(made.flux * np.sqrt(made.ivar), 1e3)  # the S/N of a pixel does not change


def test_dropped_pixels_are_as_many_as_asked_and_everywhere() -> None:
    """5 % in runs of 3 at random places: 1 - exp(-0.05) = 4.88 % are lost, in each pixel (the ends too).

    Each pixel of 4000 spectra is lost with a standard error of 0.34 %; six of these for 400 pixels.
    """
    made = DroppedPixels(0.05, run=3, fill=0.5)(flat(4000), SEED, np.arange(4000))
    lost = made.ivar == 0
    assert abs(lost.mean() - 0.0488) < 0.0017  # five times sqrt(3 * 0.0488/1.6e6)
    assert np.abs(lost.mean(axis=0) - 0.0488).max() < 0.0204
    assert (made.flux[lost] == 0.5).all()
    assert (made.flux[~lost] == 1.0).all()


def test_velocity_jitter_is_normal_and_per_spectrum() -> None:
    """Of 4000 numbers the standard deviation is known to 1/sqrt(8000) = 1.1 %; five of these."""
    jitter = VelocityJitter(2.0)
    drawn = jitter.velocities(SEED, np.arange(4000))
    assert drawn.std() == pytest.approx(2.0, rel=0.056)
    assert abs(drawn.mean()) < 5 * 2.0 / np.sqrt(4000)
    assert np.array_equal(jitter.velocities(SEED, np.arange(100, 110)), drawn[100:110])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: VelocityJitter(-1.0), "expected sigma \\(km/s\\) between 0 and 300, got -1; correct it"),
        (lambda: ContinuumWiggles(2.0), "expected amplitude between 0 and 1, got 2"),
        (lambda: ContinuumWiggles(0.1, 0), "expected degree between 1 and 100, got 0"),
        (lambda: WhiteNoise((0.0, 10.0)), "expected snr as \\(low, high\\) with 0 < low <= high, got \\(0, 10\\)"),
        (lambda: WhiteNoise((20.0, 10.0)), "got \\(20, 10\\)"),
        (lambda: DroppedPixels(1.5), "expected fraction between 0 and 0.9, got 1.5"),
        (lambda: DroppedPixels(0.1, 0), "expected run between 1 and 10000, got 0"),
        (lambda: DroppedPixels(0.1, fill=np.nan), "expected a finite fill"),
    ],
)
def test_impossible_settings_are_refused(make: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make()  # type: ignore[operator]
