"""A catalogue back into LabelEstimates, for what is computed from estimates (visits combined to stars)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import CatalogueError
from maury.estimates import LabelEstimates
from maury.flags import FitStatus
from maury.labels import KNOWN_LABELS, Label, LabelSet

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]


def estimates_from_catalogue(table: Table) -> LabelEstimates:
    """The estimates that a catalogue holds; values before calibration are left behind.

    The label set has the catalogue's names and units; its scaling and range are those of the values in it, as a catalogue does
    not carry a model's.

    Parameters
    ----------
    table : of :func:`~maury.catalogue.read_catalogue`; all its other columns become meta.

    Raises
    ------
    CatalogueError
        If it holds no label, or lacks a column that a catalogue always has.
    """
    labels = _labels_of(table)
    names = [label.name for label in labels]
    needed = ["id", "chi2", "n_pixels", "status", "flag", "reason"]
    needed += [f"rho_{a}_{b}" for a, b in combinations(names, 2)]
    missing = [name for name in needed if name not in table.colnames]
    if missing:
        raise CatalogueError(f"expected column {missing[0]} in the catalogue, got none; give it as `maury infer` wrote it")
    values = np.column_stack([_numbers(table, name) for name in names])
    errors = np.column_stack([_numbers(table, f"e_{name}") for name in names])
    return LabelEstimates(
        _label_set(labels, values),
        np.array([str(entry) for entry in table["id"]], dtype=np.str_),
        values,
        _correlation(table, names) * errors[:, :, None] * errors[:, None, :],
        _numbers(table, "chi2"),
        np.asarray(table["n_pixels"], dtype=np.int64),
        tuple(FitStatus(str(entry)) for entry in table["status"]),
        np.asarray(table["flag"], dtype=np.int64),
        np.column_stack([np.asarray(table[f"flag_{name}"], dtype=np.int64) for name in names]),
        tuple(str(entry) for entry in table["reason"]),
        table.copy(copy_data=False),
        interval_errors=_intervals(table, names, errors),
    )


def _labels_of(table: Table) -> list[Label]:
    """Labels are the columns with an error and a flag beside them."""
    names = [name.removeprefix("e_") for name in table.colnames if name.startswith("e_")]
    names = [name for name in names if {name, f"flag_{name}"} <= set(table.colnames)]
    if not names:
        raise CatalogueError("expected labels with their errors and flags in the catalogue, got none; give a whole catalogue")
    return [KNOWN_LABELS.get(name) or Label(name, str(table[name].unit or ""), table[name].description or "") for name in names]


def _intervals(table: Table, names: list[str], errors: FloatArray) -> FloatArray | None:
    """(n, K, 2) lower and upper errors, the symmetric ones for labels without; None where no label has them."""
    columns = [(f"e_{name}_lo", f"e_{name}_up") for name in names]
    if not any(set(pair) <= set(table.colnames) for pair in columns):
        return None
    out = np.repeat(errors[:, :, None], 2, axis=2)
    for k, pair in enumerate(columns):
        if set(pair) <= set(table.colnames):
            out[:, k] = np.column_stack([_numbers(table, name) for name in pair])
    return out


def _label_set(labels: list[Label], values: FloatArray) -> LabelSet:
    known = np.isfinite(values).all(axis=1)
    low, high = (values[known].min(axis=0), values[known].max(axis=0)) if known.any() else (np.zeros(len(labels)),) * 2
    spread = tuple(float(x) if x > 0 else 1.0 for x in high - low)
    plain = tuple(Label(x.name, x.unit, x.description, x.ucd, "linear", x.positive) for x in labels)
    return LabelSet(plain, tuple((0.5 * (low + high)).tolist()), spread, tuple(low.tolist()), tuple(high.tolist()))


def _correlation(table: Table, names: list[str]) -> FloatArray:
    """(n, K, K), 1 on the diagonal."""
    out = np.tile(np.eye(len(names)), (len(table), 1, 1))
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        out[:, i, j] = out[:, j, i] = _numbers(table, f"rho_{a}_{b}")
    return out


def _numbers(table: Any, name: str) -> FloatArray:
    return np.asarray(np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan), dtype=np.float64)
