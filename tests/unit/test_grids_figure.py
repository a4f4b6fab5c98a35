"""`maury.report.grid_figure`: every node is drawn once, as what it is."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from phoenix_files import lattice_nodes

from maury.errors import UsageError
from maury.grids import ArrayRows, Grid
from maury.grids.phoenix import phoenix_grid
from maury.report.grid_figure import grid_figure

NODES = np.array([astuple(n) for n in lattice_nodes((4000, 4100, 4200), (4.5, 5.0), (-0.5, 0.0), (0.0, 0.2))])


def make_grid(keep: np.ndarray) -> Grid:
    return phoenix_grid(NODES[keep], np.arange(8800.0, 8803.0), ArrayRows(np.ones((int(keep.sum()), 3))), "test")


def drawn(figure: Figure) -> dict[tuple[str, str], list[list[float]]]:
    """Points by the title of their panel and what they stand for."""
    return {
        (axes.get_title(loc="left"), str(points.get_label())): sorted(np.asarray(points.get_offsets()).tolist())
        for axes in figure.axes
        for points in axes.collections
    }


def test_nodes_holes_and_nodes_of_which_some_are_there() -> None:
    keep = np.ones(len(NODES), dtype=bool)
    keep[(NODES[:, 0] == 4100) & (NODES[:, 1] == 5.0) & (NODES[:, 2] == 0)] = False  # for both values of [alpha/M]
    keep[(NODES == [4200, 4.5, -0.5, 0.2]).all(axis=1)] = False
    found = drawn(grid_figure(make_grid(keep)))
    metal_poor, solar = "[M/H] = −0.5 dex", "[M/H] = 0 dex"
    assert found[solar, "hole"] == [[4100.0, 5.0]]
    assert (solar, "some there") not in found
    assert len(found[solar, "all there"]) == 5
    assert found[metal_poor, "some there"] == [[4200.0, 4.5]]
    assert (metal_poor, "hole") not in found
    assert len(found[metal_poor, "all there"]) == 5


def test_axes_run_as_in_a_kiel_diagram() -> None:
    figure = grid_figure(make_grid(np.ones(len(NODES), dtype=bool)))
    for axes in figure.axes:
        assert axes.xaxis_inverted()
        assert axes.yaxis_inverted()


def test_a_grid_along_one_label_has_no_plane() -> None:
    with pytest.raises(UsageError, match=r"expected a grid in which two labels vary, got 1 in test"):
        grid_figure(make_grid((NODES[:, 1:] == [4.5, 0, 0]).all(axis=1)))
