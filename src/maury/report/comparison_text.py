"""Numbers of a comparison as words, alike in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from maury.assess.comparison import SystemFigures, SystemScore
from maury.report.style import decimals

LABEL_HEADS = (
    "system",
    "label",
    "n",
    "bias",
    "scatter",
    "above best",
    "RMSE",
    "in 1 sigma",
    "pulls",
    "pairs",
    "repeats",
    "repeat pulls",
)
COST_HEADS = ("system", "trained on", "training (s)", "spectra/s", "doubtful", "median gap", "gap > 1", "AUC")
N_REPEATS = 3
"""How many of the last columns are about repeat visits."""
FAILED = "failed"


def label_rows(
    systems: Sequence[str], labels: Sequence[str], scores: Sequence[SystemScore | None], *, repeats: bool
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Heads, and a row for each system; those of repeat visits are left away where there are none.

    Parameters
    ----------
    labels, scores : of one label, for each system: its name there, and None for a system that failed.
    """
    digits = max((decimals(score.scatter) for score in scores if score is not None), default=2)
    shown = len(LABEL_HEADS) - (0 if repeats else N_REPEATS)
    rows = [_cells(*row, digits)[:shown] for row in zip(systems, labels, scores, strict=True)]
    return LABEL_HEADS[:shown], rows


def _cells(system: str, label: str, score: SystemScore | None, digits: int) -> list[str]:
    if score is None:
        return [system, label, FAILED, *["-"] * (len(LABEL_HEADS) - 3)]
    return [
        system,
        label,
        f"{score.n}" + (f" of {score.n_own}" if score.n_own != score.n else ""),
        with_error(score.bias, score.bias_error, digits, sign=True),
        with_error(score.scatter, score.scatter_error, digits),
        with_error(score.excess, score.excess_error, digits, sign=True) if score.excess > 0 else "-",
        _number(score.rmse, digits),
        _percent(score.inside),
        _number(score.pull_scatter, 2),
        f"{score.n_pairs}",
        with_error(score.repeat_scatter, score.repeat_scatter_error, digits),
        with_error(score.repeat_pulls, score.repeat_pulls_error, 2),
    ]


def cost_cells(system: str, figures: SystemFigures | None) -> list[str]:
    """A row under :data:`COST_HEADS`."""
    if figures is None:
        return [system, FAILED, *["-"] * (len(COST_HEADS) - 2)]
    models = f"{figures.n_models} x " if figures.n_models > 1 else ""
    return [
        system,
        f"{models}{figures.n_training:.0f}",
        f"{models}{figures.train_time:.1f}",
        f"{figures.infer_rate:.0f}" if figures.infer_rate >= 100 else f"{figures.infer_rate:.2g}",
        _percent(figures.doubtful),
        _number(figures.gap, 2),
        _percent(figures.gap_beyond),
        with_error(figures.auc, figures.auc_error, 3),
    ]


def with_error(value: float, error: float, digits: int, *, sign: bool = False) -> str:
    """``+18 ± 68``; "-" for a number that is unknown."""
    if not isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}" + (f" ± {error:.{digits}f}" if isfinite(error) else "")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if isfinite(value) else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if isfinite(share) else "-"
