"""Spectra between the nodes of a grid: linear, as the papers have it, or cubic; in batches, never outside unless asked.

An interpolated spectrum is a weighted sum of node spectra, F = W F_nodes, with 2^K weights (cubic: 4^K) that are products of
those along the K axes (:mod:`~maury.grids.stencil`). Label sets of one cell share their nodes: the batch is sorted by cells, and
each cell is one matrix product; where cells have few label sets each, W is one sparse matrix. Sums are in double precision unless
asked otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from maury.errors import UsageError
from maury.grids.grid import FloatArray, Grid, IntArray
from maury.grids.stencil import BoolArray, Located, cubic_weights, linear_weights, locate, stencil_nodes

Method = Literal["linear", "cubic"]
Outside = Literal["leave_out", "nearest"]

_FEW = 4  # label sets per cell: below, gathering a cell's nodes costs more than a product of sparse matrices
_BLOCK = 16_384  # label sets whose weights are in memory at once
_SLICE = 64  # label sets of one sparse product
_PRODUCT = 16  # label sets of one matrix product, or as many as it has nodes: small enough to be copied from the cache


@dataclass(frozen=True, eq=False)
class Interpolated:
    """Spectra for n label sets.

    Parameters
    ----------
    flux : (n, p); NaN in rows that could not be made.
    outside : (n,) whether the labels lie outside the grid's box; made only on request, from the nearest labels inside.
    hole : (n,) whether a node is missing that the spectrum needs; it is then not made.
    usable : (n,) whether the spectrum was made.
    """

    flux: NDArray[Any]
    outside: NDArray[np.bool_]
    hole: NDArray[np.bool_]
    usable: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GridInterpolator:
    """Labels -> flux between the nodes of a grid.

    Parameters
    ----------
    grid : whose nodes form a lattice, perhaps with holes.
    method : "linear" or "cubic"; along axes with fewer than three nodes, and beside holes, cubic is of lower degree.
    outside : what to do with labels outside the grid's box: "leave_out" gives NaN, "nearest" the spectrum at the nearest labels
        inside. Both are flagged. Labels that are NaN get NaN.
    memory : bytes of node spectra to hold at most (one cell's at least). If the whole grid fits it is read once.

    Raises
    ------
    UsageError
        If the grid is no lattice, or for another method.

    Examples
    --------
    >>> import numpy as np
    >>> from maury.grids import ArrayRows, Grid, GridInterpolator
    >>> from maury.labels import KNOWN_LABELS
    >>> nodes = np.array([[4000.0], [4100.0]])
    >>> flux = ArrayRows(np.array([[1.0, 2.0], [2.0, 4.0]]))
    >>> grid = Grid("two", (KNOWN_LABELS["teff"],), nodes, np.array([5000.0, 5001.0]), "vacuum", flux)
    >>> GridInterpolator(grid).spectra([[4050.0], [4200.0]]).flux
    array([[1.5, 3. ],
           [nan, nan]])
    """

    grid: Grid
    method: Method = "linear"
    outside: Outside = "leave_out"
    memory: int = 512_000_000
    _held: dict[Any, NDArray[Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("outside", Outside)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"expected {name} {' or '.join(get_args(kind))}, got {getattr(self, name)!r}; choose one")
        _ = self.grid.lattice  # scattered points raise here, not at the first spectrum

    def spectra(
        self,
        values: ArrayLike,
        pixels: slice = slice(None),
        *,
        dtype: DTypeLike = np.float64,
        out: NDArray[Any] | None = None,
    ) -> Interpolated:
        """Spectra for label sets.

        Parameters
        ----------
        values : (n, K) in the grid's labels and units.
        pixels : which of the grid's pixels.
        dtype : of flux and sums: double, or single precision, which is good to 1e-6 and twice as fast.
        out : (n, p) to write to instead of a new array.

        Raises
        ------
        UsageError
            For labels or ``out`` of another shape.
        """
        table = self._checked(values)
        n_pixels = len(range(*pixels.indices(self.grid.n_pixels)))
        flux = np.empty((len(table), n_pixels), dtype=dtype) if out is None else out
        if flux.shape != (len(table), n_pixels):
            raise UsageError(f"expected out of shape ({len(table)}, {n_pixels}), got {flux.shape}; give another")
        places = [locate(axis, column) for axis, column in zip(self.grid.lattice.axes, table.T, strict=True)]
        outside = np.logical_or.reduce([place.outside for place in places])
        wanted = ~np.isnan(table).any(axis=1)
        if self.outside == "leave_out":
            wanted &= ~outside
        hole = np.zeros(len(table), dtype=bool)
        for members in self._sorted_blocks(places, np.flatnonzero(wanted)):
            cells = self._cells(places, members)
            hole[members] = ~cells.complete[cells.of]
            self._write(cells.whole(), pixels, flux)
        usable = wanted & ~hole
        flux[~usable] = np.nan
        return Interpolated(flux, outside, hole, usable)

    def reasons(self, values: ArrayLike, found: Interpolated) -> list[str]:
        """(n,) what is wrong with each label set, in words; "" where nothing is."""
        table, lattice = self._checked(values), self.grid.lattice
        beyond = np.array([locate(axis, column).outside for axis, column in zip(lattice.axes, table.T, strict=True)])
        texts = [f"{name} outside {axis[0]:g} to {axis[-1]:g}" for name, axis in zip(lattice.names, lattice.axes, strict=True)]
        reasons = [""] * len(table)
        for row in np.flatnonzero(found.outside | found.hole):
            unknown = np.isnan(table[row])
            what = [
                f"{name} is NaN" if nan else text
                for name, text, nan, out in zip(lattice.names, texts, unknown, beyond[:, row], strict=True)
                if out
            ]
            reasons[row] = " and ".join(what + ["beside a hole of the grid"] * bool(found.hole[row]))
        return reasons

    def _checked(self, values: ArrayLike) -> FloatArray:
        table = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if table.ndim != 2 or table.shape[1] != len(self.grid.labels):
            raise UsageError(
                f"expected labels of shape (n, {len(self.grid.labels)}), got {np.shape(values)}; one column each for "
                f"{', '.join(self.grid.names)}"
            )
        return table

    # -- cells ----------------------------------------------------------------------------------------------------------------

    def _sorted_blocks(self, places: list[Located], wanted: IntArray) -> Iterator[IntArray]:
        """Label sets in the order of their cells, some at a time: weights are held for one block only."""
        keys = np.zeros(len(wanted), dtype=np.int64)
        for place, n_nodes in zip(places, self.grid.lattice.shape, strict=True):
            keys = (keys * n_nodes + place.cell[wanted]) * 2 + place.on_node[wanted]
        ordered = wanted[np.argsort(keys, kind="stable")]
        for start in range(0, len(ordered), _BLOCK):
            yield ordered[start : start + _BLOCK]

    def _cells(self, places: list[Located], members: IntArray) -> _Cells:
        """Nodes and weights of some label sets, which are sorted by cell."""
        mine = [
            Located(place.cell[members], place.on_node[members], place.values[members], place.outside[members])
            for place in places
        ]
        changes = np.logical_or.reduce([np.diff(p.cell).astype(bool) | np.diff(p.on_node) for p in mine])
        starts = np.flatnonzero(np.concatenate([[True], changes]))
        of = np.cumsum(np.concatenate([[0], changes.astype(np.int64)]))
        cells = [(place.cell[starts], place.on_node[starts]) for place in mine]
        axes = self.grid.lattice.axes
        if self.method == "linear":
            rows = self._rows([stencil_nodes(*cell) for cell in cells])
            along = [linear_weights(axis, place) for axis, place in zip(axes, mine, strict=True)]
        else:
            rows, sides = self._cubic_rows(cells)
            along = [
                cubic_weights(axis, place, left[of], right[of])
                for axis, place, (left, right) in zip(axes, mine, sides, strict=True)
            ]
        table = np.ones((len(members), 1))
        for one in along:
            table = (table[:, :, None] * one[:, None, :]).reshape(len(members), -1)
        return _Cells(members, of, rows, table)

    def _rows(self, nodes: list[IntArray]) -> IntArray:
        """(n_cells, s) rows of the grid at all combinations of K times (n_cells, s_k) nodes; -1 at holes."""
        place = np.zeros((len(nodes[0]), 1), dtype=np.int64)
        for along, n in zip(nodes, self.grid.lattice.shape, strict=True):
            place = (place[:, :, None] * n + along[:, None, :]).reshape(len(along), -1)
        return np.asarray(self.grid.lattice.rows.ravel()[place])

    def _cubic_rows(self, cells: list[tuple[IntArray, BoolArray]]) -> tuple[IntArray, list[tuple[BoolArray, BoolArray]]]:
        """Rows as in :meth:`_rows`, and per axis whether the outer nodes take part on either side.

        One layer of outer nodes after the other joins where all its nodes are there: beside holes and at the ends the polynomial
        is of lower degree along that axis.
        """
        sides = [(np.zeros(len(cell), dtype=bool), np.zeros(len(cell), dtype=bool)) for cell, _ in cells]

        def rows() -> IntArray:
            return self._rows([stencil_nodes(*cell, *side) for cell, side in zip(cells, sides, strict=True)])

        for k, (cell, on_node) in enumerate(cells):
            for possible, side in ((cell > 0, 0), (cell + 2 < self.grid.lattice.shape[k], 1)):
                wider = possible & ~on_node
                before = sides[k]
                sides[k] = (wider, before[1]) if side == 0 else (before[0], wider)
                there = (rows() >= 0).all(axis=1)
                sides[k] = (wider & there, before[1]) if side == 0 else (before[0], wider & there)
        return rows(), sides

    # -- sums -----------------------------------------------------------------------------------------------------------------

    def _write(self, cells: _Cells, pixels: slice, out: NDArray[Any]) -> None:
        """Interpolate into the rows of ``out``; halved until the node spectra fit into memory."""
        if not cells.members.size:
            return
        all_at_once = self.grid.n_spectra * out.shape[1] * out.itemsize <= self.memory
        if not all_at_once and len(cells.rows) > 1 and np.unique(cells.rows).size * out.shape[1] * out.itemsize > self.memory:
            for half in cells.halves():
                self._write(half, pixels, out)
            return
        nodes, place = self._read(None if all_at_once else cells.rows, pixels, out.dtype)
        if len(cells.members) < _FEW * len(cells.rows):
            _sparse(cells, nodes, place, out)
        else:
            _by_cell(cells, nodes, place, out)

    def _read(self, rows: IntArray | None, pixels: slice, dtype: np.dtype[Any]) -> tuple[NDArray[Any], IntArray]:
        """Node spectra, of some rows or all, and where each row of the grid is among them. All are kept for the next time."""
        if rows is None:
            key = (pixels.indices(self.grid.n_pixels), dtype.str)
            if key not in self._held:
                self._held.clear()  # one range of pixels at a time
                self._held[key] = np.ascontiguousarray(self.grid.flux(pixels=pixels), dtype=dtype)
            return self._held[key], np.arange(self.grid.n_spectra)
        needed = np.unique(rows)
        place = np.full(self.grid.n_spectra, -1, dtype=np.int64)
        place[needed] = np.arange(len(needed))
        return np.ascontiguousarray(self.grid.flux(needed, pixels), dtype=dtype), place


@dataclass(frozen=True, eq=False)
class _Cells:
    """m label sets, sorted by their cells."""

    members: IntArray  # (m,) which label sets
    of: IntArray  # (m,) which cell each is in, increasing from 0
    rows: IntArray  # (n_cells, s) which spectra of the grid each cell needs; -1 at holes
    weights: FloatArray  # (m, s)

    @property
    def complete(self) -> BoolArray:
        """(n_cells,) whether no node is missing."""
        return np.asarray((self.rows >= 0).all(axis=1))

    def whole(self) -> _Cells:
        """Only cells without missing nodes."""
        complete = self.complete
        return self if complete.all() else self._part(complete)

    def halves(self) -> tuple[_Cells, _Cells]:
        first = np.arange(len(self.rows)) < len(self.rows) // 2
        return self._part(first), self._part(~first)

    def _part(self, cells: BoolArray) -> _Cells:
        mine = cells[self.of]
        return _Cells(self.members[mine], (np.cumsum(cells) - 1)[self.of[mine]], self.rows[cells], self.weights[mine])


def _by_cell(cells: _Cells, nodes: NDArray[Any], place: IntArray, out: NDArray[Any]) -> None:
    """One matrix product per cell."""
    ends = np.concatenate([[0], np.flatnonzero(np.diff(cells.of)) + 1, [len(cells.of)]])
    table = cells.weights.astype(out.dtype)
    height = max(_PRODUCT, table.shape[1])
    buffer = np.empty((min(height, int(np.diff(ends).max())), out.shape[1]), dtype=out.dtype)
    for rows, first, last in zip(place[cells.rows], ends[:-1], ends[1:], strict=True):
        spectra = nodes[rows]
        for start in range(first, last, height):
            stop = min(start + height, last)
            out[cells.members[start:stop]] = np.matmul(table[start:stop], spectra, out=buffer[: stop - start])


def _sparse(cells: _Cells, nodes: NDArray[Any], place: IntArray, out: NDArray[Any]) -> None:
    """The same sums where cells have few label sets each: a sparse matrix for all."""
    from scipy.sparse import csr_array

    columns = place[cells.rows][cells.of]
    ends = np.arange(len(columns) + 1) * columns.shape[1]
    entries = cells.weights.astype(out.dtype)
    matrix = csr_array((entries.ravel(), columns.ravel(), ends), shape=(len(columns), len(nodes)))
    for start in range(0, len(columns), _SLICE):
        out[cells.members[start : start + _SLICE]] = matrix[start : start + _SLICE] @ nodes
