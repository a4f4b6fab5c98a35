"""``maury grid download phoenix --teff 2300 4500 ... -o grid.zarr``: model spectra from their archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from maury.grids.archive import Patience
    from maury.grids.download import DownloadResult, Progress
    from maury.grids.download_plan import DownloadPlan

_LIBRARIES = ("phoenix",)
_SHOWN_HOLES = 12  # lines; `maury grid info` lists all
_PHOENIX_BYTES = 6_000_000  # of one spectrum, roughly, where the archive does not state sizes


def download(
    library: Annotated[str, typer.Argument(help="Library of model spectra: phoenix (PHOENIX-ACES HiRes).", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid to write, e.g. grid.zarr.", show_default=False)],
    teff: Annotated[tuple[float, float], typer.Option("--teff", help="Teff, K: lowest and highest.", show_default=False)],
    logg: Annotated[tuple[float, float], typer.Option("--logg", help="log g, dex: lowest and highest.", show_default=False)],
    m_h: Annotated[tuple[float, float], typer.Option("--mh", help="[M/H], dex: lowest and highest.", show_default=False)],
    wavelength: Annotated[
        tuple[float, float],
        typer.Option("--wavelength", help="What to keep of each spectrum: first and last Å, vacuum.", show_default=False),
    ],
    alpha_m: Annotated[tuple[float, float], typer.Option("--alpha", help="[alpha/M], dex: lowest and highest.")] = (0.0, 0.0),
    archive: Annotated[
        str | None,
        typer.Option(
            "--archive",
            envvar="MAURY_PHOENIX_ARCHIVE",
            help="Address of the folder that holds HiResFITS; the public one in Göttingen if not given.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Files to fetch at once.")] = 4,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Folder for the originals (6 MB each), which are deleted otherwise.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is another grid.")] = False,
) -> None:
    """Download model spectra: only the nodes in the ranges, cropped to the wavelengths.

    Started again after a kill or a cut line, the same command goes on where it was. Nodes that the archive lacks become holes of
    the grid, which are named.
    """
    from maury.cli.console import output_console
    from maury.errors import UsageError
    from maury.grids.archive import Patience
    from maury.grids.download import check_output, download_phoenix
    from maury.grids.download_plan import GOETTINGEN, plan_phoenix

    if library not in _LIBRARIES:
        raise UsageError(f"expected one of the libraries {', '.join(_LIBRARIES)}, got {library!r}; name one of them")
    plan = plan_phoenix(teff=teff, logg=logg, m_h=m_h, alpha_m=alpha_m, wavelength=wavelength, archive=archive or GOETTINGEN)
    console = output_console()
    earlier = check_output(plan, output, overwrite=overwrite)
    if earlier is not None:
        console.print(f"{output} is this grid already: nothing to fetch", markup=False)
        _print_result(console, earlier, output)
        return
    patience = Patience()
    _print_plan(console, plan, patience, dry_run)
    if dry_run:
        return
    with _bar() as progress:
        result = download_phoenix(plan, output, jobs=jobs, keep=keep, overwrite=overwrite, patience=patience, progress=progress)
    _print_result(console, result, output)


def _print_plan(console: Console, plan: DownloadPlan, patience: Patience, dry_run: bool) -> None:
    """What will be fetched; a dry run needs no archive that answers."""
    from maury.files import size_text
    from maury.grids.archive import FetchError

    note = ""
    try:
        size = plan.expected_bytes(patience)
    except FetchError as failure:
        if not dry_run:
            raise
        size, note = None, f"; {failure}"
    size = size or (len(plan.nodes) + 2) * _PHOENIX_BYTES
    start, stop = plan.wavelength
    console.print(
        f"PHOENIX: {len(plan.nodes)} spectra and their wavelengths, {len(plan.nodes) + 1} files, about {size_text(size)}, from "
        f"{plan.archive}{note}",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"to keep: {start:g} to {stop:g} Å (vacuum) of each", markup=False)


def _print_result(console: Console, result: DownloadResult, output: Path) -> None:
    from maury.files import size_text

    earlier = f" ({result.n_kept} of them from an earlier run)" if result.n_kept else ""
    console.print(f"{result.n_spectra} spectra{earlier} in {output}; {size_text(result.n_bytes)} fetched", markup=False)
    if not result.holes:
        return
    console.print(f"{len(result.holes)} {'hole' if len(result.holes) == 1 else 'holes'}:")
    for hole in result.holes[:_SHOWN_HOLES]:
        console.print(f"  {hole.file}: {hole.reason}", markup=False, soft_wrap=True)
    if len(result.holes) > _SHOWN_HOLES:
        console.print(f"  and {len(result.holes) - _SHOWN_HOLES} more; `maury grid info {output}` lists them", markup=False)
    again = sum(hole.again for hole in result.holes)
    if again:
        console.print(f"{again} of them may be had another time: run the same command again", markup=False)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A bar of spectra with the bytes so far and their rate; quiet where stderr is no terminal."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from maury.files import size_text

    console, start = Console(stderr=True), time.monotonic()
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bytes]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None, bytes="")

        def report(done: int, total: int, n_bytes: int) -> None:
            rate = n_bytes / max(time.monotonic() - start, 1e-3)
            bars.update(task, completed=done, total=total, bytes=f"{size_text(n_bytes)}, {size_text(rate)}/s")

        yield report
