"""A prior on the labels: where in label space the training stars lie. An option, off by default.

Stars do not fill the box of Teff, log g and [Fe/H]: giants and dwarfs lie on sequences. Where a spectrum hardly tells log g, a
mixture of Gaussians fitted to the training labels does (MILES, cross-validation: log g scatter 0.22 -> 0.20 dex). One broad
component keeps a share of the box open, so a star that is like none of them can still say so. The price: labels are pulled
towards the training stars by as much as their spectra leave open, and errors are those of the posterior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.fit.chi2 import Evaluation, ExactProblem, Problem
from maury.labels import Label, LabelSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ITERATIONS = 200
_FREE = 1e-6  # precision of what a relation leaves free, in scaled labels: as good as none
_SMALLEST_VARIANCE = 0.02  # in scaled labels: a component narrower than 0.14 would follow single stars


@dataclass(frozen=True, eq=False)
class LabelPrior:
    """Mixture of Gaussians over scaled labels.

    Parameters
    ----------
    weights : (m,) shares, sum 1.
    means : (m, K); precisions : (m, K, K) inverse covariances.
    """

    weights: FloatArray
    means: FloatArray
    precisions: FloatArray

    @classmethod
    def from_training(cls, labels: LabelSet, values: ArrayLike, n_components: int = 6, broad: float = 0.05) -> LabelPrior:
        """Fit the mixture to (n, K) training labels by expectation-maximisation from a fixed start.

        Parameters
        ----------
        n_components : Gaussians fitted.
        broad : share of one more Gaussian, twice as wide as the whole training set.

        Raises
        ------
        UsageError
            If there are fewer than ten stars per component, or ``broad`` is not between 0 and 1.
        """
        scaled = labels.scale(values)
        if n_components < 1 or len(scaled) < 10 * n_components:
            raise UsageError(
                f"expected 1 to {len(scaled) // 10} components for {len(scaled)} stars, got {n_components}; lower it"
            )
        if not 0 < broad < 1:
            raise UsageError(f"expected a share of the broad component between 0 and 1, got {broad}")
        weights, means, covariances = _expectation_maximisation(scaled, n_components)
        whole = np.diag(4.0 * scaled.var(axis=0))
        return cls(
            np.append((1.0 - broad) * weights, broad),
            np.vstack([means, scaled.mean(axis=0)]),
            np.linalg.inv(np.concatenate([covariances, whole[None]])),
        )

    @classmethod
    def from_relation(
        cls, labels: LabelSet, label: str, at: Mapping[str, float], slopes: Mapping[str, float], sigma: float
    ) -> LabelPrior:
        """One label as a function of others, with a scatter: a Gaussian that leaves all else free.

        The relation is linear in the labels' coordinates: of a label whose coordinate is 5040/x it is linear in 1/x, with the
        slope given at ``at``.

        Parameters
        ----------
        label : the one that is known from the others.
        at : value of each label of the relation, ``label`` among them, at a point of it, label units.
        slopes : change of ``label`` per unit of each other label, at that point.
        sigma : one standard deviation about the relation, in the unit of ``label``.

        Raises
        ------
        UsageError
            As :func:`check_relation`.
        """
        check_relation(labels.labels, label, at, slopes, sigma)
        point = 0.5 * (np.array(labels.lower) + np.array(labels.upper))
        direction = np.zeros(len(labels))
        for name, value in at.items():
            point[labels.index(name)] = value
        for name, slope in {**slopes, label: -1.0}.items():
            direction[labels.index(name)] = slope
        mean = labels.scale(point[None])
        across = direction * labels.unscale_slope(mean)[0] / sigma
        return cls(np.ones(1), mean, (np.outer(across, across) + _FREE * np.eye(len(labels)))[None])

    def expected(self, scaled: FloatArray, k: int) -> tuple[FloatArray, float]:
        """(n,) scaled label k that the first component expects from the others of (n, K), and one standard deviation of it."""
        precision = self.precisions[0]
        pull = (scaled - self.means[0]) @ precision[k] - precision[k, k] * (scaled[:, k] - self.means[0, k])
        return self.means[0, k] - pull / precision[k, k], float(precision[k, k] ** -0.5)

    def evaluate(self, scaled: FloatArray) -> Evaluation:
        """-2 ln density, its half gradient and a positive half Hessian (that of the responsible components)."""
        log_terms, offset = self._log_terms(scaled)
        top = log_terms.max(axis=1, keepdims=True)
        total = np.exp(log_terms - top).sum(axis=1, keepdims=True)
        share = np.exp(log_terms - top) / total
        pull = np.einsum("mij,nmj->nmi", self.precisions, offset)
        density = -2.0 * (top + np.log(total))[:, 0]
        return Evaluation(density, np.einsum("nm,nmi->ni", share, pull), np.einsum("nm,mij->nij", share, self.precisions))

    def _log_terms(self, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
        offset = scaled[:, None, :] - self.means
        distance = np.einsum("nmi,mij,nmj->nm", offset, self.precisions, offset, optimize=True)
        norm = np.log(self.weights) + 0.5 * np.linalg.slogdet(self.precisions)[1]
        return norm - 0.5 * distance, offset

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file."""
        return {"weights": self.weights.tolist(), "means": self.means.tolist(), "precisions": self.precisions.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LabelPrior:
        """Inverse of :meth:`to_config`."""
        return cls(np.array(config["weights"]), np.array(config["means"]), np.array(config["precisions"]))


def check_relation(
    labels: Sequence[Label], label: str, at: Mapping[str, float], slopes: Mapping[str, float], sigma: float
) -> None:
    """Raise UsageError if a label of a relation is unknown or has no value at the point, or a number is impossible."""
    coordinates = {known.name: known.coordinate for known in labels}
    named = label in at and label not in slopes and set(slopes) <= set(at) <= set(coordinates)
    possible = sigma > 0 and np.isfinite([sigma, *at.values(), *slopes.values()]).all()
    if not (named and possible and all(value > 0 or coordinates[name] == "linear" for name, value in at.items())):
        raise UsageError(
            f"expected a relation of {label} among {', '.join(coordinates)} with sigma > 0 and a value of each of its labels, "
            f"positive where the coordinate is not linear, got at {dict(at)}, slopes {dict(slopes)} and sigma {sigma:g}; correct "
            "it"
        )


class PriorProblem:
    """A problem with the prior's -2 ln density added to its chi-square; labels beyond the prior's (a velocity) are free."""

    def __init__(self, problem: Problem, prior: LabelPrior) -> None:
        self.problem, self.prior = problem, prior
        self.n_stars, self.n_labels = problem.n_stars, problem.n_labels

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        return np.asarray(self.problem.chi2(star, scaled) + self._prior(scaled).chi2)

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        return self._add(self.problem.evaluate(star, scaled), scaled)

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        return np.asarray(self.problem.chi2_table(scaled) + self._prior(scaled).chi2)

    def _add(self, data: Evaluation, scaled: FloatArray) -> Evaluation:
        prior, k = self._prior(scaled), self.prior.means.shape[1]
        gradient, hessian = data.gradient.copy(), data.hessian.copy()
        gradient[:, :k] += prior.gradient
        hessian[:, :k, :k] += prior.hessian
        return Evaluation(data.chi2 + prior.chi2, gradient, hessian)

    def _prior(self, scaled: FloatArray) -> Evaluation:
        return self.prior.evaluate(scaled[:, : self.prior.means.shape[1]])


class ExactPriorProblem(PriorProblem):
    """The same for a problem that is stepped through approximately."""

    problem: ExactProblem

    def exact(self, star: IntArray, scaled: FloatArray, hessian: FloatArray | None = None) -> Evaluation:
        total = self._add(self.problem.exact(star, scaled, hessian), scaled)
        return total if hessian is None else replace(total, hessian=hessian)  # the one given holds the prior already


def with_prior(problem: Problem, prior: LabelPrior | None) -> Problem:
    """The problem, with the prior if there is one."""
    if prior is None:
        return problem
    return ExactPriorProblem(problem, prior) if isinstance(problem, ExactProblem) else PriorProblem(problem, prior)


def _expectation_maximisation(scaled: FloatArray, m: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(m,) weights, (m, K) means and (m, K, K) covariances; starts at quantiles along the first principal axis."""
    k = scaled.shape[1]
    centred = scaled - scaled.mean(axis=0)
    order = np.argsort(centred @ np.linalg.svd(centred, full_matrices=False)[2][0], kind="stable")
    groups = np.array_split(order, m)
    means = np.stack([scaled[g].mean(axis=0) for g in groups])
    floor = _SMALLEST_VARIANCE * np.eye(k)
    covariances = np.stack([np.atleast_2d(np.cov(scaled[g].T)) + floor for g in groups])
    weights = np.full(m, 1.0 / m)
    for _ in range(_ITERATIONS):
        log_terms, _ = LabelPrior(weights, means, np.asarray(np.linalg.inv(covariances), np.float64))._log_terms(scaled)
        share = np.exp(log_terms - log_terms.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        count = share.sum(axis=0) + 1e-9
        weights, means = count / count.sum(), share.T @ scaled / count[:, None]
        offset = scaled[:, None, :] - means
        covariances = np.einsum("nm,nmi,nmj->mij", share, offset, offset, optimize=True) / count[:, None, None] + floor
    return weights, means, covariances
