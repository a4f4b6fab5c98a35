"""Which networks of a sweep are accepted, and what all of them tell: tables of rows alone (Passegger+2020, Table 3, Sect. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from maury.labels import Label
from maury.networks.topology import PRESETS
from maury.recipes.sweep_schema import SweepRecipe
from maury.recipes.sweep_trial import LabelScore, Row

if TYPE_CHECKING:
    from astropy.table import Table

Reading = Literal["mean", "worst_tenth"]
"""How an error is held against its threshold: Passegger+2020 speak of its average, and of "whatever the label value"."""

READINGS: tuple[Reading, ...] = get_args(Reading)


def error_of(score: LabelScore, reading: Reading) -> float:
    """The error that is held against a threshold, label units."""
    return score.mae if reading == "mean" else score.worst_tenth


def accepted(rows: Iterable[Row], label: str, sweep: SweepRecipe, reading: Reading | None = None) -> list[Row]:
    """The networks of a label whose error stays below its threshold, best first.

    Parameters
    ----------
    reading : instead of the recipe's.
    """
    by = reading or sweep.reading
    known = [(error_of(row.all_scores[label], by), row) for row in rows if label in row.all_scores]
    good = [(error, row) for error, row in known if error < sweep.threshold(label)]
    return [row for _, row in sorted(good, key=lambda pair: (pair[0], pair[1].trial.name))]


def chosen(rows: Sequence[Row], label: str, sweep: SweepRecipe) -> list[Row]:
    """The accepted networks that vote on a label."""
    good = accepted(rows, label, sweep)
    return good[: sweep.members] if sweep.members else good


@dataclass(frozen=True)
class Acceptance:
    """A line of Table 3.

    Parameters
    ----------
    label, unit, threshold : what is judged, and by what.
    reading : of the threshold.
    trained : networks of the label that were trained.
    models, architectures, windows : accepted networks, and how many different ones of each they have.
    """

    label: str
    unit: str
    threshold: float
    reading: Reading
    trained: int
    models: int
    architectures: int
    windows: int


def acceptance(rows: Sequence[Row], labels: Sequence[Label], sweep: SweepRecipe) -> list[Acceptance]:
    """Table 3 for each label that was swept, under both readings."""
    out = []
    for label in labels:
        trained = sum(label.name in row.trial.labels for row in rows)
        for reading in READINGS if trained else ():
            trials = [row.trial for row in accepted(rows, label.name, sweep, reading)]
            counts = (len(trials), len({t.architecture for t in trials}), len({t.windows for t in trials}))
            out.append(Acceptance(label.name, label.unit, sweep.threshold(label.name), reading, trained, *counts))
    return out


@dataclass(frozen=True)
class Finding:
    """Mean errors of the networks that have something in common, label units.

    Parameters
    ----------
    question : what is compared.
    group : what these networks have in common.
    label, unit : what they find.
    n : how many they are.
    median, lowest, highest : of their mean errors.
    """

    question: str
    group: str
    label: str
    unit: str
    n: int
    median: float
    lowest: float
    highest: float


def findings(rows: Sequence[Row], labels: Sequence[Label]) -> list[Finding]:
    """What the paper says in words: how much architecture, window, joint labels and joined windows matter.

    Groups of one question with less than two kinds of networks are left out.
    """
    out: list[Finding] = []
    for question, kind_of in _QUESTIONS.items():
        for label in labels:
            errors: dict[str, list[float]] = {}
            for row in rows:
                kind = kind_of(row)
                if kind is not None and label.name in row.all_scores:
                    errors.setdefault(kind, []).append(row.all_scores[label.name].mae)
            if len(errors) < 2:
                continue
            for group in sorted(errors, key=_natural):
                some = errors[group]
                ends = (float(np.median(some)), min(some), max(some))
                out.append(Finding(question, group, label.name, label.unit, len(some), *ends))
    return out


def _topology(part: Callable[[str], str]) -> Callable[[Row], str | None]:
    return lambda row: part(row.trial.architecture) if row.trial.architecture in PRESETS else None


def _filters(name: str) -> str:
    filters = PRESETS[name].filters
    return "rising" if filters[-1] > filters[0] else "falling" if filters[-1] < filters[0] else "equal"


_QUESTIONS: dict[str, Callable[[Row], str | None]] = {
    "convolutions": _topology(lambda name: str(len(PRESETS[name].filters))),
    "filters": _topology(_filters),
    "pooling": _topology(lambda name: PRESETS[name].pool),
    "dense layers": _topology(lambda name: str(len(PRESETS[name].dense))),
    "window": lambda row: row.trial.windows[0] if len(row.trial.windows) == 1 else None,
    "window and chunk": lambda row: row.trial.place if row.trial.chunk else None,
    "labels of a network": lambda row: "+".join(row.trial.labels) if len(row.trial.windows) == 1 else None,
    "single or joint (A, B)": lambda row: {"A": "A: one label", "B": "B: several labels"}.get(row.trial.approach),
    "single or joined (A, C)": lambda row: (
        {"A": "A: one window", "C": "C: several windows"}.get(row.trial.approach) if len(row.trial.labels) == 1 else None
    ),
}


def _natural(text: str) -> tuple[tuple[float, str], ...]:
    """Numbers in a text count as numbers."""
    words = text.replace("-", " ").replace("_", " ").split()
    return tuple((float(word), "") if word.replace(".", "", 1).isdigit() else (np.inf, word) for word in words)


def failures(rows: Iterable[Row]) -> dict[str, int]:
    """How many networks failed for each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for row in rows:
        if not row.is_done:
            counts[row.reason] = counts.get(row.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def runs_table(rows: Sequence[Row], labels: Sequence[Label], sweep: SweepRecipe) -> Table:
    """All networks, failed ones with their reason; errors in the units of their labels, NaN where a network does not know one."""
    from astropy.table import Column, Table

    def column(name: str, values: Sequence[object], about: str, unit: str = "") -> Column:
        return Column(values, name=name, unit=unit or None, description=about)

    table = Table(
        [
            column("name", [row.trial.name for row in rows], "of the network, and of its files"),
            column("number", [row.number for row in rows], "place in the order of the sweep"),
            column(
                "approach", [row.trial.approach for row in rows], "A: one window and label; B: several labels; C: several windows"
            ),
            column("windows", ["+".join(row.trial.windows) for row in rows], "Å, that the network sees"),
            column("chunk", [row.trial.chunk for row in rows], "pixels of the window that it sees; 0: the whole window"),
            column("labels", ["+".join(row.trial.labels) for row in rows], "that it finds"),
            column("architecture", [row.trial.architecture for row in rows], "name of its topology"),
            column("seed", [row.trial.seed for row in rows], "of its first weights"),
            column("status", ["done" if row.is_done else "failed" for row in rows], "how its training ended"),
            column(
                "validation_loss",
                [_number(row.validation_loss) for row in rows],
                "mean square error, labels in units of their range",
            ),
        ]
    )
    for label in labels:
        scores = [row.all_scores.get(label.name) for row in rows]
        for name, about in _SCORES.items():
            values = [float("nan") if score is None else float(getattr(score, name)) for score in scores]
            table.add_column(column(f"{name}_{label.name}", values, f"{about} of {label.name}", label.unit))
        if any(label.name in row.trial.labels for row in rows):
            good = {row.trial.name for row in accepted(rows, label.name, sweep)}
            values = [row.trial.name in good for row in rows]
            table.add_column(column(f"accepted_{label.name}", values, f"whether {label.name} is below its threshold"))
    for name, unit, about in _COSTS:
        table.add_column(column(name, [getattr(row, name) for row in rows], about, unit))
    table.add_column(column("reason", [row.reason for row in rows], "why the training failed"))
    return table


_SCORES = {
    "mae": "mean absolute error",
    "worst_tenth": "mean absolute error in the worst tenth of the values",
    "bias": "median error",
    "scatter": "1.4826 MAD of the errors",
}
_COSTS = (
    ("seconds", "s", "that the training took"),
    ("epochs", "", "of the training"),
    ("best_epoch", "", "whose weights were kept"),
    ("n_parameters", "", "of the network"),
    ("n_pixels", "", "that it sees"),
)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
