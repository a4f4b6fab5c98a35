"""Which rows of two catalogues are the same star, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.assess.visits import rows_of_names

IntArray = NDArray[np.int64]
Pair = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class CrossMatch:
    """Rows of two lists of names that belong together, and what is left over.

    A name that a list holds more than once is not matched at all: which of its rows is meant cannot be told.

    Parameters
    ----------
    first, second : (n,) rows of the same star in the first and in the second list, in the order of the first.
    alone : names that only the first, and only the second list has.
    doubled : names that the first, and the second list hold more than once, and that both lists have.
    nameless : number of rows of the first and of the second list without a name ("").
    """

    first: IntArray
    second: IntArray
    alone: Pair
    doubled: Pair
    nameless: tuple[int, int]

    @classmethod
    def of(cls, first: Sequence[str], second: Sequence[str]) -> CrossMatch:
        """The match of two lists of names; names are the same if they are equal, letter by letter."""
        lists = [rows_of_names(np.asarray(names, dtype=np.str_)) for names in (first, second)]
        nameless = [len(rows.pop("", ())) for rows in lists]
        ours, theirs = lists
        both = [name for name in ours if name in theirs]
        once = [name for name in both if len(ours[name]) == len(theirs[name]) == 1]
        rows = [np.array([found[name][0] for name in once], dtype=np.int64) for found in lists]
        return cls(
            rows[0],
            rows[1],
            (tuple(name for name in ours if name not in theirs), tuple(name for name in theirs if name not in ours)),
            (tuple(name for name in both if len(ours[name]) > 1), tuple(name for name in both if len(theirs[name]) > 1)),
            (nameless[0], nameless[1]),
        )

    def __len__(self) -> int:
        return int(self.first.size)
