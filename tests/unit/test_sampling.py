"""Samplers and constraints: counts of the papers, ranges, evenness, isochrones as tubes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from maury.errors import UsageError
from maury.grids import Isochrones
from maury.grids.constraints import AnalyticDwarfSequence, NearIsochrones, analytic_dwarf_sequence
from maury.grids.sampling import (
    Lattice,
    Sobol,
    Uniform,
    sample,
    steps,
)
from maury.recipes.grid_schema import load_build_recipe

BOX = {"teff": (3600.0, 15000.0), "logg": (2.0, 5.0), "vsini": (0.0, 300.0)}


def lattice_of(recipe: str) -> Lattice:
    """The sampler of a built-in recipe."""
    sampler = load_build_recipe(recipe).sample.sampler(0)  # type: ignore[union-attr]
    assert isinstance(sampler, Lattice)
    return sampler


def test_lattice_of_passegger_has_the_papers_449806_spectra() -> None:
    lattice = lattice_of("passegger2020")
    assert [len(values) for values in lattice.axes.values()] == [89, 14, 19, 19]  # METHODS 1
    assert len(lattice) == 449_806
    values = sample(lattice)
    assert values.shape == (449_806, 4)
    assert values[0].tolist() == [2300.0, 4.2, -1.0, 1.5]
    assert values[-1].tolist() == [4500.0, 5.5, 0.8, 60.0]
    assert (values[:19, :3] == values[0, :3]).all()  # v sin i fastest: neighbours share one model spectrum


def test_box_of_masbuitrago_has_the_values_of_the_released_labels() -> None:
    lattice = lattice_of("masbuitrago2024")
    assert [len(values) for values in lattice.axes.values()] == [87, 7, 17, 13]  # METHODS 2


def test_lattice_crosses_its_blocks_in_order() -> None:
    """More label sets than a block holds come out as the plain product does."""
    axes = {"teff": tuple(range(100)), "logg": tuple(range(70)), "m_h": (0.0,)}
    expected = [(a, b, 0.0) for a in range(100) for b in range(70)]
    assert sample(Lattice(axes)).tolist() == [list(row) for row in expected]


def test_steps_are_decimal_numbers_and_meet_once() -> None:
    assert steps([(4.2, 5.5, 0.1)])[-3:] == (5.3, 5.4, 5.5)
    assert steps([(1.5, 3.0, 0.5), (3.0, 6.0, 1.0)]) == (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)


@pytest.mark.parametrize("segment", [(1.0, 2.0, 0.3), (2.0, 1.0, 0.5), (1.0, 2.0, 0.0), (1.0, 2.0, -1.0), (1.0, np.inf, 1.0)])
def test_steps_that_do_not_lead_to_the_end_are_refused(segment: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="expected \\(first, last, step\\) with whole steps between"):
        steps([segment])


@pytest.mark.parametrize("kind", [Uniform, Sobol])
def test_random_samplers_fill_their_box_and_repeat_themselves(kind: type[Uniform | Sobol]) -> None:
    sampler = kind(BOX, 5000, seed=4, logarithmic=("teff",))
    values = sample(sampler)
    assert values.shape == (5000, 3)
    low, high = np.array(list(BOX.values())).T
    assert (values >= low).all()
    assert (values <= high).all()
    # the mean of n uniform numbers has a standard error of 0.29 span/sqrt(n) = 0.0041 spans; five of them
    assert abs(np.log(values[:, 0]).mean() - np.log([3600.0, 15000.0]).mean()) < 0.021 * np.log(15000 / 3600)
    assert abs(values[:, 1].mean() - 3.5) < 0.021 * 3.0
    assert np.array_equal(values, sample(kind(BOX, 5000, seed=4, logarithmic=("teff",))))
    assert not np.array_equal(values, sample(kind(BOX, 5000, seed=5, logarithmic=("teff",))))
    assert np.array_equal(values[:70], sample(kind(BOX, 70, seed=4, logarithmic=("teff",))))  # fewer are the first ones


def test_sobol_points_are_even() -> None:
    """1024 = 2^10 points of a (0, m, s)-net in base 2: each of 1024 equal slices of any label holds exactly one."""
    values = sample(Sobol({"teff": (0.0, 1.0), "logg": (0.0, 1.0)}, 1024, seed=1))
    for column in values.T:
        assert (np.bincount((column * 1024).astype(int), minlength=1024) == 1).all()


def test_square_root_is_denser_at_the_low_end() -> None:
    """10 + 300 u² with u uniform: the half of the points lies in the lowest quarter; of 1024 Sobol points to one."""
    plain = sample(Sobol({"vsini": (10.0, 310.0)}, 1024, seed=1))
    values = sample(Sobol({"vsini": (10.0, 310.0)}, 1024, seed=1, square_root=("vsini",)))
    assert abs(np.count_nonzero(values < 85.0) - 512) <= 1
    assert np.allclose(values, 10.0 + (plain - 10.0) ** 2 / 300.0)


def test_a_range_of_no_width_is_a_constant() -> None:
    assert (sample(Uniform({"teff": (3000.0, 3000.0), "logg": (4.0, 5.0)}, 10))[:, 0] == 3000.0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ranges": {}, "wanted": 3}, "expected ranges of labels"),
        ({"ranges": BOX, "wanted": 0}, "at least one point"),
        ({"ranges": {"teff": (4000.0, 3000.0)}, "wanted": 3}, "expected the range of teff as \\(low, high\\)"),
        ({"ranges": {"teff": (np.nan, 3000.0)}, "wanted": 3}, "expected the range of teff"),
        ({"ranges": BOX, "wanted": 3, "logarithmic": ("vsini",)}, "expected a positive range of vsini"),
        ({"ranges": BOX, "wanted": 3, "square_root": ("m_h",)}, "expected square_root labels among teff, logg, vsini, got m_h"),
        ({"ranges": BOX, "wanted": 3, "logarithmic": ("teff",), "square_root": ("teff",)}, "expected teff in one of logarithmic"),
        ({"ranges": BOX, "wanted": 3, "logarithmic": ("m_h",)}, "expected logarithmic labels among teff, logg, vsini, got m_h"),
    ],
)
def test_impossible_ranges_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Sobol(**settings)  # type: ignore[arg-type]


def test_impossible_lattices_are_refused() -> None:
    with pytest.raises(UsageError, match="expected at least one label for a lattice"):
        Lattice({})
    with pytest.raises(UsageError, match="expected different finite values of teff"):
        Lattice({"teff": (1.0, 1.0)})


# -- constraints ------------------------------------------------------------------------------------------------------------


def track(teff: list[float], logg: list[float], m_h: float, log_age: float = 9.0) -> Isochrones:
    n = len(teff)
    nan = np.full(n, np.nan)
    return Isochrones(
        np.array(teff), np.array(logg), np.full(n, m_h), np.full(n, log_age), np.linspace(0.1, 0.6, n), nan, nan, np.ones(n, int)
    )


TRACK = track([3000.0, 4000.0], [5.2, 4.7], 0.0)
NAMES = ("vsini", "m_h", "teff", "logg")  # columns are found by name


def kept(constraint: NearIsochrones, *rows: tuple[float, float, float]) -> list[bool]:
    return constraint.keeps(NAMES, np.array([[0.0, m_h, teff, logg] for teff, logg, m_h in rows])).tolist()


def test_near_isochrones_is_a_tube_of_the_half_axes_around_the_lines_between_points() -> None:
    near = NearIsochrones(TRACK, teff=50, logg=0.05, m_h=0.1)
    assert kept(near, (3500.0, 4.95, 0.0), (3000.0, 5.2, 0.0), (4000.0, 4.7, 0.0)) == [True] * 3
    assert kept(near, (3500.0, 4.95, 0.11), (3500.0, 5.05, 0.0), (3500.0, 4.85, 0.0)) == [False] * 3
    # at the ends the tube is round: half-axes are reached there, and nothing beyond
    assert kept(near, (2951.0, 5.2, 0.0), (2949.0, 5.2, 0.0)) == [True, False]
    assert kept(near, (4000.0, 4.7, 0.099), (4000.0, 4.651, 0.0)) == [True, True]
    # in between the tube is at most 3 % thinner, sqrt(1 - 1/16). In units of the half-axes the line falls by 10 over 20, so that
    # an offset in log g is sqrt(5)/2 times as long as the distance from the line
    edge = 0.05 * np.sqrt(5) / 2
    assert kept(near, (3500.0, 4.95 + 0.96 * edge, 0.0), (3500.0, 4.95 + 1.01 * edge, 0.0)) == [True, False]


def test_no_line_joins_isochrones_of_different_age_or_metallicity_or_table() -> None:
    two = Isochrones(
        *(
            np.concatenate([getattr(a, name), getattr(b, name)])
            for a, b in [(TRACK, track([3000.0, 4000.0], [4.2, 3.7], 0.0))]
            for name in ("teff", "logg", "m_h", "log_age", "mass", "bp_rp", "m_g", "stage")
        )
    )
    half_way = (3500.0, 4.45, 0.0)  # on the line from the end of the first to the beginning of the second
    assert kept(NearIsochrones(two, teff=50, logg=0.05), half_way) == [False]


def test_ages_and_stages_choose_isochrones() -> None:
    with pytest.raises(UsageError, match=r"expected isochrone points with log age 9\.5 to 10 and any stage, got none of 2"):
        NearIsochrones(TRACK, log_age=(9.5, 10.0))
    with pytest.raises(UsageError, match="stages \\[3\\], got none of 2"):
        NearIsochrones(TRACK, stages=(3,))
    with pytest.raises(UsageError, match="expected positive half-axes"):
        NearIsochrones(TRACK, teff=0.0)


def test_constraints_survive_pickling_after_use() -> None:
    near = NearIsochrones(TRACK)
    before = kept(near, (3500.0, 4.95, 0.0), (3500.0, 3.0, 0.0))
    assert kept(pickle.loads(pickle.dumps(near)), (3500.0, 4.95, 0.0), (3500.0, 3.0, 0.0)) == before == [True, False]


def test_samplers_go_on_until_the_constraint_has_kept_enough() -> None:
    """A tube keeps about one in a thousand of this box; twenty candidates of a block are not enough."""
    near = NearIsochrones(TRACK, teff=50, logg=0.05, m_h=0.05)
    values = sample(Uniform({"teff": (2000.0, 6000.0), "logg": (0.0, 6.0), "m_h": (-1.0, 1.0)}, 20, seed=2), near)
    assert values.shape == (20, 3)
    assert near.keeps(("teff", "logg", "m_h"), values).all()


def test_a_lattice_without_a_star_is_an_error() -> None:
    with pytest.raises(UsageError, match="expected some label sets that the constraint keeps, got 0 of 1; widen"):
        sample(Lattice({"teff": (6000.0,), "logg": (4.0,), "m_h": (0.0,)}), NearIsochrones(TRACK))


def test_constraints_want_their_labels() -> None:
    with pytest.raises(UsageError, match="got no logg; sample them too"):
        AnalyticDwarfSequence().keeps(("teff", "m_h"), np.zeros((1, 2)))


def test_analytic_dwarf_sequence_by_hand() -> None:
    """METHODS 2: at 3500 K and solar metallicity t = m = 0, so log g = 4.780; the width there is 0.085 - 0.03/7 = 0.0807 dex."""
    assert analytic_dwarf_sequence(np.array([3500.0]), np.array([0.0])).item() == 4.780
    # at 2500 K, [M/H] 0.5: 4.780 + 0.185 + 0.0304 + 0.0095 - 0.0975 + 0.01875 - 0.0535
    assert analytic_dwarf_sequence(np.array([2500.0]), np.array([0.5])).item() == pytest.approx(4.87265, abs=1e-12)
    # at 4800 K, [M/H] -0.1: 4.780 - 0.2405 + 0.051376 - 0.0208715 + 0.0195 + 0.00075 - 0.01391; the lattice ends at 4475 K
    assert analytic_dwarf_sequence(np.array([4800.0]), np.array([-0.1])).item() == pytest.approx(4.5763445, abs=1e-12)
    assert not AnalyticDwarfSequence().keeps(("teff", "logg", "m_h"), np.array([[4800.0, 4.5763, -0.1]])).any()
    table = np.array([[3500.0, 4.780 + d, 0.0] for d in (-0.082, -0.080, 0.080, 0.082)])
    assert AnalyticDwarfSequence().keeps(("teff", "logg", "m_h"), table).tolist() == [False, True, True, False]
