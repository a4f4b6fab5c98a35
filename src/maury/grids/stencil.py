"""Which nodes of an axis take part in an interpolated value, and with which weights.

In the cell from x_0 to x_1 = x_0 + h, with t = (x - x_0)/h, and with x_{-1} = x_0 - a and x_2 = x_1 + c beside it:

* linear: (1 - t) f_0 + t f_1.
* cubic: the Hermite polynomial of the two values and slopes,
  (2t³ - 3t² + 1) f_0 + (t³ - 2t² + t) h d_0 + (3t² - 2t³) f_1 + (t³ - t²) h d_1,
  where d is the slope of the parabola through the node and its two neighbours, at an end of that through the last three. It
  passes through every node, is exact for parabolas on any spacing and has no kinks; it needs four nodes, so a hole stays local.

A value on a node takes part with that node alone, so that nodes beside a hole keep their spectra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.grids.grid import FloatArray, IntArray, tolerance

BoolArray = NDArray[np.bool_]

_ON_NODE = 1e-9  # of the axis's largest value: rounding in double precision, and no more; flux then changes by less than 1e-6


@dataclass(frozen=True, eq=False)
class Located:
    """Where n values lie on one axis.

    Parameters
    ----------
    cell : (n,) number of the node x_0.
    on_node : (n,) whether the value is x_0 itself.
    values : (n,) those outside moved to the end.
    outside : (n,) whether it lies beyond the ends, or is NaN.
    """

    cell: IntArray
    on_node: BoolArray
    values: FloatArray
    outside: BoolArray


def locate(axis: FloatArray, values: FloatArray) -> Located:
    """Find the cells of (n,) values on an axis of one or more nodes."""
    slack = tolerance(axis)  # the ends may have been rounded to single precision
    outside = ~((values >= axis[0] - slack) & (values <= axis[-1] + slack))
    within = np.where(np.isnan(values), axis[0], np.clip(values, axis[0], axis[-1]))
    near = _ON_NODE * max(float(np.abs(axis).max()), 1.0)
    cell = np.clip(np.searchsorted(axis, within + near, side="right") - 1, 0, len(axis) - 1)
    return Located(cell, np.abs(within - axis[cell]) <= near, within, outside)


def stencil_nodes(cell: IntArray, on_node: BoolArray, left: BoolArray | None = None, right: BoolArray | None = None) -> IntArray:
    """(n, 2) numbers of the nodes x_0, x_1; with ``left`` and ``right`` (n, 4): x_{-1}, x_0, x_1, x_2.

    Parameters
    ----------
    left, right : (n,) whether x_{-1} and x_2 take part; where they do not, their neighbour stands in for them with weight 0.
    """
    above = cell + ~on_node
    if left is None or right is None:
        return np.stack([cell, above], axis=1)
    return np.stack([cell - left, cell, above, above + right], axis=1)


def linear_weights(axis: FloatArray, place: Located) -> FloatArray:
    """(n, 2) weights of x_0 and x_1."""
    x_0 = axis[place.cell]
    h = np.where(place.on_node, 1.0, axis[place.cell + ~place.on_node] - x_0)
    t = np.where(place.on_node, 0.0, (place.values - x_0) / h)
    return np.stack([1 - t, t], axis=1)


def cubic_weights(axis: FloatArray, place: Located, left: BoolArray, right: BoolArray) -> FloatArray:
    """(n, 4) weights of x_{-1}, x_0, x_1, x_2; without the first or last the end's parabola, without both linear."""
    nodes = axis[stencil_nodes(place.cell, place.on_node, left, right)]
    h = np.where(place.on_node, 1.0, nodes[:, 2] - nodes[:, 1])
    a = np.where(left, nodes[:, 1] - nodes[:, 0], h)  # any spacing where there is no node: its weight is 0
    c = np.where(right, nodes[:, 3] - nodes[:, 2], h)
    t = np.where(place.on_node, 0.0, (place.values - nodes[:, 1]) / h)
    zero, secant = np.zeros_like(h), np.stack([0 * h, -1 / h, 1 / h, 0 * h])
    before = np.stack([-h / (a * (a + h)), (h - a) / (a * h), a / (h * (a + h)), zero])  # parabola x_{-1}, x_0, x_1 at x_0
    before_1 = np.stack([h / (a * (a + h)), -(a + h) / (a * h), (a + 2 * h) / (h * (a + h)), zero])  # the same at x_1
    after = np.stack([zero, -c / (h * (h + c)), (c - h) / (h * c), h / (c * (h + c))])  # parabola x_0, x_1, x_2 at x_1
    after_0 = np.stack([zero, -(2 * h + c) / (h * (h + c)), (h + c) / (h * c), -h / (c * (h + c))])  # the same at x_0
    slope_0 = np.where(left, before, np.where(right, after_0, secant))
    slope_1 = np.where(right, after, np.where(left, before_1, secant))
    values = np.stack([zero, 2 * t**3 - 3 * t**2 + 1, 3 * t**2 - 2 * t**3, zero])
    return np.asarray((values + (t**3 - 2 * t**2 + t) * h * slope_0 + (t**3 - t**2) * h * slope_1).T)
