"""Preparation: configuration, fingerprints, ragged batches, failures that do not stop the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maury.errors import RecipeError, UsageError
from maury.prepare import STEPS, Degrade, GaussianContinuum, Mask, Preparation, Resample, Source, ToVacuum
from maury.spectra import Spectra, empty_meta

STANDARD = Preparation((ToVacuum(), Mask(), Resample(start=5010, stop=5090, spacing=1.3), GaussianContinuum()))


def _batch(start, *, n=1, name="a", rv=10.0, medium="vacuum", frame="observed"):
    rng = np.random.default_rng(len(name) + int(start))
    wavelength = np.arange(start, start + 120.0)
    meta = empty_meta(n)
    meta["rv"] = rv
    return Spectra.from_arrays(
        wavelength,
        rng.uniform(1, 2, (n, 120)),
        error=np.full((n, 120), 0.1),
        medium=medium,
        frame=frame,
        ids=[f"{name}{i}" for i in range(n)],
        meta=meta,
    )


def test_configuration_there_and_back():
    config = json.loads(json.dumps(STANDARD.to_config()))
    assert Preparation.from_config(config) == STANDARD
    assert [c["step"] for c in config] == ["to_vacuum", "mask", "resample", "gaussian"]


def test_the_fingerprint_knows_settings_not_spelling():
    one = Preparation.from_config([{"step": "resample", "start": 4500, "stop": 7500, "spacing": 1}])
    assert one.fingerprint == Preparation((Resample(),)).fingerprint  # the defaults, written as integers
    assert one.fingerprint != Preparation((Resample(spacing=2.0),)).fingerprint
    assert one.fingerprint != Preparation((Resample(), ToVacuum())).fingerprint
    assert len(one.fingerprint) == 16


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ([{"step": "resampel"}], "expected a preparation step among correlated_noise, crop, .*, got 'resampel'"),
        ([{"stop": 3}], "expected a preparation step among .*, got None"),
        ([{"step": "gaussian", "lenght": 50.0}], "step 'gaussian' expects only the keys length, variant, weights, got lenght"),
        ([{"step": "to_vacuum", "x": 1}], "expects only the keys none, got x"),
        ([{"step": "gaussian", "length": "50"}], "step 'gaussian' got an unusable length = '50'"),
        ([{"step": "running_median", "window": 40.5}], "unusable window = 40.5"),
        ([{"step": "running_median", "window": 1}], "step 'running_median': expected a window of at least 3"),
        ([{"step": "mask", "bits": ["NOPE"]}], "step 'mask': expected names among"),
        ([{"step": "mask", "ranges": [[1.0, 2.0, 3.0]]}], "step 'mask' got an unusable ranges"),
        ([{"step": "resample", "frame": "observed"}], "step 'resample' got an unusable frame = 'observed'"),
        ([{"step": "degrade"}], "step 'degrade': expected a target resolution"),
        ([{"step": "crop", "start": object()}], "step 'crop' expects plain numbers"),
        ({"step": "crop"}, "as a list of tables"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_sentence(config, text):
    with pytest.raises(RecipeError, match=text) as caught:
        Preparation.from_config(config)
    assert "\n" not in str(caught.value)


def test_ragged_batches_become_one_in_input_order():
    batches = [
        _batch(5000, n=2, name="a"),
        _batch(4990, name="b"),
        _batch(5000, n=3, name="c"),
        _batch(4980, name="d", medium="air"),
    ]
    out = STANDARD(batches)
    assert list(out.ids) == ["a0", "a1", "b0", "c0", "c1", "c2", "d0"]
    assert out.preparation == STANDARD.fingerprint
    assert (out.frame, out.medium) == ("rest", "vacuum")
    position = 0
    for batch in batches:
        alone = STANDARD(batch)
        np.testing.assert_allclose(out.flux[position : position + len(batch)], alone.flux, rtol=1e-12)
        position += len(batch)


def test_prepared_spectra_are_taken_as_they_are_or_refused():
    out = STANDARD(_batch(5000))
    again = STANDARD(out)
    np.testing.assert_array_equal(again.flux, out.flux)
    assert again.preparation == out.preparation
    other = Preparation((Resample(start=5010, stop=5090),))
    with pytest.raises(UsageError, match="expected raw spectra, got some prepared already"):
        other(out)


def test_what_cannot_be_prepared_does_not_stop_the_rest():
    rv = np.full(5, 10.0)
    rv[[1, 3]] = np.nan
    batches = [_batch(5000, n=5, name="a", rv=rv), _batch(8000, name="far"), _batch(4990, name="b"), _batch(5000, n=2, name="c")]
    with pytest.raises(UsageError):
        STANDARD(batches)
    result = STANDARD.prepare_each(batches)
    assert list(result.spectra.ids) == ["a0", "a2", "a4", "b0", "c0", "c1"]
    assert result.sources == (Source(0, 0), Source(0, 2), Source(0, 4), Source(2, 0), Source(3, 0), Source(3, 1))
    assert [(f.batch, f.rows, f.ids) for f in result.failures] == [(0, (1,), ("a1",)), (0, (3,), ("a3",)), (1, (0,), ("far0",))]
    assert "expected a radial velocity" in result.failures[0].reason
    assert "overlap 5010.0–5089.3 Å" in result.failures[2].reason
    np.testing.assert_allclose(result.spectra.flux[3], STANDARD(batches[2]).flux[0], rtol=1e-12)


def test_nothing_can_be_prepared():
    result = STANDARD.prepare_each([_batch(8000)])
    assert (result.spectra, result.sources, len(result.failures)) == (None, (), 1)


def test_results_that_do_not_agree_are_failures_too():
    preparation = Preparation((Resample(start=5010, stop=5090),))
    result = preparation.prepare_each([_batch(5000, name="a"), _batch(5000, name="b", medium="air"), _batch(5001, name="c")])
    assert list(result.spectra.ids) == ["a0", "c0"]
    assert result.failures[0].ids == ("b0",)
    assert "add to_vacuum" in result.failures[0].reason
    with pytest.raises(UsageError, match="one medium, frame"):
        preparation([_batch(5000), _batch(5000, medium="air")])


def test_no_batches():
    with pytest.raises(UsageError, match="expected at least one batch"):
        STANDARD([])


def test_steps_before_resampling_may_differ_by_spectrum():
    """Each spectrum is degraded from its own native resolution to the common one."""
    a, b = _batch(5000, name="a"), _batch(5000, name="b")
    for batch, fwhm in ((a, 2.0), (b, 3.0)):
        batch.meta["fwhm"] = fwhm
    out = Preparation((Degrade(fwhm=5.0), Resample(start=5020, stop=5080)))([a, b])
    assert list(out.meta["fwhm"]) == [5.0, 5.0]


def test_every_step_is_registered_by_its_name():
    assert all(cls.name == name for name, cls in STEPS.items())
