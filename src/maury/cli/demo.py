"""``maury demo -o FOLDER``: the whole road on made-up spectra, from files to catalogue and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from maury.demo import DemoResult


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for survey, model, catalogue and figures.")] = Path(
        "demo"
    ),
) -> None:
    """Make a small survey of known stars, train on half of it, infer the rest, and compare with the truth. No download."""
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.demo import run_demo

    with stage_bars() as report:
        result = run_demo(output, report)
    _print(output_console(), result)


def _print(console: Console, result: DemoResult) -> None:
    estimates = result.estimates
    good = estimates.flag == 0
    n_train, n = len(result.run.training_set), len(estimates)
    console.print(f"trained on {n_train} stars, inferred {n} spectra; {int(good.sum())} without any flag:\n", markup=False)
    console.print(_score_table(result))
    _print_flagged(console, result)
    console.print(f"\nall of it is in {result.folder}/", markup=False)
    for name, what in result.files.items():
        console.print(f"  {name:18s} {what}", markup=False)
    console.print(f"\n{result.seconds:.0f} s. Next: maury info {result.folder}/catalogue.fits, maury recipes", markup=False)


def _score_table(result: DemoResult) -> Table:
    """Recovered against true labels of the stars without flag."""
    import numpy as np
    from rich.table import Table

    from maury.assess.metrics import coverage, label_metrics, pulls_of

    good = result.estimates.flag == 0
    truth, values, errors = result.truth[good], result.estimates.values[good], result.estimates.errors[good]
    pulls = pulls_of(truth, values, errors)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recovered - true")
    heads = ("unit", "n", "bias", "scatter", "median error", "pull mean", "pull s.d.", "within 1 sigma", "within 2 sigma")
    for head in heads:
        table.add_column(head, justify="left" if head == "unit" else "right")
    for k, row in enumerate(label_metrics(truth, values, errors, labels=result.estimates.labels, n_bootstrap=0)):
        digits = 1 if row.unit == "K" else 3
        inside = [f"{100 * level.fraction:.1f} %" for level in coverage(pulls[:, k])]
        lengths = [f"{x:.{digits}f}" for x in (row.bias, row.scatter, float(np.median(errors[:, k])))]
        table.add_row(row.label, row.unit, str(row.n), *lengths, f"{row.pull_mean:.2f}", f"{row.pull_std:.2f}", *inside)
    return table


def _print_flagged(console: Console, result: DemoResult) -> None:
    """The two planted troubles, and how many others were flagged for what."""
    from collections import Counter

    from maury.demo import BROKEN_FILE, OUTLIER_FILE
    from maury.flags import ResultFlag, names_of

    estimates = result.estimates
    files = [str(name) for name in estimates.meta["file"]]
    others: Counter[str] = Counter()
    console.print()
    for row, file in enumerate(files):
        names = names_of(ResultFlag, int(estimates.flag[row]))
        if file in (BROKEN_FILE, OUTLIER_FILE):
            about = "a truncated file" if file == BROKEN_FILE else "a star outside the training range"
            reason = f": {estimates.reason[row]}" if estimates.reason[row] else ""
            console.print(f"{about} was planted, and got {', '.join(names) or 'no flag'}{reason}", markup=False)
        else:
            others.update(names)
    counts = ", ".join(f"{n} {name}" for name, n in others.most_common())
    console.print(f"flags of the other stars: {counts or 'none'}", markup=False)
