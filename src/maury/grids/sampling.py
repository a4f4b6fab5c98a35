"""Which labels a training set is made for: lattices, uniform and Sobol points, thinned by a constraint.

A sampler offers candidates in blocks, always the same ones for the same settings; :func:`sample` keeps those that a constraint
(:mod:`maury.grids.constraints`) allows. Points of a lattice are all judged; random samplers go on until they have enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]

_BLOCK = 4096  # a power of two: Sobol points are balanced in such numbers
_MOST_BLOCKS = 4096  # 16.8 million candidates: a constraint that keeps next to nothing must end some day


class Constraint(Protocol):
    """Which label sets are stars."""

    def keeps(self, names: Sequence[str], values: FloatArray) -> NDArray[np.bool_]:
        """(n,) of (n, K) values, whose columns are called ``names``."""
        ...


class Sampler(Protocol):
    """Label sets in a fixed order."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def wanted(self) -> int | None:
        """How many label sets there shall be; None: all that are offered."""
        ...

    def blocks(self) -> Iterator[FloatArray]:
        """Candidates, (m, K) at a time."""
        ...


@dataclass(frozen=True)
class WithConstants:
    """A constraint on label sets of which some labels are not sampled but have one value.

    Parameters
    ----------
    constraint : sees those labels as columns behind the others.
    constants : label -> value.
    """

    constraint: Constraint
    constants: Mapping[str, float]

    def keeps(self, names: Sequence[str], values: FloatArray) -> NDArray[np.bool_]:
        return self.constraint.keeps((*names, *self.constants), with_constants(values, self.constants))


def with_constants(values: FloatArray, constants: Mapping[str, float]) -> FloatArray:
    """(n, K + k) the values of (n, K) label sets with k constant labels as columns behind them."""
    columns = np.broadcast_to(np.array(list(constants.values()), dtype=np.float64), (len(values), len(constants)))
    return np.column_stack([values, columns])


def sample(sampler: Sampler, constraint: Constraint | None = None) -> FloatArray:
    """(n, K) the label sets of a sampler that the constraint keeps, in the sampler's order.

    Raises
    ------
    UsageError
        If the constraint keeps none, or too few of very many.
    """
    kept: list[FloatArray] = []
    n_kept = n_seen = 0
    for number, block in enumerate(sampler.blocks()):
        good = block if constraint is None else block[constraint.keeps(sampler.names, block)]
        kept.append(good)
        n_kept, n_seen = n_kept + len(good), n_seen + len(block)
        if sampler.wanted is not None and (n_kept >= sampler.wanted or number + 1 >= _MOST_BLOCKS):
            break
    if n_kept == 0 or (sampler.wanted is not None and n_kept < sampler.wanted):
        raise UsageError(
            f"expected {sampler.wanted or 'some'} label sets that the constraint keeps, got {n_kept} of {n_seen}; widen the "
            "constraint or move the ranges"
        )
    return np.concatenate(kept)[: sampler.wanted]


@dataclass(frozen=True)
class Lattice:
    """All combinations of the values of each label; the last label changes fastest.

    Parameters
    ----------
    axes : label -> its values. Put labels that the grid does not have (``vsini``) last: their neighbours then share one model
        spectrum, which is interpolated once.

    Examples
    --------
    >>> len(Lattice({"teff": (3000.0, 3100.0), "vsini": steps([(1.5, 3.0, 0.5), (3.0, 6.0, 1.0)])}))
    14
    """

    axes: Mapping[str, tuple[float, ...]]

    wanted: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not self.axes:
            raise UsageError("expected at least one label for a lattice, got none; give axes")
        for name, values in self.axes.items():
            if not values or not np.isfinite(values).all() or len(set(values)) != len(values):
                raise UsageError(f"expected different finite values of {name} for a lattice, got {list(values)}; correct them")

    def __len__(self) -> int:
        return int(np.prod([len(values) for values in self.axes.values()]))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    def blocks(self) -> Iterator[FloatArray]:
        shape = tuple(len(values) for values in self.axes.values())
        columns = [np.asarray(values, dtype=np.float64) for values in self.axes.values()]
        for start in range(0, len(self), _BLOCK):
            places = np.unravel_index(np.arange(start, min(start + _BLOCK, len(self))), shape)
            yield np.column_stack([column[place] for column, place in zip(columns, places, strict=True)])


