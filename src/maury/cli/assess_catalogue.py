"""``maury assess --catalogue A --with B``: how labels of two catalogues differ, star by star."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from maury.assess.crossmatch import CrossMatch
    from maury.assess.metrics import LabelMetrics
    from maury.cli.catalogues import Catalogue, Compared
    from maury.labels import LabelSet

    FloatArray = NDArray[np.float64]
    Two = tuple[Catalogue, Catalogue]

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Wanted:
    """What the options say: both files, the columns (:mod:`maury.cli.catalogues`), stars left out, where ranges meet."""

    catalogue: Path
    reference: Path
    on: str | None = None
    label_columns: tuple[str, ...] = ()
    error_columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    plots: Path | None = None


def wanted(
    catalogue: Path | None,
    reference: Path | None,
    on: str | None,
    label_columns: Sequence[str] | None,
    error_columns: Sequence[str] | None,
    edges: Sequence[float] | None,
    without: Sequence[str] | None,
    plots: Path | None,
) -> Wanted | None:
    """The options of a comparison, or None if none is wanted; their sense is checked.

    Raises
    ------
    UsageError
        If one of the two catalogues is missing, or an option of theirs was given without them.
    """
    import math

    from maury.errors import UsageError

    if catalogue is None:
        own = {"--with": reference, "--on": on, "--error-column": error_columns, "--edge": edges, "--without": without}
        given = [name for name, value in own.items() if value]
        if given:
            raise UsageError(f"expected --catalogue together with {given[0]}, got none; name the first table")
        return None
    if reference is None:
        raise UsageError("expected --with TABLE together with --catalogue, got none; name the table to compare with")
    if not all(math.isfinite(x) for x in edges or ()):
        raise UsageError(f"expected finite values of --edge, got {', '.join(f'{x:g}' for x in edges or ())}; correct them")
    lists = (tuple(label_columns or ()), tuple(error_columns or ()), tuple(without or ()), tuple(edges or ()))
    return Wanted(catalogue, reference, on, *lists, plots)


def assess_catalogue(console: Console, asked: Wanted) -> list[LabelMetrics]:
    """Print the match, what has no part in it, and the metrics of first minus second catalogue, which it returns; draw them.

    Raises
    ------
    CatalogueError, RecipeError, UsageError
        If a table cannot be read or lacks a column, a column is not numeric or has no unit, or nothing matches.
    """
    import numpy as np

    from maury.assess.metrics import format_table, label_metrics
    from maury.cli.catalogues import compared_labels, read_two, star_columns, values_of

    two = read_two(asked.catalogue, asked.reference)
    on = star_columns(two, asked.on)
    compared = compared_labels(two, asked.label_columns, asked.error_columns)
    first, second = (values_of(one, compared, place) for place, one in enumerate(two))  # faults are said before the match
    match = _match(console, two, on, asked.without)
    ours, theirs = first.values[match.first], second.values[match.second]
    errors = np.hypot(first.errors[match.first], second.errors[match.second])
    _print_columns(console, two, compared, (ours, theirs))
    labels = _label_set(compared)
    by, ranges = (labels.names[0], ours[:, 0]), _ranges(ours[:, 0], asked.edges)
    scores = label_metrics(theirs, ours, errors, labels=labels, by=by, ranges=ranges)
    console.print(
        f"\n{two[0].name} - {two[1].name} (bias = median, scatter = 1.4826 MAD; failed: without number in {two[0].name} alone), "
        f"by {labels.names[0]} of {two[0].name}:",
        markup=False,
        soft_wrap=True,
    )
    console.print(format_table(scores), markup=False, soft_wrap=True)
    if asked.plots is not None:
        from maury.report.crossmatch_figure import crossmatch_figure
        from maury.report.style import save_figure

        asked.plots.mkdir(parents=True, exist_ok=True)
        names = (two[0].name, two[1].name)
        save_figure(crossmatch_figure(labels, ours, theirs, errors, names), asked.plots / "comparison.png")
    return scores


def _match(console: Console, two: Two, on: tuple[str, str], without: Sequence[str]) -> CrossMatch:
    """Stars that both catalogues name once, and are not to be left out; says what becomes of all others.

    Raises
    ------
    UsageError
        If a star to leave out stands in neither catalogue.
    CatalogueError
        If no star is in both.
    """
    from maury.assess.crossmatch import CrossMatch
    from maury.cli.catalogues import star_names
    from maury.errors import CatalogueError, UsageError

    lists = [star_names(one, column) for one, column in zip(two, on, strict=True)]
    unknown = [name for name in without if not any(name in names for names in lists)]
    if unknown:
        raise UsageError(f"expected --without to name a star of either catalogue, got {unknown[0]!r}; correct the name")
    kept = [[name if name not in without else "" for name in names] for names in lists]
    left_out = [sum(name in without for name in names) for names in lists]
    match = CrossMatch.of(*kept)
    console.print(
        f"{two[0].name}: {len(lists[0])} rows, stars in {on[0]}; {two[1].name}: {len(lists[1])} rows, stars in {on[1]}; "
        f"{len(match)} stars in both",
        markup=False,
        soft_wrap=True,
    )
    for one, alone, doubled, nameless, out in zip(two, match.alone, match.doubled, match.nameless, left_out, strict=True):
        parts = [
            _some("in it alone", alone),
            _some("named more than once here, nor their partners", doubled),
            _rows(nameless - out, "without a name"),
            _rows(out, "left out by --without"),
        ]
        told = "; ".join(part for part in parts if part)
        if told:
            console.print(f"not compared, {one.name}: {told}", markup=False, soft_wrap=True)
    if not len(match):
        first, second = (next((name for name in names if name), "no name") for names in lists)
        raise CatalogueError(
            f"expected stars that both catalogues name, once each, got none (the first: {first!r} and {second!r}); "
            "correct --on, or combine visits into stars (maury combine)"
        )
    return match


def _rows(count: int, what: str) -> str:
    return f"{count} row{'' if count == 1 else 's'} {what}" if count else ""


def _some(what: str, names: Sequence[str]) -> str:
    """``8 in it alone (a, b, c, d, e, ...)``."""
    if not names:
        return ""
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_NAMES_SHOWN])}{more})"


def _print_columns(console: Console, two: Two, compared: Sequence[Compared], values: Sequence[FloatArray]) -> None:
    """Which columns are compared, in which unit, where their errors stand, and how many stars have no number there.

    Raises
    ------
    CatalogueError
        If no star has numbers in both catalogues, of any label.
    """
    import numpy as np

    from maury.cli.assess import print_table
    from maury.errors import CatalogueError

    known = [np.isfinite(found) for found in values]
    if not (known[0] & known[1]).any():
        raise CatalogueError(f"expected numbers in {two[0].name} and {two[1].name} for one star, got none; name other columns")
    rows = []
    for k, item in enumerate(compared):
        missing = [str(int((~found[:, k]).sum())) for found in known]
        errors = ["/".join(names) or "-" for names in item.errors]
        rows.append(
            [item.label.name, item.label.unit, *(x for trio in zip(item.columns, errors, missing, strict=True) for x in trio)]
        )
    console.print()
    heads = [head for one in two for head in (f"column in {one.name}", "its error", "no number")]
    print_table(console, ["label", "unit", *heads], rows)


def _label_set(compared: Sequence[Compared]) -> LabelSet:
    """Names and units; the scaling is nobody's."""
    from maury.labels import LabelSet

    n = len(compared)
    return LabelSet(tuple(item.label for item in compared), (0.0,) * n, (1.0,) * n, (0.0,) * n, (1.0,) * n)


def _ranges(along: FloatArray, edges: Sequence[float]) -> list[tuple[float, float]]:
    """Ranges that meet at the edges, by default at the median, and reach to all stars on either side."""
    from itertools import pairwise

    import numpy as np

    known = along[np.isfinite(along)]
    inner = sorted(set(edges)) if edges else [float(np.median(known))] if known.size else []
    return list(pairwise([-np.inf, *inner, np.inf]))
