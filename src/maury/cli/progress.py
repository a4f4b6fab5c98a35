"""Progress bars on standard error, one per stage of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
}


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
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
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(STAGES.get(stage, stage), total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield report
