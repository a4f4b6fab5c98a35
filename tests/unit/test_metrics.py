"""Metrics against closed forms and hand-made samples."""

from __future__ import annotations

import numpy as np
import pytest

from maury.assess.metrics import ALL, coverage, format_table, label_metrics, pulls_of, robust_std, summary_table
from maury.errors import UsageError
from maury.labels import LabelSet, make_label

LABELS = LabelSet((make_label("teff", "K"), make_label("logg", "dex")), (5000.0, 4.0), (500.0, 0.5), (4000.0, 1.0), (7000.0, 5.0))


def test_robust_std() -> None:
    assert robust_std([1.0, 2.0, 3.0, 4.0, 1000.0]) == pytest.approx(
        1.482602218505602
    )  # median 3, MAD 1; the wild value is no matter
    assert robust_std([1.0, np.nan, 3.0]) == pytest.approx(1.482602218505602)
    assert np.isnan(robust_std([1.0]))
    gauss = np.random.default_rng(1).normal(0.0, 2.0, 100_000)
    assert robust_std(gauss) == pytest.approx(2.0, rel=0.02)  # MAD's efficiency 37 %: standard error 0.4 % here


def test_by_hand() -> None:
    true = np.array([[5000.0, 4.0], [5100.0, 4.0], [5200.0, 4.0], [np.nan, 4.0], [5300.0, 4.0]])
    estimated = true + np.array([[10.0, 0.0], [-10.0, 0.1], [40.0, 0.2], [0.0, np.nan], [np.nan, 0.3]])
    errors = np.full((5, 2), 10.0)
    teff, logg = label_metrics(true, estimated, errors, labels=LABELS)
    assert (teff.label, teff.unit, teff.selection, teff.n, teff.n_failed) == ("teff", "K", ALL, 3, 1)
    assert teff.bias == 10.0
    assert teff.scatter == pytest.approx(1.482602218505602 * 20.0)  # deviations 0, 20, 30
    assert teff.rmse == pytest.approx(np.sqrt(600.0))
    assert teff.mae == 20.0
    assert teff.pull_mean == pytest.approx(4.0 / 3.0)
    assert teff.pull_scatter == pytest.approx(1.482602218505602 * 2.0)
    assert teff.pull_std == pytest.approx(np.std([1.0, -1.0, 4.0], ddof=1))
    assert (logg.n, logg.n_failed) == (4, 1)
    assert logg.bias == pytest.approx(0.15)


def test_by_label_and_by_another_quantity() -> None:
    rng = np.random.default_rng(2)
    true = np.column_stack([rng.uniform(4000, 7000, 500), rng.uniform(1, 5, 500)])
    estimated = true + np.where(true[:, :1] < 5000, 100.0, 10.0) * np.array([1.0, 0.0])
    rows = label_metrics(
        true, estimated, labels=LABELS, by="teff", ranges=[(4000, 5000), (5000, 7000), (9000, 9500)], n_bootstrap=0
    )
    teff = [row for row in rows if row.label == "teff"]
    assert [row.selection for row in teff] == [ALL, "4000 <= teff < 5000", "5000 <= teff < 7000", "9000 <= teff < 9500"]
    assert [row.bias for row in teff[1:3]] == pytest.approx([100.0, 10.0])
    assert sum(row.n for row in teff[1:]) == teff[0].n == 500
    assert teff[3].n == 0
    assert np.isnan(teff[3].scatter)
    assert np.isnan(teff[0].scatter_error)
    assert np.isnan(teff[0].pull_std)
    by_snr = label_metrics(true, estimated, labels=LABELS, by=("snr", np.arange(500.0)), ranges=[(0, 50)])
    assert by_snr[2].selection == "0 <= snr < 50"
    assert by_snr[2].n == 50


def test_bootstrap_error_is_right_and_repeatable() -> None:
    """The MAD of n Gaussian draws has standard error 1.166 sigma / sqrt(n) (asymptotic efficiency 0.3675)."""
    rng = np.random.default_rng(3)
    true = np.zeros((2000, 2))
    estimated = rng.normal(size=(2000, 2))
    first = label_metrics(true, estimated, labels=LABELS, n_bootstrap=400)
    assert first[0].scatter_error == pytest.approx(1.166 / np.sqrt(2000), rel=0.25)
    assert first == label_metrics(true, estimated, labels=LABELS, n_bootstrap=400) or np.isnan(first[0].pull_std)
    assert first[0].scatter_error == label_metrics(true, estimated, labels=LABELS, n_bootstrap=400)[0].scatter_error


