"""`maury.grids.interpolate`: numbers against scipy and closed forms; hull, holes, memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from maury.errors import UsageError
from maury.grids import ArrayRows, Grid, GridInterpolator
from maury.grids.interpolate import Method
from maury.labels import KNOWN_LABELS

NAMES = ("teff", "logg", "m_h", "alpha_m")
AXES = (  # unequal steps, as PHOENIX has them above 7000 K
    np.array([6600.0, 6700, 6800, 6900, 7000, 7200, 7400]),
    np.array([4.0, 4.5, 5.0, 5.5]),
    np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5]),
    np.array([0.0, 0.2]),
)
N_PIXELS = 37


def nodes_of(axes: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*axes)))


def make_grid(n_labels: int = 3, flux: np.ndarray | None = None, keep: np.ndarray | None = None, rows: Any = None) -> Grid:
    """Random flux at the nodes, unless given; ``keep`` leaves nodes out."""
    nodes = nodes_of(AXES[:n_labels])
    kept = np.ones(len(nodes), dtype=bool) if keep is None else keep
    values = random_flux(len(nodes)) if flux is None else flux
    return Grid(
        "test",
        tuple(KNOWN_LABELS[name] for name in NAMES[:n_labels]),
        nodes[kept],
        np.arange(5000.0, 5000.0 + values.shape[1]),
        "vacuum",
        (rows or ArrayRows)(values[kept]),
    )


def random_flux(n: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(0.2, 1.0, (n, N_PIXELS))


def labels(n: int, n_labels: int = 3, seed: int = 3) -> np.ndarray:
    """Random label sets in the box; every fourth has a label on a node, the first and last are corners."""
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.uniform(axis[0], axis[-1], n) for axis in AXES[:n_labels]])
    for row in range(0, n, 4):
        k = int(rng.integers(n_labels))
        values[row, k] = rng.choice(AXES[k])
    values[0], values[-1] = [axis[0] for axis in AXES[:n_labels]], [axis[-1] for axis in AXES[:n_labels]]
    return values


def scipys(grid: Grid, values: np.ndarray) -> np.ndarray:
    cube = grid.flux()[grid.lattice.rows]
    return np.asarray(RegularGridInterpolator(grid.lattice.axes, cube)(values))


class TestLinear:
    @pytest.mark.parametrize("n_labels", [1, 2, 3, 4])
    @pytest.mark.parametrize("n", [3, 40, 3000])
    def test_equal_to_scipy(self, n_labels: int, n: int) -> None:
        """Few label sets take the road of sparse matrices, many that of one product per cell. The issue asks for 1e-6."""
        grid, values = make_grid(n_labels), labels(n, n_labels)
        found = GridInterpolator(grid).spectra(values)
        assert np.abs(found.flux - scipys(grid, values)).max() < 1e-12
        assert found.usable.all()
        assert not found.outside.any()
        assert not found.hole.any()

    def test_single_precision_is_good_to_1e_6(self) -> None:
        """2^-24 for each of 8 products and sums of numbers below 1."""
        grid, values = make_grid(), labels(3000)
        found = GridInterpolator(grid).spectra(values, dtype=np.float32)
        assert found.flux.dtype == np.float32
        assert np.abs(found.flux - scipys(grid, values)).max() < 1e-6

    def test_beside_a_node_as_equal_to_scipy_as_elsewhere(self) -> None:
        """What counts as on a node must not move a spectrum by 1e-6."""
        grid = make_grid()
        offsets = np.array([0, 1e-13, 1e-10, 1e-8, 1e-6, 1e-4])
        values = np.array([[6800 * (1 + a * sign), 4.5 * (1 + b), -1.0] for a in offsets for b in offsets for sign in (-1, 1)])
        assert np.abs(GridInterpolator(grid).spectra(values).flux - scipys(grid, values)).max() < 1e-6

    def test_pixels_and_out(self) -> None:
        grid, values = make_grid(), labels(50)
        whole = GridInterpolator(grid).spectra(values).flux
        out = np.zeros((50, 10))
        found = GridInterpolator(grid).spectra(values, slice(5, 25, 2), out=out)
        assert found.flux is out
        assert np.array_equal(out, whole[:, 5:25:2])
        with pytest.raises(UsageError, match=r"expected out of shape \(50, 37\), got \(50, 10\); give another"):
            GridInterpolator(grid).spectra(values, out=out)

    def test_one_alone_is_the_same_as_in_a_batch_whatever_the_order(self) -> None:
        interpolator, values = GridInterpolator(make_grid()), labels(400)
        batch = interpolator.spectra(values).flux
        assert np.allclose(interpolator.spectra(values[::-1]).flux[::-1], batch, rtol=1e-14)
        assert np.allclose(interpolator.spectra(values[[77]]).flux[0], batch[77], rtol=1e-14)

    def test_labels_are_left_alone(self) -> None:
        values = labels(20)
        before = values.copy()
        GridInterpolator(make_grid(), outside="nearest").spectra(values)
        assert np.array_equal(values, before)

    def test_no_label_sets(self) -> None:
        assert GridInterpolator(make_grid()).spectra(np.empty((0, 3))).flux.shape == (0, N_PIXELS)


class TestCubic:
    @pytest.mark.parametrize("n_labels", [1, 2, 3, 4])
    def test_exact_for_parabolas_on_any_spacing(self, n_labels: int) -> None:
        """Closed form: products of parabolas along each label; along one with two nodes, straight lines."""

        def truth(values: np.ndarray) -> np.ndarray:
            x = (values - np.array([7000.0, 4.7, -0.7, 0.1])[:n_labels]) / np.array([300.0, 0.5, 1.0, 0.1])[:n_labels]
            curved = np.array([0.3, -0.2, 0.4, 0.0])[:n_labels]
            return np.asarray(np.prod(1 + 0.5 * x + curved * x**2, axis=1))[:, None] * np.ones(5)

        grid = make_grid(n_labels, truth(nodes_of(AXES[:n_labels])))
        values = labels(500, n_labels)
        assert np.abs(GridInterpolator(grid, "cubic").spectra(values).flux / truth(values) - 1).max() < 1e-11

    def test_passes_through_every_node(self) -> None:
        grid = make_grid()
        found = GridInterpolator(grid, "cubic").spectra(grid.values)
        assert np.abs(found.flux - grid.flux()).max() < 1e-14

    def test_no_kinks(self) -> None:
        """Slopes on both sides of a node agree, where those of linear interpolation differ."""
        grid, step = make_grid(1), 1e-3
        at = np.array([[node + side * step] for node in AXES[0][1:-1] for side in (-1.0, 0.0, 1.0)])

        def kink(method: Method) -> float:
            below, here, above = GridInterpolator(grid, method).spectra(at).flux.reshape(-1, 3, N_PIXELS).transpose(1, 0, 2)
            return float(np.abs(above - 2 * here + below).max() / step)

        assert kink("cubic") < 1e-5  # second derivative times the step
        assert kink("linear") > 1e-3

    def test_better_than_linear_on_a_smooth_function(self) -> None:
        """sin(x) over steps of 0.5: linear errs by h²/8 = 0.031, the cubic by an order less (h³ at the ends)."""
        axis = np.arange(0.0, 5.1, 0.5)
        grid = Grid(
            "sin",
            (KNOWN_LABELS["logg"],),
            axis[:, None],
            np.arange(5000.0, 5002.0),
            "air",
            ArrayRows(np.sin(axis)[:, None] * [1, 1]),
        )
        values = np.linspace(0.0, 5.0, 300)[:, None]
        error = {
            m: np.abs(GridInterpolator(grid, m).spectra(values).flux[:, 0] - np.sin(values[:, 0])).max()
            for m in ("linear", "cubic")
        }
        assert error["linear"] == pytest.approx(0.031, rel=0.05)
        assert error["cubic"] < 0.3 * error["linear"]

    def test_label_sets_with_few_per_cell_have_the_same_numbers(self) -> None:
        interpolator, values = GridInterpolator(make_grid(), "cubic"), labels(3000)
        batch = interpolator.spectra(values).flux
        assert np.allclose(interpolator.spectra(values[:5]).flux, batch[:5], rtol=1e-13)


class TestOutside:
    VALUES = np.array([[6650.0, 4.2, -0.3], [6500.0, 4.2, -0.3], [6650.0, 6.0, 0.9], [np.nan, 4.2, -0.3], [7400.0, 5.5, 0.5]])

    @pytest.mark.parametrize("method", ["linear", "cubic"])
    def test_never_unless_asked(self, method: Method) -> None:
        interpolator = GridInterpolator(make_grid(), method)
        found = interpolator.spectra(self.VALUES)
        assert found.outside.tolist() == [False, True, True, True, False]
        assert found.usable.tolist() == [True, False, False, False, True]
        assert np.isnan(found.flux[1:4]).all()
        assert np.isfinite(found.flux[[0, 4]]).all()
        assert interpolator.reasons(self.VALUES, found) == [
            "",
            "teff outside 6600 to 7400",
            "logg outside 4 to 5.5 and m_h outside -2 to 0.5",
            "teff is NaN",
            "",
        ]

    @pytest.mark.parametrize("method", ["linear", "cubic"])
    def test_when_asked_the_nearest_and_flagged(self, method: Method) -> None:
        interpolator = GridInterpolator(make_grid(), method, "nearest")
        found = interpolator.spectra(self.VALUES)
        edge = interpolator.spectra([[6600.0, 4.2, -0.3], [6650.0, 5.5, 0.5]])
        assert found.outside.tolist() == [False, True, True, True, False]
        assert np.array_equal(found.flux[1:3], edge.flux)
        assert np.isnan(found.flux[3]).all()  # NaN is near nothing

    def test_ends_in_single_precision_are_inside(self) -> None:
        """5.4 in single precision is 5.4000001."""
        axis = np.array([4.8, 5.1, 5.4])
        grid = Grid("g", (KNOWN_LABELS["logg"],), axis[:, None], np.arange(5000.0, 5002.0), "air", ArrayRows(np.ones((3, 2))))
        assert not GridInterpolator(grid).spectra(np.float32([[5.4], [4.8]])).outside.any()


class TestHoles:
    KEEP = ~((nodes_of(AXES[:3]) == [6900.0, 5.0, -1.0]).all(axis=1))

    def expected_hole(self, values: np.ndarray) -> np.ndarray:
        """Whether a label set needs the missing node: strictly within one step of it along every label."""
        near = [(values[:, 0] > 6800) & (values[:, 0] < 7000)]
        near += [(values[:, 1] > 4.5) & (values[:, 1] < 5.5), (values[:, 2] > -1.5) & (values[:, 2] < -0.5)]
        return np.asarray(np.logical_and.reduce(near))

    @pytest.mark.parametrize("method", ["linear", "cubic"])
    @pytest.mark.parametrize("n", [60, 4000])
    def test_only_spectra_that_need_the_missing_node_are_refused(self, method: Method, n: int) -> None:
        values = labels(n, seed=8)
        interpolator = GridInterpolator(make_grid(keep=self.KEEP), method)
        found = interpolator.spectra(values)
        assert self.expected_hole(values).any()
        assert np.array_equal(found.hole, self.expected_hole(values))
        assert np.array_equal(np.isnan(found.flux).any(axis=1), found.hole)
        assert {interpolator.reasons(values, found)[row] for row in np.flatnonzero(found.hole)} == {"beside a hole of the grid"}

    def test_linear_numbers_elsewhere_are_those_without_the_hole(self) -> None:
        values = labels(4000, seed=8)
        found, whole = (GridInterpolator(grid).spectra(values) for grid in (make_grid(keep=self.KEEP), make_grid()))
        assert np.allclose(found.flux[found.usable], whole.flux[found.usable], rtol=1e-14)

    def test_a_neighbour_node_itself_is_there(self) -> None:
        neighbours = [[6900.0, 5.0, -1.5], [6900.0, 4.5, -1.0], [7000.0, 5.0, -1.0], [6900.0, 5.5, -0.75]]
        found = GridInterpolator(make_grid(keep=self.KEEP)).spectra([*neighbours, [6900.0, 5.0, -1.0]])
        assert found.hole.tolist() == [False, False, False, False, True]

    def test_cubic_beside_a_hole_is_still_exact_for_parabolas_where_three_nodes_are_left(self) -> None:
        """Along Teff the cells two steps from the hole lose one node of four; a parabola needs three."""
        nodes = nodes_of(AXES[:3])
        truth = (((nodes[:, 0] - 7000) / 300) ** 2 * (1 + nodes[:, 1]))[:, None] * np.ones(3)
        grid = make_grid(flux=truth, keep=self.KEEP)
        values = np.array([[6750.0, 5.0, -1.0], [7050.0, 5.0, -1.0]])
        found = GridInterpolator(grid, "cubic").spectra(values)
        assert np.allclose(found.flux[:, 0], ((values[:, 0] - 7000) / 300) ** 2 * 6.0, rtol=1e-12)

    def test_outside_and_a_hole(self) -> None:
        keep = ~((nodes_of(AXES[:3]) == [6600.0, 4.0, -2.0]).all(axis=1))
        interpolator = GridInterpolator(make_grid(keep=keep), outside="nearest")
        found = interpolator.spectra([[6500.0, 4.1, -1.9]])
        assert (found.outside[0], found.hole[0], found.usable[0]) == (True, True, False)
        assert interpolator.reasons([[6500.0, 4.1, -1.9]], found) == ["teff outside 6600 to 7400 and beside a hole of the grid"]


@dataclass(frozen=True, eq=False)
class WatchedRows(ArrayRows):
    """Notes how many spectra each reading asks for."""

    readings: list[int] = field(default_factory=list)

    def read(self, rows: np.ndarray, pixels: slice) -> np.ndarray:
        self.readings.append(len(rows))
        return super().read(rows, pixels)


class TestMemory:
    @pytest.mark.parametrize("method", ["linear", "cubic"])
    @pytest.mark.parametrize("spectra", [1, 70, 100])
    def test_a_small_budget_reads_few_spectra_at_a_time_and_changes_no_number(self, method: Method, spectra: int) -> None:
        grid, values = make_grid(rows=WatchedRows), labels(300)
        whole = GridInterpolator(make_grid(), method).spectra(values).flux
        found = GridInterpolator(grid, method, memory=spectra * 8 * N_PIXELS).spectra(values).flux
        assert np.allclose(found, whole, rtol=1e-13)
        one_cell = 8 if method == "linear" else 64
        assert max(grid.rows.readings) <= max(spectra, one_cell)  # type: ignore[attr-defined]
        assert len(grid.rows.readings) > 2  # type: ignore[attr-defined]

    def test_a_grid_that_fits_is_read_once(self) -> None:
        grid = make_grid(rows=WatchedRows)
        interpolator = GridInterpolator(grid)
        for seed in range(3):
            interpolator.spectra(labels(20, seed=seed))
        assert grid.rows.readings == [grid.n_spectra]  # type: ignore[attr-defined]
        interpolator.spectra(labels(20), slice(3, 9))
        assert grid.rows.readings == [grid.n_spectra] * 2  # type: ignore[attr-defined]

    def test_a_single_node_axis_is_a_fixed_label(self) -> None:
        nodes = np.array([[4000.0, 4.5], [4100.0, 4.5]])
        labels_ = (KNOWN_LABELS["teff"], KNOWN_LABELS["logg"])
        grid = Grid("g", labels_, nodes, np.arange(5000.0, 5002.0), "air", ArrayRows(np.array([[1.0, 1.0], [3.0, 3.0]])))
        for method in ("linear", "cubic"):
            found = GridInterpolator(grid, method).spectra([[4050.0, 4.5], [4050.0, 4.6]])
            assert found.flux[0].tolist() == [2.0, 2.0]
            assert found.outside.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "quintic"}, r"expected method linear or cubic, got 'quintic'"),
        ({"outside": "extrapolate"}, r"expected outside leave_out or nearest, got 'extrapolate'"),
    ],
)
def test_settings_that_do_not_exist(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        GridInterpolator(make_grid(), **change)


def test_labels_of_another_grid() -> None:
    with pytest.raises(UsageError, match=r"expected labels of shape \(n, 3\), got \(2,\); one column each for teff, logg, m_h"):
        GridInterpolator(make_grid()).spectra([6700.0, 4.5])


def test_scattered_points_are_refused_at_once() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform([4000, 4], [5000, 5], (40, 2))
    labels_ = (KNOWN_LABELS["teff"], KNOWN_LABELS["logg"])
    grid = Grid("points", labels_, values, np.arange(5000.0, 5002.0), "air", ArrayRows(np.ones((40, 2))))
    with pytest.raises(UsageError, match=r"points: expected a regular lattice, got 40 points"):
        GridInterpolator(grid)