def steps(segments: Sequence[tuple[float, float, float]]) -> tuple[float, ...]:
    """Values from segments (first, last, step), both ends included; a value at which two segments meet counts once.

    Raises
    ------
    UsageError
        If a step is not positive or does not lead to the segment's end.
    """
    values: list[float] = []
    for first, last, step in segments:
        n = (last - first) / step if step > 0 else -1.0
        if not (np.isfinite(n) and n >= 0 and abs(n - round(n)) < 1e-6):
            raise UsageError(f"expected (first, last, step) with whole steps between, got ({first:g}, {last:g}, {step:g})")
        # decimals as people write them: 4.2 + 13 * 0.1 is 5.5, not 5.500000000000001
        values += [round(first + i * step, 9) for i in range(round(n) + 1)]
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class _Box:
    """What random samplers are told."""

    ranges: Mapping[str, tuple[float, float]]
    wanted: int
    seed: int = 0
    logarithmic: tuple[str, ...] = ()
    square_root: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_ranges(self.ranges, self.wanted, self.logarithmic, self.square_root)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.ranges)

    def _stretched(self, unit: FloatArray) -> FloatArray:
        """(n, K) points of the unit cube -> label units."""
        columns = []
        for x, (name, (low, high)) in zip(unit.T, self.ranges.items(), strict=True):
            place = x**2 if name in self.square_root else x
            columns.append(low * (high / low) ** x if name in self.logarithmic else low + (high - low) * place)
        return np.column_stack(columns)


class Uniform(_Box):
    """Independent uniform random points.

    Parameters
    ----------
    ranges : label -> (low, high).
    wanted : how many.
    seed : of the random numbers.
    logarithmic : labels that are uniform in their logarithm.
    square_root : labels that are uniform in the square root of what they exceed the range's low end by: denser there, as v sin i
        should be, whose lines change most where they are narrow; unlike the logarithm it allows 0.
    """

    def blocks(self) -> Iterator[FloatArray]:
        random = np.random.default_rng(self.seed)
        while True:
            yield self._stretched(random.random((_BLOCK, len(self.ranges))))


class Sobol(_Box):
    """Points of a scrambled Sobol sequence (Owen 1998), which fill a box more evenly than random ones.

    Parameters
    ----------
    ranges, wanted, seed, logarithmic, square_root : as for :class:`Uniform`. Numbers of points that are powers of two are
        balanced best.
    """

    def blocks(self) -> Iterator[FloatArray]:
        from scipy.stats import qmc

        engine = qmc.Sobol(len(self.ranges), scramble=True, seed=np.random.default_rng(self.seed))
        while True:
            yield self._stretched(engine.random(_BLOCK))


def _check_ranges(
    ranges: Mapping[str, tuple[float, float]], wanted: int, logarithmic: tuple[str, ...], square_root: tuple[str, ...]
) -> None:
    if not ranges or wanted < 1:
        raise UsageError(f"expected ranges of labels and at least one point, got {len(ranges)} ranges and {wanted} points")
    for word, chosen in (("logarithmic", logarithmic), ("square_root", square_root)):
        unknown = [name for name in chosen if name not in ranges]
        if unknown:
            raise UsageError(f"expected {word} labels among {', '.join(ranges)}, got {', '.join(unknown)}; correct the name")
    both = [name for name in logarithmic if name in square_root]
    if both:
        raise UsageError(f"expected {both[0]} in one of logarithmic and square_root, got both; remove it from one")
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise UsageError(f"expected the range of {name} as (low, high), got ({low:g}, {high:g}); swap or correct them")
        if name in logarithmic and not low > 0:
            raise UsageError(f"expected a positive range of {name}, which is sampled in its logarithm, got {low:g}; raise it")
