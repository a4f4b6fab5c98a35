"""Figure and page of ``maury compare``, and the texts that the terminal shows too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maury.recipes.compare import Comparison
    from maury.recipes.compare_table import Scores
    from maury.report.comparison_figure import DrawnSystem
    from maury.report.comparison_page import PageTable

_READING = (
    "Every star is judged by a model that has not seen its labels; a transfer, which learns from spectra without labels too, may "
    "have seen its spectrum among those. A system whose training set holds test stars was trained once for each fold of them, "
    "without that fold; one whose training set holds none was trained once.",
    "All numbers are about the stars that every system has labels for; where n says “58 of 59”, the system itself has 59. Bias "
    "is the median of estimate − truth, scatter 1.4826 times its median absolute deviation; ± are bootstraps over stars. Above "
    "best is what the scatter has more than the smallest in the column, with the error of this difference on the same stars: "
    "within about twice that, the test does not tell the two systems apart.",
    "In 1 sigma is the share of stars whose truth lies within one standard error (68 % if errors are right and Gaussian), pulls "
    "the robust standard deviation of (estimate − truth)/error (1). The error of the truth itself is in both.",
    "Repeats is the robust standard deviation of the differences of two visits of a star over √2, by each system's first model, "
    "repeat pulls that of the differences over their errors, over the pairs that have labels by all systems and no doubtful ones "
    "by this. Errors that contain what all visits of a star share give pulls below 1. Doubtful is the share of test stars with a "
    "flag that speaks against all labels, as a fit at a bound has; they are in the tables above.",
    "Gap is the distance of a star from the training spectra over what noise and model error explain: above 1 there is a gap. "
    "AUC says how well a classifier tells the test stars from their nearest training spectra (0.5: not at all); both need 100 "
    "training spectra, AUC 20 test stars of one model.",
)


def in_one_sentence(comparison: Comparison, scores: Scores) -> str:
    """What was compared, on what."""
    test = comparison.test
    judged = test.judged
    models = len(comparison.systems)
    folds = f"{len(test.folds)} fold{'s' if len(test.folds) > 1 else ''}"
    within = f", {int(test.counted[judged].sum())} of them in the range that counts" if not test.counted[judged].all() else ""
    visits = f"; {len(comparison.repeats.groups)} repeat visits" if comparison.repeats is not None else ""
    return (
        f"{models} system{'s' if models > 1 else ''} on {len(judged)} test spectra in {folds}{within}: "
        f"{int(scores.common.sum())} have labels by all systems{visits}; {len(test.left_out)} spectra are no test stars."
    )


def text_tables(comparison: Comparison, scores: Scores) -> list[PageTable]:
    """A table for each label, then one of cost and gap."""
    from maury.recipes.compare_table import figures_of
    from maury.report.comparison_page import PageTable
    from maury.report.comparison_text import COST_HEADS, cost_cells, label_rows

    both = list(zip(comparison.systems, scores.systems, strict=True))
    tables = []
    for place, label in enumerate(comparison.labels):
        found = [some[place] if some else None for some in scores.systems]
        names = [system.name for system in comparison.systems]
        heads, rows = label_rows(names, label.own, found, repeats=comparison.repeats is not None)
        name = " or ".join(dict.fromkeys(label.own))
        tables.append(PageTable(f"{name} ({label.unit})" if label.unit else name, heads, rows))
    counted = comparison.test.counted[comparison.test.judged]
    cost = [cost_cells(system.name, figures_of(system, counted) if some else None) for system, some in both]
    return [*tables, PageTable("cost and gap", COST_HEADS, cost)]


def write_page(comparison: Comparison, scores: Scores, output: Path) -> None:
    """``comparison.png``, if any system has labels, and ``index.html``."""
    from maury.errors import UsageError
    from maury.files import replacing
    from maury.report.comparison_figure import comparison_figure
    from maury.report.comparison_page import ComparisonPage, comparison_page
    from maury.report.style import save_figure

    drawn = _drawn(comparison, scores)
    picture = None
    if drawn and scores.common.any():
        save_figure(comparison_figure(drawn), output / "comparison.png")
        picture = (output / "comparison.png").read_bytes()
    else:
        (output / "comparison.png").unlink(missing_ok=True)  # that of an earlier run
    page = ComparisonPage(
        " / ".join(system.name for system in comparison.systems),
        in_one_sentence(comparison, scores),
        {system.name: system.reason for system in comparison.systems if system.reason},
        text_tables(comparison, scores),
        _READING,
        _missing(comparison),
        comparison.test.left_out,
        _about_systems(comparison),
        _settings(comparison),
    )
    alt = "estimate minus truth over the true label for each system, and bias and scatter side by side"
    with replacing(output / "index.html", UsageError) as temporary:
        temporary.write_text(comparison_page(page, picture, alt), encoding="utf-8")


def _drawn(comparison: Comparison, scores: Scores) -> list[DrawnSystem]:
    import numpy as np

    from maury.report.comparison_figure import DrawnSystem

    judged = comparison.test.judged
    counted = np.flatnonzero(comparison.test.counted[judged])
    out = []
    for number, (system, some) in enumerate(zip(comparison.systems, scores.systems, strict=True)):
        if system.estimates is None:
            continue
        found = comparison.own(number, system.estimates)[counted]
        truth = comparison.truth(number)[counted]
        names = tuple(label.own[number] for label in comparison.labels)
        out.append(DrawnSystem(system.name, names, truth, found.values, found.errors, scores.common[counted], some))
    return out


def _missing(comparison: Comparison) -> dict[str, list[tuple[str, str]]]:
    """Test stars for which a system has no labels, with the reason."""
    import numpy as np

    from maury.recipes.compare_table import reason_of

    out: dict[str, list[tuple[str, str]]] = {}
    for number, system in enumerate(comparison.systems):
        if system.estimates is None:
            continue
        found = comparison.own(number, system.estimates)
        rows = np.flatnonzero(~np.isfinite(found.values).all(axis=1))
        names = [comparison.test.names[i] for i in comparison.test.judged[rows]]
        reasons = [reason_of(found.reason[i], found.values[i], int(found.flag[i])) for i in rows]
        out[system.name] = list(zip(names, reasons, strict=True))
    return out


def _about_systems(comparison: Comparison) -> PageTable:
    from maury.report.comparison_page import PageTable

    rows = [
        (
            system.name,
            system.recipe.train.method,
            system.recipe.description,
            system.recipe.source,
            system.fingerprint[:12] or "-",
            ", ".join(system.model_ids) or "-",
        )
        for system in comparison.systems
    ]
    return PageTable("", ("recipe", "method", "description", "source", "fingerprint of recipe and data", "models"), rows)


def _settings(comparison: Comparison) -> dict[str, str]:
    from maury.catalogue.provenance import run_provenance
    from maury.recipes.compare_data import shared_test

    test = shared_test([system.recipe for system in comparison.systems])
    about = run_provenance()
    given = test.model_dump(mode="json", exclude_unset=True)
    # the date is that of the file: the same command gives the same page
    return {
        "Test set": json.dumps({**given, "folds": test.folds, "seed": test.seed}, indent=2, ensure_ascii=False),
        "Command": str(about["command"]),
        "Versions": "\n".join(f"{name} {version}" for name, version in about["versions"].items()),
    }
