"""Batched Levenberg-Marquardt with bounds: many stars and many starts step together.

Each row (a star at a start) has its own damping; rows that are done leave the batch. Bounds are kept by projection: a
label at a bound whose gradient points outward is held there for the step. Rows end CONVERGED when a step promises less
than ``tolerance`` in chi-square, a test that does not depend on units (a step length would).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.emulate.batched import Cholesky
from maury.fit.chi2 import Evaluation, ExactProblem, Problem, joined

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FAR = 1.0  # a step that promises more in chi-square than this, one error, is given a new Hessian
_FREE = 0.1  # damping below this hardly shortens a step
_SAME = 2.0  # in chi-square: rows of one star whose steps end closer than this to each other go to the same minimum
_ROUNDING = 1e-10  # of chi-square: a badly fitting star can not know its minimum better, and must not be busy for ever


@dataclass(frozen=True)
class LmSettings:
    """Settings of the optimiser.

    Parameters
    ----------
    max_iterations : accepted or rejected steps per row.
    tolerance : a row has converged when the predicted decrease of chi-square falls below it. 1e-6 moves a label by a
        thousandth of its error.
    initial_damping : relative to the Hessian's diagonal.
    exact_tolerance : the same as ``tolerance`` for the last steps of problems that are stepped through approximately
        (:func:`refine`): 1e-3 is a thirtieth of an error.
    """

    max_iterations: int = 60
    tolerance: float = 1e-6
    initial_damping: float = 1e-3
    exact_tolerance: float = 1e-3


@dataclass(frozen=True, eq=False)
class LmResult:
    """End points of all rows: scaled labels (m, K), chi2 (m,), half Hessian (m, K, K), converged (m,), at_bound (m, K)."""

    scaled: FloatArray
    chi2: FloatArray
    hessian: FloatArray
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]

    def take(self, rows: IntArray) -> LmResult:
        """Some of the rows."""
        return LmResult(self.scaled[rows], self.chi2[rows], self.hessian[rows], self.converged[rows], self.at_bound[rows])

    def only(self, rows: IntArray, ends: LmResult) -> LmResult:
        """Other ends for some rows; the remaining rows are out of the running, with infinite chi-square."""
        out = LmResult(
            self.scaled.copy(), np.full_like(self.chi2, np.inf), self.hessian.copy(), self.converged.copy(), self.at_bound.copy()
        )
        for name in ("scaled", "chi2", "hessian", "converged", "at_bound"):
            getattr(out, name)[rows] = getattr(ends, name)
        return out


def minimise(
    problem: Problem,
    star: IntArray,
    start: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    settings: LmSettings,
) -> LmResult:
    """Minimise the problem from (m, K) starts for (m,) stars within (K,) bounds, all in scaled labels."""
    x = np.clip(start, lower, upper)
    m = len(x)
    state = problem.evaluate(star, x)
    chi2, gradient, hessian = state.chi2.copy(), state.gradient.copy(), state.hessian.copy()
    damping = np.full(m, settings.initial_damping)
    growth = np.full(m, 2.0)
    converged = np.zeros(m, dtype=bool)
    follows = np.arange(m)
    alive = np.flatnonzero(np.isfinite(chi2))
    rough = isinstance(problem, ExactProblem)
    for _ in range(settings.max_iterations):
        if alive.size == 0:
            break
        step, predicted = _step(x[alive], gradient[alive], hessian[alive], damping[alive], lower, upper)
        trial = np.clip(x[alive] + step, lower, upper)
        if rough:  # refine takes it from there: the last step is taken, not looked at
            done = predicted < np.where(damping[alive] < _FREE, _FAR, settings.exact_tolerance)
            x[alive[done]], chi2[alive[done]] = trial[done], chi2[alive[done]] - predicted[done]
        else:
            done = predicted < settings.tolerance + _ROUNDING * np.abs(chi2[alive])
        converged[alive[done]] = True
        keep = ~done & ~_joining(alive, star[alive], trial, hessian, follows)
        alive, trial, predicted = alive[keep], trial[keep], predicted[keep]
        if alive.size == 0:
            break
        new = problem.evaluate(star[alive], trial)
        gain = (chi2[alive] - new.chi2) / predicted
        accept = np.isfinite(new.chi2) & (gain > 1e-4)
        _accept(accept, alive, trial, new, x, chi2, gradient, hessian)
        # Nielsen's update: damping falls smoothly with the gain of a good step and grows ever faster after bad ones
        shrink = np.maximum(1.0 / 3.0, 1.0 - (2.0 * np.clip(gain, -1.0, 2.0) - 1.0) ** 3)
        damping[alive] = np.where(accept, np.maximum(damping[alive] * shrink, 1e-12), damping[alive] * growth[alive])
        growth[alive] = np.where(accept, 2.0, growth[alive] * 2.0)
        stuck = damping[alive] > 1e12
        alive = alive[~stuck]
    while (follows != follows[follows]).any():
        follows = follows[follows]
    x, converged = x[follows], converged[follows]
    return LmResult(x, chi2[follows], hessian[follows], converged, (x <= lower) | (x >= upper))


def _joining(alive: IntArray, star: IntArray, trial: FloatArray, hessian: FloatArray, follows: IntArray) -> NDArray[np.bool_]:
    """Which alive rows leave, because their step ends where that of another row of the same star does.

    To a part of an error, that is; from there on they would take the same way. ``follows`` notes whose end is theirs.
    """
    _, first, inverse = np.unique(star, return_index=True, return_inverse=True)
    leader = first[inverse]
    apart = trial - trial[leader]
    distance = np.einsum("mk,mk->m", apart, np.matmul(hessian[alive[leader]], apart[:, :, None])[:, :, 0])
    joins = (leader != np.arange(len(alive))) & (distance < _SAME)  # the leader may be one that has ended in this very step
    follows[alive[joins]] = alive[leader[joins]]
    return np.asarray(joins)


def refine(
    problem: ExactProblem, result: LmResult, star: IntArray, lower: FloatArray, upper: FloatArray, settings: LmSettings
) -> LmResult:
    """Rows of (m,) stars brought from the minimum of an approximate chi-square to that of the exact one.

    Gauss-Newton steps with damping, all rows together; a row that gains less than ``exact_tolerance`` is done. The first step is
    taken with the Hessian that comes along; the one returned is formed where it leads, less than one error from the end.
    """
    x = result.scaled.copy()
    every = np.flatnonzero(np.isfinite(result.chi2))
    chi2, hessian, converged = result.chi2.copy(), result.hessian.copy(), result.converged.copy()
    if every.size == 0:
        return result
    state = problem.exact(star[every], x[every], hessian[every])
    gradient, formed = np.zeros_like(x), np.zeros(len(x), dtype=bool)
    chi2[every], gradient[every] = state.chi2, state.gradient
    damping, alive = np.zeros(len(x)), every
    for _ in range(settings.max_iterations):
        step, predicted = _step(x[alive], gradient[alive], hessian[alive], damping[alive], lower, upper)
        going = predicted >= settings.exact_tolerance + _ROUNDING * np.abs(chi2[alive])
        converged[alive[~going]] = True
        alive, step = alive[going], step[going]
        if alive.size == 0:
            break
        trial = np.clip(x[alive] + step, lower, upper)
        anew = ~formed[alive] | (predicted[going] > _FAR)
        new = _exact(problem, star[alive], trial, hessian[alive], anew)
        accept = new.chi2 < chi2[alive]
        formed[alive[accept & anew]] = True
        _accept(accept, alive, trial, new, x, chi2, gradient, hessian)
        damping[alive] = np.where(accept, 0.3 * damping[alive], np.maximum(10.0 * damping[alive], 1e-2))
        alive = alive[damping[alive] < 1e6]
    rest = every[~formed[every]]  # rows that were at their end at once
    if rest.size:
        hessian[rest] = problem.exact(star[rest], x[rest]).hessian
    return LmResult(x, chi2, hessian, converged, (x <= lower) | (x >= upper))


def _exact(problem: ExactProblem, star: IntArray, scaled: FloatArray, hessian: FloatArray, anew: NDArray[np.bool_]) -> Evaluation:
    """Exact chi-square and gradient; the Hessian is formed only for some of the rows."""
    if anew.all():
        return problem.exact(star, scaled)
    if not anew.any():
        return problem.exact(star, scaled, hessian)
    parts = joined([problem.exact(star[anew], scaled[anew]), problem.exact(star[~anew], scaled[~anew], hessian[~anew])])
    order = np.argsort(np.concatenate([np.flatnonzero(anew), np.flatnonzero(~anew)]))
    return Evaluation(parts.chi2[order], parts.gradient[order], parts.hessian[order])


def _accept(
    accept: NDArray[np.bool_],
    alive: IntArray,
    trial: FloatArray,
    new: Evaluation,
    x: FloatArray,
    chi2: FloatArray,
    gradient: FloatArray,
    hessian: FloatArray,
) -> None:
    rows = alive[accept]
    x[rows] = trial[accept]
    chi2[rows] = new.chi2[accept]
    gradient[rows] = new.gradient[accept]
    hessian[rows] = new.hessian[accept]


def _step(
    x: FloatArray, gradient: FloatArray, hessian: FloatArray, damping: FloatArray, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Damped Gauss-Newton step (m, K) of the free labels, and the decrease of chi-square (m,) it promises."""
    n_labels = x.shape[1]
    diagonal = np.einsum("mkk->mk", hessian)
    scale = np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300)
    held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
    free = ~held
    # pixel-last layout of maury.emulate.batched, here with the rows last: one call for all of them
    matrix = np.ascontiguousarray((hessian * (free[:, :, None] & free[:, None, :])).transpose(1, 2, 0))
    index = np.arange(n_labels)
    matrix[index, index] = np.where(free, diagonal + damping[:, None] * scale, 1.0).T
    right = np.ascontiguousarray(np.where(free, -gradient, 0.0).T)
    unbounded = Cholesky(matrix).solve(right).T
    step: FloatArray = np.clip(x + unbounded, lower, upper) - x  # what is left of it inside the box
    curvature = np.einsum("mk,mk->m", step, np.einsum("mkl,ml->mk", hessian, step))
    predicted = -2.0 * np.einsum("mk,mk->m", step, gradient) - curvature
    # clipping can spoil the prediction of a long step: fall back on the gradient part, which stays positive
    fallback = np.abs(np.einsum("mk,mk->m", step, gradient))
    return step, np.asarray(np.where(predicted > 0, predicted, fallback))
