"""``maury combine CATALOGUE --by COLUMN -o STARS``: visits into one row per star."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from maury.estimates import LabelEstimates


def combine(
    catalogue: Annotated[Path, typer.Argument(help="Catalogue of visits, of `maury infer`.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Catalogue of stars: .fits .vot .parquet .ecsv .csv")] = Path(
        "stars.fits"
    ),
    by: Annotated[str | None, typer.Option("--by", help="Column of the catalogue that names the star.")] = None,
    groups: Annotated[Path | None, typer.Option("--groups", help="Table that says which files are visits of one star.")] = None,
    group_column: Annotated[str, typer.Option("--group-column", help="Its column with the star.")] = "group",
    file_column: Annotated[str, typer.Option("--file-column", help="Its column with the file.")] = "file",
    method: Annotated[
        str, typer.Option("--method", help="imig2022: median, error from spread or median error; or inverse_variance.")
    ] = "imig2022",
) -> None:
    """Combine the visits of each star into one row; a star whose visits all failed keeps its row with the reason."""
    from maury.assess.visits import combine_visits
    from maury.catalogue import build_catalogue, read_catalogue, run_provenance, write_catalogue
    from maury.catalogue.estimates import estimates_from_catalogue
    from maury.catalogue.formats import format_of
    from maury.cli.console import output_console
    from maury.errors import UsageError

    if (by is None) == (groups is None):
        raise UsageError("expected --by or --groups, got both or none; say once which visits are of one star")
    format_of(output)
    table = read_catalogue(catalogue)
    visits = estimates_from_catalogue(table)
    names = _names(table, by) if by is not None else _from_table(visits, cast("Path", groups), file_column, group_column)
    stars = combine_visits(visits, names, cast("Any", method))
    model_id = str(table.meta.get("model_id", ""))
    provenance = run_provenance(catalogue=catalogue.name, method=method, visits=table.meta.get("provenance", {}))
    write_catalogue(build_catalogue(stars, model_id=model_id, provenance=provenance), output)
    repeated = sum(n > 1 for n in stars.meta["n_visits"])
    text = f"{len(visits)} visits of {len(stars)} stars, {repeated} of them with more than one usable visit"
    output_console().print(f"{text}\ncatalogue written to {output}", markup=False)


def _names(table: Any, column: str) -> list[str]:
    """Entries of a column as text, "" where they are missing."""
    from maury.errors import CatalogueError

    if column not in table.colnames:
        raise CatalogueError(f"expected column {column!r} in the catalogue, got {', '.join(table.colnames)}; name another")
    return ["" if str(entry) in ("nan", "--") else str(entry).strip() for entry in table[column]]


def _from_table(visits: LabelEstimates, path: Path, file_column: str, group_column: str) -> list[str]:
    from maury.cli.tables import names_in_tables, read_stars, stars_of

    return stars_of(read_stars(path, file_column, group_column), names_in_tables(visits), path)
