"""Tables of a comparison: one row per system and label, and one per system and test star; and the scores in them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.assess.comparison import SystemFigures, SystemScore, system_scores, with_excess, with_repeats
from maury.assess.visits import DOUBTFUL_VISIT, good_visits, visit_pairs
from maury.catalogue.provenance import package_versions
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import replacing
from maury.flags import ResultFlag, names_of
from maury.recipes.compare import Comparison, SystemRun

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]

_COLUMNS = (
    ("bias", "median of estimate - truth, in the unit of the row"),
    ("bias_error", "its bootstrap error over stars"),
    ("scatter", "1.4826 MAD of estimate - truth"),
    ("scatter_error", "its bootstrap error over stars"),
    ("excess", "scatter above that of the best system on the same stars"),
    ("excess_error", "bootstrap error of that difference over stars"),
    ("rmse", "root mean square of estimate - truth"),
    ("inside", "share of stars within one standard error of the truth; 0.68 if errors are right"),
    ("pull_scatter", "1.4826 MAD of (estimate - truth)/error; 1 if errors are right"),
    ("n_pairs", "pairs of repeat visits that have labels by all systems, and none by this one that is doubtful"),
    ("repeat_scatter", "robust standard deviation of the differences of pairs over the root of 2, in the unit of the row"),
    ("repeat_scatter_error", "its bootstrap error over stars"),
    ("repeat_pulls", "robust standard deviation of differences of pairs over their errors; 1 if errors are right"),
    ("repeat_pulls_error", "its bootstrap error over stars"),
)
_OF_SYSTEM = (
    ("gap", "", "median distance from the training spectra over what explains it; above 1 there is a gap"),
    ("gap_beyond", "", "share of the stars with a gap"),
    ("doubtful", "", "share of the stars with a flag that speaks against all labels, as a fit at a bound has"),
    ("auc", "", "area under the ROC curve of a classifier between test stars and training spectra; 0.5: no gap"),
    ("auc_error", "", "its bootstrap error over stars"),
    ("n_models", "", "models that were trained: one, or one for each fold of test stars"),
    ("n_training", "", "training spectra of a model, the mean"),
    ("train_time", "s", "training of a model with calibration of its errors, the mean"),
    ("infer_rate", "1/s", "test spectra in a second, preparation included"),
)


@dataclass(frozen=True, eq=False)
class Scores:
    """What a comparison found.

    Parameters
    ----------
    systems : scores of each system, label by label; none of one that failed.
    common : (n judged,) stars that count and that all systems which did not fail have labels for.
    """

    systems: tuple[tuple[SystemScore, ...], ...]
    common: NDArray[np.bool_]


def scores_of(comparison: Comparison) -> Scores:
    """Scores of all systems on the stars, and the pairs of visits, that all of them have."""
    judged = comparison.test.judged
    counted = comparison.test.counted[judged]
    stars = [comparison.test.stars[i] for i in judged]
    done = {k: system.estimates for k, system in enumerate(comparison.systems) if system.estimates is not None}
    own = {k: comparison.own(k, estimates) for k, estimates in done.items()}
    common = counted & _measured(list(own.values()), len(counted))
    visits = {k: comparison.own(k, found) for k in own if (found := comparison.systems[k].repeats) is not None}
    usable = _measured(list(visits.values()), 0 if comparison.repeats is None else len(comparison.repeats.groups))
    for k in visits:
        usable = usable & ~np.asarray(comparison.systems[k].repeats_seen, dtype=bool)
    rows: dict[int, list[SystemScore]] = {}
    for k, found in own.items():
        rows[k] = system_scores(
            found.labels, comparison.truth(k), found.values, found.errors, counted=counted, common=common, stars=stars
        )
        if comparison.repeats is not None:
            pairs = visit_pairs(comparison.repeats.groups, good_visits(visits[k]) & usable)
            rows[k] = with_repeats(rows[k], visits[k], pairs)
    residuals = [(found.values - comparison.truth(k))[common] for k, found in own.items()]
    in_common = [stars[i] for i in np.flatnonzero(common)]
    judged_rows = dict(zip(rows, with_excess(list(rows.values()), residuals, in_common), strict=True))
    return Scores(tuple(tuple(judged_rows.get(k, ())) for k in range(len(comparison.systems))), common)


def _measured(estimates: Sequence[LabelEstimates], n: int) -> NDArray[np.bool_]:
    """(n,) spectra with all labels in all of these estimates."""
    out = np.ones(n, dtype=bool)
    for found in estimates:
        out &= np.isfinite(found.values).all(axis=1)
    return out


def figures_of(system: SystemRun, counted: NDArray[np.bool_]) -> SystemFigures:
    """Gap, cost and size of a system that did not fail."""
    ratio = gap_of(system)[counted]
    known = ratio[np.isfinite(ratio)]
    flag = np.zeros(0, dtype=np.int64) if system.estimates is None else system.estimates.flag[counted]
    return SystemFigures(
        float(np.median(known)) if known.size else np.nan,
        float((known > 1.0).mean()) if known.size else np.nan,
        float((flag & int(DOUBTFUL_VISIT) != 0).mean()) if flag.size else np.nan,
        system.auc,
        system.auc_error,
        len(system.n_training),
        float(np.mean(system.n_training)),
        float(np.mean(system.train_seconds)),
        system.n_inferred / system.infer_seconds if system.infer_seconds > 0 else np.nan,
    )


def comparison_table(comparison: Comparison, scores: Scores) -> Table:
    """One row per system and label; a system that failed keeps its rows, with the reason."""
    from astropy.table import Column, Table

    counted = comparison.test.counted[comparison.test.judged]
    lines = []
    for number, (system, some) in enumerate(zip(comparison.systems, scores.systems, strict=True)):
        figures = figures_of(system, counted) if some else None
        for place, label in enumerate(comparison.labels):
            lines.append((system, label.own[number], label.unit, some[place] if some else None, figures))
    table = Table()
    table["system"] = Column([line[0].name for line in lines], description="recipe")
    table["label"] = Column([line[1] for line in lines], description="as the recipe calls it")
    table["unit"] = Column([line[2] for line in lines], description="of bias, scatter, rmse and repeat_scatter")
    n = [(0, 0) if line[3] is None else (line[3].n, line[3].n_own) for line in lines]
    table["n"] = Column([one[0] for one in n], description="test stars that all systems have labels for")
    table["n_own"] = Column([one[1] for one in n], description="test stars that this system has labels for")
    for name, about in _COLUMNS:
        missing = 0 if name == "n_pairs" else np.nan
        table[name] = Column([missing if line[3] is None else getattr(line[3], name) for line in lines], description=about)
    for name, unit, about in _OF_SYSTEM:
        missing = 0 if name == "n_models" else np.nan
        values = [missing if line[4] is None else getattr(line[4], name) for line in lines]
        table[name] = Column(values, unit=unit or None, description=about)
    table["reason"] = Column([line[0].reason for line in lines], dtype=np.str_, description="why the system failed")
    table.meta["versions"] = package_versions()
    table.meta["systems"] = {
        system.name: {"fingerprint": system.fingerprint, "models": list(system.model_ids)} for system in comparison.systems
    }
    return table


def stars_table(comparison: Comparison, scores: Scores) -> Table:
    """One row per test star and system, then one for each spectrum that is no test star, with the reason."""
    from astropy.table import Column, Table

    test = comparison.test
    rows: list[dict[str, object]] = []
    for number, system in enumerate(comparison.systems):
        truth = comparison.truth(number)
        found = None if system.estimates is None else comparison.own(number, system.estimates)
        gap = gap_of(system)
        for k, star in enumerate(test.judged):
            row: dict[str, object] = {"system": system.name, "spectrum": test.names[star], "star": test.stars[star]}
            row |= {"counted": bool(test.counted[star]), "common": bool(scores.common[k])}
            for place, label in enumerate(comparison.labels):
                row[f"true_{label.name}"] = truth[k, place]
                row[label.name] = np.nan if found is None else found.values[k, place]
                row[f"e_{label.name}"] = np.nan if found is None else found.errors[k, place]
            row["gap"] = np.nan if found is None else gap[k]
            row["flag"] = 0 if found is None else int(found.flag[k])
            row["model"] = 0 if system.fold is None else int(system.fold[k]) + 1
            row["reason"] = system.reason if found is None else reason_of(found.reason[k], found.values[k], int(found.flag[k]))
            rows.append(row)
    nothing = {name: np.nan for label in comparison.labels for name in (f"true_{label.name}", label.name, f"e_{label.name}")}
    in_no_fold = np.setdiff1d(np.arange(len(test)), test.judged)
    rest = [*test.left_out, *((test.names[i], "not in a fold that is judged") for i in in_no_fold)]
    for name, reason in rest:
        empty = {"system": "", "spectrum": name, "star": "", "counted": False, "common": False}
        rows.append({**empty, **nothing, "gap": np.nan, "flag": 0, "model": 0, "reason": reason})
    abouts = _star_columns(comparison)
    table = Table()
    for name, (unit, about) in abouts.items():
        table[name] = Column([row[name] for row in rows], unit=unit or None, description=about)
    return table


def write_table(table: Table, folder: Path, name: str) -> None:
    """``name.ecsv``, with units, and ``name.csv`` for everything else."""
    with replacing(folder / f"{name}.ecsv", UsageError) as temporary:
        table.write(temporary, format="ascii.ecsv")
    with replacing(folder / f"{name}.csv", UsageError) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(table.colnames)
        writer.writerows(table.as_array().tolist())


def _star_columns(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Column -> its unit and what it is."""
    columns = {
        "system": ("", "recipe; empty for spectra that are no test stars"),
        "spectrum": ("", "file, or id where a file holds several"),
        "star": ("", "whose spectra are in one fold"),
        "counted": ("", "in the range that the recipes report"),
        "common": ("", "counted, and all systems have labels for it"),
    }
    for label in comparison.labels:
        names = ", ".join(dict.fromkeys(label.own))
        columns[f"true_{label.name}"] = (label.unit, f"true {names}")
        columns[label.name] = (label.unit, f"estimated {names}")
        columns[f"e_{label.name}"] = (label.unit, f"standard error of {names}")
    columns["gap"] = ("", "distance from the training spectra over what explains it; above 1 there is a gap")
    columns["flag"] = ("", "bits as in a catalogue")
    columns["model"] = ("", "number of the system's model that judged it; 0: none")
    columns["reason"] = ("", "why there are no labels, or it is no test star")
    return columns


def reason_of(reason: str, values: FloatArray, flag: int) -> str:
    """The estimate's own reason; where labels are missing without one, the flags."""
    if reason or np.isfinite(values).all():
        return reason
    return f"no labels; flags {', '.join(names_of(ResultFlag, flag)) or 'none'}"


def gap_of(system: SystemRun) -> FloatArray:
    """(n judged,) gap ratios; NaN where the model knows none."""
    found = system.estimates
    if found is None or "gap" not in found.meta.colnames:
        return np.full(0 if found is None else len(found), np.nan)
    return np.asarray(np.ma.filled(np.ma.asarray(found.meta["gap"], dtype=np.float64), np.nan))
