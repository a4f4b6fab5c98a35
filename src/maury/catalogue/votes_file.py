"""The votes of an ensemble's networks, one vector column per label beside the spectra's names, and the file they go to.

The file is written as catalogues are (:func:`~maury.catalogue.write_catalogue`), in all their formats but CSV, which holds no
vectors; astropy reads it. Its meta has ``networks``: label -> names of the networks, in the order of the votes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.catalogue.columns import vote_meaning
from maury.catalogue.formats import format_of
from maury.errors import CatalogueError, UsageError
from maury.labels import LabelSet

if TYPE_CHECKING:
    from astropy.table import Table

VOTES_FORMAT = "maury-votes"
VOTES_VERSION = 1


def check_votes_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that votes cannot be written to.

    Raises
    ------
    CatalogueError
        If the extension is that of no catalogue, or of CSV.
    """
    if format_of(path) == "csv":
        raise CatalogueError(
            f"expected a name for votes ending in .fits, .vot, .parquet or .ecsv, got {path}; CSV has no vectors"
        )


def build_votes(
    catalogue: Table,
    labels: LabelSet,
    votes: Sequence[NDArray[Any]],
    networks: Sequence[Sequence[str]],
    rows: NDArray[np.intp],
) -> Table:
    """The votes on every spectrum of a catalogue, row by row.

    Parameters
    ----------
    catalogue : of :func:`~maury.catalogue.build_catalogue`, n rows; gives the names, the model's id and the provenance.
    labels : the K labels that are voted on.
    votes : per label (m, M) of the spectra that reached the networks, label units; NaN where a network gave none.
    networks : per label the M names of the networks.
    rows : (m,) which rows of the catalogue they belong to. The others keep their row, with NaN.

    Returns
    -------
    astropy Table with columns file, id and ``vote_teff`` (n, M), ...; float32, as the networks compute.

    Raises
    ------
    UsageError
        If shapes disagree.
    """
    from astropy.table import Column, Table

    expected = [(len(rows), len(names)) for names in networks]
    if [array.shape for array in votes] != expected or len(votes) != len(labels):
        raise UsageError(
            f"expected votes of shapes {expected} on {len(labels)} labels, got {[array.shape for array in votes]}; "
            "give those of every network on every spectrum"
        )
    table = Table([catalogue["file"], catalogue["id"]])
    for label, array in zip(labels.labels, votes, strict=True):
        whole = np.full((len(catalogue), array.shape[1]), np.nan, dtype=np.float32)
        whole[rows] = array
        about = vote_meaning(label)
        meta = {"ucd": about.ucd} if about.ucd else {}
        table[about.name] = Column(whole, unit=about.unit or None, description=about.description, meta=meta)
    table.meta = {
        "format": VOTES_FORMAT,
        "format_version": VOTES_VERSION,
        "model_id": catalogue.meta["model_id"],
        "provenance": catalogue.meta["provenance"],
        "networks": {name: [str(network) for network in own] for name, own in zip(labels.names, networks, strict=True)},
    }
    return table