def test_pulls_and_coverage() -> None:
    assert np.isnan(pulls_of([1.0, 1.0], [2.0, np.nan], [0.0, 1.0])).all()
    assert pulls_of([1.0], [2.0], [0.5])[0] == 2.0
    one, two = coverage([0.0, 0.5, -0.9, 1.5, -3.0, np.nan])
    assert (one.fraction, two.fraction) == (0.6, 0.8)
    assert one.n == 5
    assert one.uncertainty == pytest.approx(np.sqrt(0.6827 * 0.3173 / 5))
    rows = coverage(np.random.default_rng(4).normal(size=200_000), levels=(0.5, 0.6827, 0.9545))
    for row in rows:
        assert abs(row.fraction - row.level) < 4 * row.uncertainty
    assert np.isnan(coverage([])[0].fraction)
    with pytest.raises(UsageError, match=r"write 0\.6827, not 68\.27"):
        coverage([0.0], levels=(68.27,))


def test_wrong_usage() -> None:
    good = np.zeros((5, 2))
    with pytest.raises(UsageError, match=r"expected true of shape \(n_stars, 2\), got \(5, 3\)"):
        label_metrics(np.zeros((5, 3)), good, labels=LABELS)
    with pytest.raises(UsageError, match="of one shape"):
        label_metrics(np.zeros((4, 2)), good, labels=LABELS)
    with pytest.raises(UsageError, match="expected 'by' and 'ranges' together"):
        label_metrics(good, good, labels=LABELS, by="teff")
    with pytest.raises(UsageError, match="expected a label among teff, logg, got 'age'"):
        label_metrics(good, good, labels=LABELS, by="age", ranges=[(0, 1)])
    with pytest.raises(UsageError, match="expected one value of snr for each of 5 stars"):
        label_metrics(good, good, labels=LABELS, by=("snr", [1.0]), ranges=[(0, 1)])


def test_tables() -> None:
    rng = np.random.default_rng(5)
    true = np.column_stack([rng.uniform(4000, 7000, 200), rng.uniform(1, 5, 200)])
    estimated = true + rng.normal(size=(200, 2)) * [90.0, 0.2]
    rows = label_metrics(
        true, estimated, np.full((200, 2), [90.0, 0.2]), labels=LABELS, by="teff", ranges=[(4000, 5500), (5500, 7000)]
    )
    table = summary_table(rows)
    assert len(table) == 3
    assert str(table["scatter_teff"].unit) == "K"
    assert str(table["bias_logg"].unit) == "dex"
    assert table["mean_teff"][0] == pytest.approx(np.mean((estimated - true)[:, 0]))
    assert table["n_teff"].unit is None
    assert table["scatter_teff"][0] == rows[0].scatter
    assert table["scatter_logg"].description == "1.4826 MAD of the residuals of logg"
    lines = format_table(rows).splitlines()
    assert len(lines) == 2 + 6
    assert lines[0].split()[:3] == ["label", "unit", "stars"]
    assert f"{rows[0].scatter:.1f}" in lines[2]
    assert f"{rows[1].scatter:.3f}" in lines[3]
    assert "pull mean" in lines[0]
    assert "pull" not in format_table(label_metrics(true, estimated, labels=LABELS))
    assert " - " in format_table(label_metrics(true[:1], estimated[:1], labels=LABELS))


def test_open_ranges_have_one_end_in_their_name() -> None:
    true = np.column_stack([np.linspace(3000.0, 4000.0, 10), np.full(10, 4.5)])
    rows = label_metrics(true, true + 1.0, labels=LABELS, by="teff", ranges=[(-np.inf, 3750.0), (3750.0, np.inf)])
    assert [(row.selection, row.n) for row in rows[::2]] == [(ALL, 10), ("teff < 3750", 7), ("teff >= 3750", 3)]
