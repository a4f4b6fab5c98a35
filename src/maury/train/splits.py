"""Splits of a training set, by star: seeded, recorded, and without leaks between spectra of one star.

A "star" is whatever spectra are groups of: visits of one star, draws of one computed spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError


def k_folds(n: int, n_folds: int, seed: int, groups: Sequence[object] | None = None) -> list[NDArray[np.int64]]:
    """``n_folds`` index arrays that together hold 0..n-1 once.

    Parameters
    ----------
    groups : one entry per spectrum (a star's name); spectra of a group never fall into different folds.

    Raises
    ------
    UsageError
        If there are fewer than 2 folds, or fewer groups than folds.
    """
    keys = np.arange(n) if groups is None else np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)[1]
    n_groups = int(keys.max()) + 1 if n else 0
    if n_folds < 2 or n_groups < n_folds:
        raise UsageError(f"expected 2 <= folds <= number of stars ({n_groups}), got {n_folds} folds; change the recipe's folds")
    order = np.random.default_rng(seed).permutation(n_groups)
    fold_of_group = np.empty(n_groups, dtype=np.int64)
    fold_of_group[order] = np.arange(n_groups) % n_folds
    fold = fold_of_group[keys]
    return [np.flatnonzero(fold == f) for f in range(n_folds)]


def held_back(
    n: int, members: int, validation_fraction: float, seed: int, groups: Sequence[object] | None = None
) -> NDArray[np.bool_]:
    """(members, n) which spectra each network of an ensemble does not train on.

    Each of several members holds back another fold, so that every spectrum is held back once; a single one holds back
    ``validation_fraction`` of the stars.

    Parameters
    ----------
    groups : as in :func:`k_folds`.

    Raises
    ------
    UsageError
        If there is not one group for each spectrum, or there are fewer groups than folds.
    """
    if groups is not None and len(groups) != n:
        raise UsageError(f"expected one group for each of {n} spectra, got {len(groups)}; give one each")
    n_folds = members if members > 1 else round(1.0 / validation_fraction)
    n_stars = n if groups is None else len({str(group) for group in groups})
    if n_stars < n_folds:
        raise UsageError(
            f"expected at least {n_folds} stars, of which each network holds back one in {n_folds}, got {n_stars}; add stars"
        )
    out = np.zeros((members, n), dtype=bool)
    for member, fold in enumerate(k_folds(n, n_folds, seed, groups)[:members]):
        out[member, fold] = True
    return out
