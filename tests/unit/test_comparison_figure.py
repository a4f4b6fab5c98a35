"""The figure and the page of a comparison."""

from __future__ import annotations

import numpy as np
import pytest

from maury.assess.comparison import SystemScore
from maury.errors import UsageError
from maury.report.comparison_figure import DrawnSystem, comparison_figure
from maury.report.comparison_page import ComparisonPage, PageTable, comparison_page
from maury.report.comparison_text import LABEL_HEADS, N_REPEATS, label_rows


def score(label: str, unit: str, scatter: float) -> SystemScore:
    return SystemScore(label, unit, 30, 31, 0.1 * scatter, 0.02, scatter, 0.1 * scatter, scatter, 0.68, 1.0)


def drawn(name: str, metallicity: str, n: int = 30, wild: float = 0.0) -> DrawnSystem:
    random = np.random.default_rng(1)
    truth = np.column_stack([random.uniform(4000, 7000, n), random.uniform(-1, 0, n)])
    size = np.array([100.0, 0.1])
    values = truth + size * random.standard_normal((n, 2))
    values[0, 0] += wild
    values[1] = np.nan
    scores = (score("teff", "K", 100.0), score(metallicity, "dex", 0.1))
    common = np.arange(n) != 1
    return DrawnSystem(name, ("teff", metallicity), truth, values, np.tile(size, (n, 1)), common, scores)


@pytest.mark.parametrize("n", [30, 300])
def test_rows_are_labels_and_columns_systems(n: int) -> None:
    figure = comparison_figure([drawn("one", "fe_h", n), drawn("two-of-a-very-long-name", "m_h", n, wild=1e5)])
    axes = figure.axes
    assert len(axes) == 2 * 3
    hot, cool = axes[0].get_xlim()
    assert hot > 6500 > cool  # hot stars stand left
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_ylim()[1] < 1000  # one wild star does not set the scale
    assert "[M/H]" in axes[4].get_xlabel()
    assert "[Fe/H]" in axes[3].get_xlabel()
    assert "K" in axes[0].get_ylabel()


def test_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="expected at least one system to draw, got none"):
        comparison_figure([])


def test_texts_of_a_system_that_failed() -> None:
    heads, rows = label_rows(["a", "b"], ["teff", "teff"], [score("teff", "K", 123.4), None], repeats=False)
    assert len(heads) == len(rows[0]) == len(rows[1]) == len(LABEL_HEADS) - N_REPEATS
    assert rows[0][:5] == ["a", "teff", "30 of 31", "+12 ± 0", "123 ± 12"]
    assert rows[1][:4] == ["b", "teff", "failed", "-"]


def test_page_escapes_and_counts_reasons() -> None:
    left_out = [(f"{i}.fits", f"snri = {i} outside 20 to 100") for i in range(9)] + [("<x>", "a & b")]
    table = PageTable("teff (K)", ("system", "n"), [("<b>", "failed")])
    page = ComparisonPage(
        "t", "s", {"one": "no <file>"}, [table], [], {"two": []}, left_out, table, {"Command": "maury <compare>"}
    )
    text = comparison_page(page, b"png", "alt")
    assert "9 × snri outside the limits" in text
    assert "1 × a &amp; b" in text
    assert "no &lt;file&gt;" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert all(f"{i}.fits" in text for i in range(9))
    assert "None: every system" in text
