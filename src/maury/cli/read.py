"""``maury read FILE...``: say what is in spectrum files.

Nothing heavy is imported before the command runs: ``maury --help`` must answer at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from maury.spectra import Frame, Medium

_BAR_AFTER_SECONDS = 2.0
_PIPE_WIDTH = 180  # columns where the output is no terminal; rich would take 80 and fold every cell


def read(
    files: Annotated[list[Path], typer.Argument(help="Spectrum files: FITS (.gz too), CSV, ECSV, VOTable.", show_default=False)],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a list of objects for machines.")] = False,
    format: Annotated[str | None, typer.Option("--format", "-f", help="Force a format instead of recognising it.")] = None,
    medium: Annotated[str | None, typer.Option("--medium", help="air or vacuum, for files that do not say.")] = None,
    snr: Annotated[float | None, typer.Option("--snr", help="S/N per pixel to assume for files without errors.")] = None,
    frame: Annotated[str | None, typer.Option("--frame", help="rest or observed, for files that do not say.")] = None,
) -> None:
    """Say what spectrum files hold: instrument, pixels, wavelengths, air or vacuum, frame, S/N, velocity, labels.

    A file that cannot be read is listed with its reason; the exit code is 2 only if no file could be read.
    """
    from rich.console import Console

    progress = _bar(_summaries(files, format, medium, snr, frame), len(files))
    rows = list(progress)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(rows, indent=1, allow_nan=False))
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_PIPE_WIDTH)
        _print_table(console, rows)
    if all("error" in row for row in rows):
        raise typer.Exit(2)


def _summaries(
    files: list[Path], format: str | None, medium: str | None, snr: float | None, frame: str | None
) -> Iterator[dict[str, Any]]:
    """One description per file, or its error; one file at a time, so that memory does not grow with their number."""
    from maury.read import describe, read_files

    for file in files:
        result = read_files([file], format, medium=cast("Medium | None", medium), snr=snr, frame=cast("Frame | None", frame))
        if result.failures:
            yield {"file": str(file), "error": result.failures[0].reason}
        else:
            yield {**describe(result.spectra), "file": str(file)}


def _bar(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """The same rows, with a progress bar on stderr once they take longer than two seconds."""
    from rich.console import Console
    from rich.progress import Progress

    start = time.monotonic()
    bar: Progress | None = None
    task = None
    try:
        for done, row in enumerate(rows, start=1):
            if bar is None and time.monotonic() - start > _BAR_AFTER_SECONDS and done < total:
                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task("reading", total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)
            yield row
    finally:
        if bar is not None:
            bar.stop()


def _print_table(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    for name in ("instrument", "spectra", "pixels", "wavelength / Å", "medium", "frame", "S/N", "rv / km/s"):
        table.add_column(name, justify="right" if name in ("spectra", "pixels", "S/N", "rv / km/s") else "left")
    table.add_column("labels", overflow="fold")
    for row in rows:
        _add_row(table, row)
    console.print(table)
    failed = [row for row in rows if "error" in row]
    if failed:
        console.print(f"\n{len(failed)} of {len(rows)} not read:", style="bold", highlight=False)
    for row in failed:  # below the table: a sentence does not fit into a cell
        console.print(f"  {row['file']}: {row['error']}", markup=False, highlight=False, soft_wrap=True)


def _add_row(table: Table, row: dict[str, Any]) -> None:
    from rich.markup import escape

    name = escape(Path(row["file"]).name or row["file"])
    if "error" in row:
        table.add_row(name, "not read", *["-"] * 8, style="red")
        return
    n_spectra = str(row["n_spectra"]) if row["n_grids"] == 1 else f"{row['n_spectra']} on {row['n_grids']} grids"
    labels = ", ".join(f"{label} {value:g}" for label, value in row["labels"].items())
    table.add_row(
        name,
        escape(row["instrument"]),
        n_spectra,
        str(row["n_pixels"]),
        f"{row['wavelength_min']:.2f} - {row['wavelength_max']:.2f}",
        row["medium"],
        row["frame"] if row["velocity_frame"] != "topocentric" else "observed (topocentric)",
        _number(row["snr"], ".1f"),
        _number(row["rv"], ".2f"),
        labels or "-",
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
