"""Spectra, labels, estimates and flags: what they refuse, and that nothing is lost on the way."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import PIXEL_FLAG_MEANING, RESULT_FLAG_MEANING, PixelFlag, ResultFlag, combine, names_of
from maury.labels import LabelSet, make_label
from maury.spectra import STANDARD_META, Spectra, empty_meta

LABELS = (make_label("teff", "K", "inverse"), make_label("logg", "dex"), make_label("radius", "Rsun", "log10"))


def spectra(n: int = 3, n_pixels: int = 5) -> Spectra:
    wavelength = np.linspace(5000.0, 5100.0, n_pixels)
    return Spectra.from_arrays(wavelength, np.ones((n, n_pixels)), error=np.full((n, n_pixels), 0.1), medium="air", frame="rest")


def label_set() -> LabelSet:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.uniform(3000, 7000, 200), rng.uniform(0, 5, 200), rng.uniform(0.1, 10, 200)])
    return LabelSet.from_training(LABELS, values)


class TestSpectra:
    def test_bad_pixels_become_masked_and_the_callers_arrays_stay(self) -> None:
        flux = np.array([[1.0, np.nan, 3.0, 4.0, np.inf]])
        error = np.array([[0.1, 0.1, 0.0, np.nan, 0.1]])
        kept = flux.copy(), error.copy()
        s = Spectra.from_arrays(np.arange(5.0) + 1, flux, error=error, medium="vacuum", frame="rest")
        np.testing.assert_array_equal(s.ivar > 0, [[True, False, False, False, False]])
        assert np.isfinite(s.flux).all()
        np.testing.assert_array_equal(flux, kept[0])
        np.testing.assert_array_equal(error, kept[1])
        flux[0, 0] = 7.0  # still writable

    def test_arrays_are_read_only(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            spectra().flux[0, 0] = 2.0

    def test_quantities_are_converted(self) -> None:
        s = Spectra.from_arrays(
            np.array([500.0, 501.0]) * u.nm, np.ones((1, 2)), ivar=np.ones((1, 2)), medium="air", frame="rest"
        )
        np.testing.assert_allclose(s.wavelength, [5000.0, 5010.0])

    @pytest.mark.parametrize(
        ("wavelength", "text"),
        [
            ([2.0, 1.0], "increasing"),
            ([1.0, 1.0], "increasing"),
            ([-1.0, 1.0], "positive"),
            ([1.0, np.nan], "increasing"),
            ([1.0], "2 pixels"),
        ],
    )
    def test_impossible_wavelengths_are_refused(self, wavelength: list[float], text: str) -> None:
        with pytest.raises(UsageError, match=text):
            Spectra.from_arrays(
                wavelength, np.ones((1, len(wavelength))), ivar=np.ones((1, len(wavelength))), medium="air", frame="rest"
            )

    def test_exactly_one_of_ivar_and_error(self) -> None:
        with pytest.raises(UsageError, match="exactly one"):
            Spectra.from_arrays([1.0, 2.0], np.ones((1, 2)), medium="air", frame="rest")

    def test_medium_and_frame_must_be_said(self) -> None:
        with pytest.raises(UsageError, match="'vacuum' or 'air'"):
            Spectra.from_arrays([1.0, 2.0], np.ones((1, 2)), ivar=np.ones((1, 2)), medium="water", frame="rest")  # type: ignore[arg-type]

    def test_rows_and_stack_are_inverse(self) -> None:
        s = spectra()
        again = Spectra.stack([s[0:1], s[1:2], s[[2]]])
        np.testing.assert_array_equal(again.flux, s.flux)
        assert list(again.ids) == list(s.ids)

    def test_other_grids_do_not_stack(self) -> None:
        with pytest.raises(UsageError, match="resample them first"):
            Spectra.stack([spectra(), spectra(n_pixels=6)])

    def test_empty_meta_has_the_standard_columns(self) -> None:
        assert set(empty_meta(2).colnames) == set(STANDARD_META)


class TestLabels:
    def test_scaling_goes_there_and_back(self) -> None:
        labels = label_set()
        values = np.array([[4321.0, 1.5, 0.7], [6000.0, 4.4, 1.0]])
        np.testing.assert_allclose(labels.unscale(labels.scale(values)), values, rtol=1e-12)

    def test_covariance_passes_through_the_same_scaling(self) -> None:
        # against finite differences of unscale: the fault of TheCannon #74 was an error left in scaled units
        labels = label_set()
        scaled = labels.scale(np.array([[5000.0, 2.0, 1.5]]))
        step = 1e-6
        slope = np.array(
            [(labels.unscale(scaled + step * e) - labels.unscale(scaled - step * e))[0] / (2 * step) for e in np.eye(3)]
        )
        covariance = np.array([[[1.0, 0.2, 0.1], [0.2, 2.0, -0.3], [0.1, -0.3, 0.5]]])
        expected = slope.T @ covariance[0] @ slope
        np.testing.assert_allclose(labels.unscale_covariance(covariance, scaled)[0], expected, rtol=1e-6)

    def test_the_cannons_scaling(self) -> None:
        # METHODS 0.5: pivot p50, spread (p97.5 - p2.5)/4
        values = np.arange(1001.0)[:, None]
        labels = LabelSet.from_training((make_label("logg", "dex"),), values)
        assert labels.pivot[0] == 500.0
        assert labels.spread[0] == pytest.approx((975.0 - 25.0) / 4)

    def test_config_round_trip(self) -> None:
        assert LabelSet.from_config(label_set().to_config()) == label_set()

    def test_nan_is_out_of_range(self) -> None:
        assert not label_set().in_range([[np.nan, 2.0, 1.0]])[0, 0]

    @pytest.mark.parametrize(("unit", "text"), [("parsnip", "a unit astropy knows"), ("km/s", "in K")])
    def test_wrong_units_are_refused(self, unit: str, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            make_label("teff", unit)

    def test_constant_label_is_refused(self) -> None:
        with pytest.raises(UsageError, match="constant logg"):
            LabelSet.from_training((make_label("logg", "dex"),), np.ones((10, 1)))

    def test_unknown_label_is_named(self) -> None:
        with pytest.raises(UsageError, match="teff, logg, radius, got 'mass'"):
            label_set().index("mass")


class TestFlags:
    @pytest.mark.parametrize(("kind", "meaning"), [(PixelFlag, PIXEL_FLAG_MEANING), (ResultFlag, RESULT_FLAG_MEANING)])
    def test_every_bit_has_a_meaning(self, kind: type, meaning: dict) -> None:
        assert set(kind) == set(meaning)

    def test_names_there_and_back(self) -> None:
        value = combine(ResultFlag, ["FAILED", "LOW_SNR"])
        assert names_of(ResultFlag, int(value)) == ["FAILED", "LOW_SNR"]

    def test_unknown_bit_is_refused(self) -> None:
        with pytest.raises(UsageError, match="got NO_SUCH_BIT"):
            combine(PixelFlag, ["NO_SUCH_BIT"])


class TestEstimates:
    def test_missing_rows_keep_their_reason(self) -> None:
        e = LabelEstimates.missing(label_set(), ["a", "b"], ["x", "y"], Table({"file": ["f", "g"]}), int(ResultFlag.UNREADABLE))
        both = LabelEstimates.concatenate([e, e])
        assert both.reason == ("x", "y", "x", "y")
        assert np.isnan(both.values).all()
        assert (both[2:].flag == ResultFlag.UNREADABLE).all()

    def test_label_flag_reaches_the_stars_flag(self) -> None:
        e = LabelEstimates.missing(label_set(), ["a", "b"], ["", ""], Table({"file": ["f", "g"]}), 0)
        where = np.array([[False, True, False], [False, False, False]])
        flagged = e.add_label_flag(where, int(ResultFlag.AT_BOUND))
        assert flagged.flag.tolist() == [int(ResultFlag.AT_BOUND), 0]
        assert e.flag.tolist() == [0, 0]

    def test_raw_errors_survive_joining_and_selecting(self) -> None:
        e = LabelEstimates.missing(label_set(), ["a"], [""], Table({"file": ["f"]}), 0)
        calibrated = e.with_(covariance=np.full((1, 3, 3), 4.0), raw_covariance=np.full((1, 3, 3), 1.0))
        joined = LabelEstimates.concatenate([e.with_(covariance=np.full((1, 3, 3), 9.0)), calibrated])[[1, 0]]
        assert joined.raw_covariance is not None
        assert joined.raw_covariance[:, 0, 0].tolist() == [1.0, 9.0]
        assert joined.raw_values is None

    def test_shapes_are_checked(self) -> None:
        e = LabelEstimates.missing(label_set(), ["a"], [""], Table({"file": ["f"]}), 0)
        with pytest.raises(UsageError, match="expected chi2 of shape"):
            e.with_(chi2=np.zeros(3))
