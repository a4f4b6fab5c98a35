"""Progress bars on standard error, one per stage of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

STAGES = {
    "read": "reading spectra",
    "prepare": "preparing",
    "validate": "cross-validating",
    "train": "training",
    "fit": "fitting",
    "simulate": "making spectra",
    "calibrate": "calibrating errors",
    "degrade": "degrading",
    "build": "building spectra",
    "assemble": "writing chunks",
    "generator": "training networks",
    "small generator": "smaller generator",
    "checker": "training checker",
    "own checker": "our checker",
    "sweep": "training networks",
    "compare": "comparing systems",
    "repeats": "reading repeats",
}


class Report(Protocol):
    """Draws how far a stage is, and a few words beside it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def stage_bars() -> Iterator[Report]:
    """A callback (stage, done, all) that draws one bar for each stage as it comes; quiet where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:18s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(STAGES.get(stage, stage), total=total, note=note)
            progress.update(tasks[stage], completed=done, total=total, note=note)

        yield report
