"""``maury train`` with a recipe that has an [experiment]: what is printed and drawn beside the model file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from maury.recipes import Recipe
    from maury.recipes.gebran2024 import CheckerTable, Experiment

_SHOWN = ((5800.0, 4.4, 0.0, 5.0), (4500.0, 2.3, -0.3, 5.0), (9500.0, 4.0, 0.0, 150.0))
"""Teff (K), log g, [M/H] and v sin i (km/s) near which the figure shows stars."""
_DIGITS = {"teff": 0, "resolving_power": 0, "vsini": 1}
"""Decimals of an RMSE in the table; 3 for other labels."""


def run_experiment(recipe: Recipe, data: Path, output: Path, plots: Path | None, *, device: str, checkpoints: Path) -> None:
    """Run it, write the model, print its tables and, if wanted, draw the figures."""
    import shutil

    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.recipes.gebran2024 import run_gebran2024
    from maury.store import save_model

    with stage_bars() as report:
        found = run_gebran2024(recipe, data, report, device=device, checkpoints=checkpoints)
    model_id = save_model(found.model, output)
    shutil.rmtree(checkpoints, ignore_errors=True)
    console = output_console()
    console.print(
        f"{found.n_spectra} draws of {found.n_base} base spectra; {found.n_test} draws, all of their base spectra, for the test",
        markup=False,
    )
    for remark in found.remarks:
        console.print(remark, markup=False)
    console.print(
        "\ntest spectra from themselves (autoencoder) and from their labels; mean, median and 99 % of the absolute error:"
    )
    console.print(_score_table(found))
    console.print("\ndepths of the calcium triplet, RMSE (mean depth):")
    console.print(_line_table(found))
    for table in found.tables:
        console.print(f"\nRMSE of labels by the {table.checker} checker (paper: Gebran 2024, Table 5):", markup=False)
        console.print(_checker_table(table))
    console.print(f"\nmodel {model_id} written to {output}", markup=False)
    if plots is not None:
        _plots(found, plots)


def _score_table(found: Experiment) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ("", "parameters", "MSE", "MAE", "expl. var.", "R²", "mean %", "median", "99 %")
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for score in found.scores:
        m = score.metrics
        numbers = [f"{m.mse:.2g}", f"{m.mae:.2g}", f"{m.explained_variance:.4f}", f"{m.r2:.4f}", f"{m.relative_error:.3f}"]
        numbers += [f"{score.flux_error.median:.2g}", f"{score.flux_error.percentile_99:.2g}"]
        table.add_row(score.name, f"{score.n_parameters:,}", *numbers)
    return table


def _line_table(found: Experiment) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for line in found.scores[0].metrics.lines:
        table.add_column(f"{line.line} ({line.depth:.2f})", justify="right")
    for score in found.scores:
        table.add_row(score.name, *(f"{line.rmse:.2g}" for line in score.metrics.lines))
    return table


def _checker_table(checked: CheckerTable) -> Table:
    from rich.table import Table

    from maury.recipes.gebran2024 import COLUMNS, PAPER_TABLE5

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column, n in zip(COLUMNS, checked.n, strict=True):
        table.add_column(f"{column} (n = {n})", justify="right")
    for column in COLUMNS[:4]:
        table.add_column(f"paper {column}", justify="right", style="dim")
    for label, unit, row in zip(checked.labels, checked.units, checked.rmse, strict=True):
        digits = _DIGITS.get(label, 3)
        theirs = [f"{x:g}" for x in PAPER_TABLE5[label]] if label in PAPER_TABLE5 else ["-"] * 4
        table.add_row(f"{label} {unit}".strip(), *(f"{x:.{digits}f}" for x in row), *theirs)
    return table


def _plots(found: Experiment, folder: Path) -> None:
    """A dwarf, a giant and a hot star of the test set, the nearest there are."""
    import numpy as np

    from maury.fit.inferrer import own_labels
    from maury.report.generated_figure import generated_figure
    from maury.report.style import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    labels = own_labels(found.model.inferrer)
    scaled = labels.scale(found.test_values)
    wanted = np.tile(np.median(found.test_values, axis=0), (len(_SHOWN), 1))
    for name, column in zip(("teff", "logg", "m_h", "vsini"), np.array(_SHOWN).T, strict=True):
        if name in labels.names:
            wanted[:, labels.index(name)] = column
    rows = [int(((scaled - place) ** 2).sum(axis=1).argmin()) for place in labels.scale(wanted)]
    values = found.test_values[rows]
    made = {"generator": found.generator.predict_flux(values), "small generator": found.small.predict_flux(values)}
    texts = [_in_words(labels.names, labels.units, row) for row in values]
    test = found.test
    figure = generated_figure(test.wavelength, test.flux[rows], made, texts, medium=test.medium)
    save_figure(figure, folder / "generated.png")


def _in_words(names: tuple[str, ...], units: tuple[str, ...], values: Iterable[float]) -> str:
    from maury.report.style import symbol, unit_text

    parts = zip(names, units, values, strict=True)
    return ", ".join(f"{symbol(name)} {x:.{_DIGITS.get(name, 2)}f} {unit_text(unit)}".strip() for name, unit, x in parts)
