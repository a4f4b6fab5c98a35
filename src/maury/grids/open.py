"""A grid from whatever it is stored as."""

from __future__ import annotations

from pathlib import Path

from maury.errors import ReadError
from maury.grids.description import GridDescription, open_described
from maury.grids.grid import Grid
from maury.grids.phoenix import open_phoenix
from maury.grids.store import is_stored_grid, read_grid


def open_grid(path: str | Path) -> Grid:
    """Open a grid: what ``maury grid download`` writes, a folder of PHOENIX files, or a description in TOML.

    Raises
    ------
    MauryError
        If it is none of these, or damaged; in one sentence.
    """
    place = Path(path)
    if place.suffix == ".toml":
        return open_described(GridDescription.from_toml(place))
    if not place.exists():
        raise ReadError(f"{place}: expected a grid (.zarr, .npz, .toml, a folder of PHOENIX files), found nothing; check it")
    if is_stored_grid(place):
        return read_grid(place)
    if place.is_dir() and place.suffix != ".zarr":
        return open_phoenix(place)
    raise ReadError(
        f"{place}: expected a grid (.zarr, .npz, .toml, a folder of PHOENIX files), got another kind of file or a damaged one; "
        "make it again, or describe it in a .toml"
    )
