"""The analytic dwarf sequence over Mas-Buitrago+2024's released labels, and PARSEC isochrones as a constraint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maury.grids import read_isochrones
from maury.grids.constraints import AnalyticDwarfSequence, NearIsochrones
from maury.grids.sampling import Lattice, sample
from maury.recipes.grid_schema import load_build_recipe

TRIPLE = ("teff", "logg", "m_h")


def released_axes() -> dict[str, tuple[float, ...]]:
    """Of the built-in recipe."""
    sampler = load_build_recipe("masbuitrago2024").sample.sampler(0)  # type: ignore[union-attr]
    assert isinstance(sampler, Lattice)
    return dict(sampler.axes)


def released(data: Path) -> set[tuple[float, ...]]:
    """The triples of Teff, log g and [M/H] that occur."""
    table = np.load(data / "carmenes/labels/ph_pars.npy")[:, :3].round(2) + 0.0  # + 0.0: no negative zeros
    return {tuple(row) for row in table.tolist()}


def test_analytic_dwarf_sequence_keeps_most_of_the_released_labels(data: Path) -> None:
    real = released(data)
    assert len(real) == 1767  # METHODS 2
    axes = released_axes()
    box = Lattice({name: axes[name] for name in TRIPLE})
    kept = {tuple(row) for row in sample(box, AnalyticDwarfSequence()).round(2).tolist()}
    # METHODS 2: 95 % and 71 %, as whole per cents
    assert round(100 * len(kept & real) / len(real)) == 95
    assert round(100 * len(kept & real) / len(kept)) == 71


def test_lattice_values_are_those_of_the_released_labels(data: Path) -> None:
    table = np.load(data / "carmenes/labels/ph_pars.npy")
    for column, values in zip(table.T, released_axes().values(), strict=True):
        assert np.allclose(np.unique(column.round(4)), values, atol=1e-9)


def test_parsec_keeps_a_main_sequence_dwarf_and_no_dwarf_off_it(data: Path) -> None:
    """Solar isochrones older than 1 Gyr: an M dwarf of 3500 K has log g near 4.8 (METHODS 2: 4.78), none has 4.2 or 5.4."""
    tracks = read_isochrones(sorted((data / "isochrones/parsec_cmd34").glob("CMD_*")))
    near = NearIsochrones(tracks, teff=50, logg=0.1, m_h=0.1, log_age=(9.0, 10.2), stages=(1,))
    table = np.array([[3500.0, 4.2, 0.0], [3500.0, 4.8, 0.0], [3500.0, 5.4, 0.0], [3500.0, 4.8, 0.5]])
    assert near.keeps(TRIPLE, table).tolist() == [False, True, False, False]
