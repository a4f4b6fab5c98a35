"""Principal components of spectra with masked pixels."""

from __future__ import annotations

import numpy as np
import pytest

from maury.emulate.components import principal_components
from maury.errors import UsageError


def low_rank(n: int = 60, n_pixels: int = 100, rank: int = 3, seed: int = 4) -> np.ndarray:
    """Spectra of exactly ``rank`` components of clearly different size about a mean."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(size=(rank, n_pixels))
    return 1.0 + rng.normal(size=(n, rank)) * 0.3 ** np.arange(rank) @ shapes


def all_good(flux: np.ndarray) -> np.ndarray:
    return np.ones(flux.shape, dtype=bool)


@pytest.mark.parametrize(("n", "n_pixels"), [(60, 100), (100, 60)])
class TestClosedForm:
    """Either of the two Gram matrices may be the smaller one."""

    def test_the_basis_is_orthonormal(self, n: int, n_pixels: int) -> None:
        flux = low_rank(n, n_pixels)
        _, basis, _ = principal_components(flux, all_good(flux), np.ones(n), 3)
        np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)

    def test_against_a_singular_value_decomposition(self, n: int, n_pixels: int) -> None:
        flux = low_rank(n, n_pixels) + 0.01 * np.random.default_rng(1).normal(size=(n, n_pixels))
        mean, basis, scores = principal_components(flux, all_good(flux), np.full(n, 7.0), 3)
        np.testing.assert_allclose(mean, flux.mean(axis=0), rtol=1e-12)
        left, size, right = np.linalg.svd(flux - mean, full_matrices=False)
        best = (left * size)[:, :3] @ right[:3]
        np.testing.assert_allclose(scores @ basis, best, atol=1e-10)
        variances = (scores**2).sum(axis=0)
        np.testing.assert_allclose(variances, size[:3] ** 2, rtol=1e-8)  # the largest first

    def test_low_rank_spectra_come_back(self, n: int, n_pixels: int) -> None:
        flux = low_rank(n, n_pixels)
        mean, basis, scores = principal_components(flux, all_good(flux), np.ones(n), 3)
        np.testing.assert_allclose(mean + scores @ basis, flux, atol=1e-10)


class TestWeights:
    def test_a_weight_of_two_is_the_spectrum_twice(self) -> None:
        flux = low_rank() + 0.05 * np.random.default_rng(2).normal(size=(60, 100))
        weights = np.where(np.arange(60) < 20, 2.0, 1.0)
        mean, basis, scores = principal_components(flux, all_good(flux), weights, 3)
        twice = np.vstack([flux, flux[:20]])
        other_mean, other_basis, other = principal_components(twice, all_good(twice), np.ones(80), 3)
        np.testing.assert_allclose(mean, other_mean, rtol=1e-12)
        np.testing.assert_allclose(scores @ basis, other[:60] @ other_basis, atol=1e-10)

    def test_a_weight_of_zero_has_no_influence_but_gets_scores(self) -> None:
        flux = low_rank()
        wild = flux.copy()
        wild[0] = np.random.default_rng(3).normal(size=100) * 50
        weights = np.r_[0.0, np.ones(59)]
        mean, basis, scores = principal_components(wild, all_good(wild), weights, 3)
        np.testing.assert_allclose(mean, flux[1:].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(mean + scores[1:] @ basis, flux[1:], atol=1e-10)
        np.testing.assert_allclose(scores[0], (wild[0] - mean) @ basis.T, atol=1e-9)


class TestMaskedPixels:
    @pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
    def test_they_are_filled_with_what_the_components_say(self, share: float) -> None:
        """Passes end where one changes what is filled in by less than 1 %; the next would change it far less."""
        flux = low_rank()
        good = np.random.default_rng(5).random(flux.shape) >= share
        mean, basis, scores = principal_components(np.where(good, flux, 0.0), good, np.ones(60), 3)
        error = (mean + scores @ basis - flux)[~good]
        assert error.std() < 0.01 * (flux - flux.mean(axis=0))[~good].std()

    def test_a_range_that_half_of_the_spectra_lack(self) -> None:
        """Two surveys: filling with plain means, or with components of filled spectra alone, stays at the means for good."""
        flux = low_rank(200, 300)
        good = all_good(flux)
        good[:100, 100:160] = False
        noisy = flux + 0.05 * np.random.default_rng(0).normal(size=flux.shape)
        mean, basis, scores = principal_components(np.where(good, noisy, 0.0), good, np.ones(200), 3)
        error = (mean + scores @ basis - flux)[~good]
        assert error.std() < 0.05  # the noise of one pixel; components average over many

    def test_their_flux_has_no_influence(self) -> None:
        flux = low_rank()
        good = np.random.default_rng(6).random(flux.shape) >= 0.1
        one = principal_components(np.where(good, flux, 0.0), good, np.ones(60), 3)
        other = principal_components(np.where(good, flux, -1e12), good, np.ones(60), 3)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_pixel_that_nobody_has(self) -> None:
        flux = low_rank()
        good = all_good(flux)
        good[:, 7] = False
        mean, basis, scores = principal_components(flux, good, np.ones(60), 3)
        assert np.isfinite(mean).all()
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(basis[:, 7], 0.0, atol=1e-12)
        rest = good.any(axis=0)
        np.testing.assert_allclose((mean + scores @ basis)[:, rest], flux[:, rest], atol=1e-8)

    def test_the_callers_arrays_are_left_alone(self) -> None:
        flux, good = low_rank(), all_good(low_rank())
        good[3, 5] = False
        before = flux.copy()
        principal_components(flux, good, np.ones(60), 3)
        np.testing.assert_array_equal(flux, before)


@pytest.mark.parametrize("r", [0, 60, 61])
def test_too_many_or_no_components(r: int) -> None:
    flux = low_rank()
    with pytest.raises(UsageError, match=f"expected 1 to 59 principal components for 60 spectra, got {r}"):
        principal_components(flux, all_good(flux), np.ones(60), r)
