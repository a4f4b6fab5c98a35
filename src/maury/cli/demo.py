"""``maury demo -o FOLDER``: the whole road on made-up Gaia RVS spectra, from files to catalogue and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from maury.demo import DemoResult

_BRIGHT = 70.0  # S/N per pixel, about the median of the survey


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for spectra, catalogue and figures.")] = Path("demo"),
) -> None:
    """Make a small survey of known stars, infer them with the model that ships, and compare with the truth. No download."""
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.demo import run_demo

    with stage_bars() as report:
        result = run_demo(output, report)
    _print(output_console(), result)


def _print(console: Console, result: DemoResult) -> None:
    from maury.demo import MODEL

    estimates = result.estimates
    clean = int((estimates.flag == 0).sum())
    console.print(f"{len(estimates)} files inferred with the shipped model {MODEL}; {clean} without any flag:\n", markup=False)
    console.print(_score_table(result))
    console.print(
        f"\nThe stars were made by {MODEL} itself, with noise as Gaia's and errors as it believes its own to be: this shows the\n"
        "road, and whether labels' errors follow from those, not whether the model is right about real stars (for that:\n"
        f"maury models {MODEL}). Standard deviation of all pulls {_pulls_by_snr(result)}.",
        markup=False,
    )
    _print_flagged(console, result)
    console.print(f"\nall of it is in {result.folder}/", markup=False)
    for name, what in result.files.items():
        console.print(f"  {name:18s} {what}", markup=False)
    ending = f"Next: maury info {result.folder}/catalogue.fits; maury infer {MODEL} on your own RVS spectra"
    console.print(f"\n{result.seconds:.0f} s. {ending}", markup=False)


def _score_table(result: DemoResult) -> Table:
    """Recovered against true labels that have no flag."""
    import numpy as np
    from rich.table import Table

    from maury.assess.metrics import coverage, label_metrics, pulls_of

    errors = result.estimates.errors
    truth = np.where(result.good, result.truth, np.nan)
    values = np.where(result.good, result.estimates.values, np.nan)
    pulls = pulls_of(truth, values, errors)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recovered - true")
    heads = ("unit", "n", "bias", "scatter", "median error", "pull mean", "pull s.d.", "within 1 sigma", "within 2 sigma")
    for head in heads:
        table.add_column(head, justify="left" if head == "unit" else "right")
    for k, row in enumerate(label_metrics(truth, values, errors, labels=result.estimates.labels, n_bootstrap=0)):
        digits = 1 if row.unit == "K" else 3
        inside = [f"{100 * level.fraction:.1f} %" for level in coverage(pulls[:, k])]
        lengths = [f"{x:.{digits}f}" for x in (row.bias, row.scatter, float(np.median(errors[result.good[:, k], k])))]
        table.add_row(row.label, row.unit, str(row.n), *lengths, f"{row.pull_mean:.2f}", f"{row.pull_std:.2f}", *inside)
    return table


def _pulls_by_snr(result: DemoResult) -> str:
    """Standard deviation of the pulls of all labels together, for faint and bright stars."""
    import numpy as np

    from maury.assess.metrics import pulls_of

    pulls = pulls_of(np.where(result.good, result.truth, np.nan), result.estimates.values, result.estimates.errors)
    bright = np.asarray(result.estimates.meta["snr"], dtype=float) > _BRIGHT
    faint, rest = (float(np.nanstd(pulls[rows])) for rows in (~bright, bright))
    return f"{faint:.2f} below S/N {_BRIGHT:g}, {rest:.2f} above"


def _print_flagged(console: Console, result: DemoResult) -> None:
    """The two planted troubles, and how many others were flagged for what."""
    from collections import Counter

    from maury.demo import BINARY_FILE, BROKEN_FILE
    from maury.flags import ResultFlag, names_of

    estimates = result.estimates
    planted = {BROKEN_FILE: "a truncated file", BINARY_FILE: "a double-lined binary, which no single star's spectrum describes,"}
    others: Counter[str] = Counter()
    console.print()
    for row, file in enumerate(str(name) for name in estimates.meta["file"]):
        names = names_of(ResultFlag, int(estimates.flag[row]))
        if file in planted:
            reason = f": {estimates.reason[row]}" if estimates.reason[row] else ""
            console.print(f"{planted[file]} was planted, and got {', '.join(names) or 'no flag'}{reason}", markup=False)
        else:
            others.update(names)
    counts = ", ".join(f"{n} {name}" for name, n in others.most_common())
    console.print(f"flags of the other stars: {counts or 'none'}", markup=False)
