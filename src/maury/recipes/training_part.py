"""The stars of one training, and what both methods do with them alike: the covariance from held-out residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.assess.metrics import robust_std
from maury.emulate.covariance import low_rank_covariance
from maury.protocols import ModelCovariance
from maury.recipes.dataset import TrainingSet
from maury.recipes.schema import Recipe
from maury.spectra import Spectra
from maury.train.splits import k_folds

if TYPE_CHECKING:
    from maury.fit.inferrer import ModelInferrer
    from maury.regress.latent_training import LatentTraining
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
HeldOutFit = Callable[[ModelCovariance], FloatArray]
"""(covariance) -> (n, K) labels of every star from models that did not see it, fitted with that covariance."""

_STARS_PER_FACTOR = 3  # a residual direction needs a few stars to be known; small training sets get fewer factors
_INNER_SEED = 20200101  # of the folds inside a training; the outer folds have the recipe's own seed


@dataclass(frozen=True)
class FluxError:
    """How far an emulator is from the flux of spectra that it was not trained on, over all their pixels.

    Parameters
    ----------
    n_spectra : how many.
    median, percentile_99 : of the absolute error, in units of the flux.
    """

    n_spectra: int
    median: float
    percentile_99: float

    @classmethod
    def of(cls, residuals: FloatArray) -> FluxError | None:
        """From (n, n_pixels) flux minus prediction; rows with NaN, spectra that were trained on, are left out."""
        unseen = residuals[np.isfinite(residuals).all(axis=1)]
        if len(unseen) == 0:
            return None
        median, high = np.quantile(np.abs(unseen), (0.5, 0.99))
        return cls(len(unseen), float(median), float(high))


@dataclass(frozen=True, eq=False)
class Trained:
    """What one training gives.

    Parameters
    ----------
    inferrer : trained.
    histories : losses by epoch of each network; none of The Cannon, which is solved.
    flux_error : of an emulator, on spectra that it did not train on; None where there are none.
    transfer : what autoencoders were before and after they were carried over to observed spectra; None for other methods.
    """

    inferrer: ModelInferrer
    histories: dict[str, History]
    flux_error: FluxError | None = None
    transfer: LatentTraining | None = None


@dataclass(frozen=True, eq=False)
class TrainingPart:
    """The stars of one training.

    Parameters
    ----------
    recipe : the whole recipe.
    spectra, values : prepared spectra and (n, K) labels, label units.
    errors : (n, K) of the labels where the recipe uses them, or None.
    weights : (n,) of the stars by the recipe's parts, or None.
    groups : (n,) star names, or None where every spectrum is a star of its own.
    from_files : (n,) whether it was observed, rather than taken from a library or a build.
    observed : spectra without labels that a transfer learns from, or None.
    """

    recipe: Recipe
    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None
    weights: FloatArray | None
    groups: tuple[str, ...] | None
    from_files: NDArray[np.bool_]
    observed: Spectra | None

    @classmethod
    def of(cls, recipe: Recipe, training_set: TrainingSet, stars: IntArray) -> TrainingPart:
        """The stars of these indices."""

        def chosen(array: FloatArray | None) -> FloatArray | None:
            return None if array is None else array[stars]

        return cls(
            recipe,
            training_set.spectra[stars],
            training_set.values[stars],
            chosen(training_set.errors) if recipe.train.label_errors else None,
            chosen(training_set.weights),
            None if training_set.stars is None else tuple(training_set.stars[i] for i in stars),
            training_set.from_files[stars],
            training_set.observed,
        )

    def __len__(self) -> int:
        return len(self.spectra)

    def folds(self) -> list[IntArray]:
        """Inner folds, by star."""
        return k_folds(len(self), self.recipe.train.covariance.folds, _INNER_SEED, self.groups)

    def times(self, weights: FloatArray | None) -> FloatArray | None:
        """Star weights times those of the recipe's parts; None where all stars are alike."""
        if weights is None or self.weights is None:
            return self.weights if weights is None else weights
        return weights * self.weights

    def covariance(self, residuals: FloatArray, weights: FloatArray | None, fit: HeldOutFit) -> ModelCovariance:
        """The covariance that the recipe asks for, from (n, n_pixels) residuals of unseen stars; NaN rows have none.

        ``fit`` is called only where the recipe leaves the inflation to cross-validation.
        """
        recipe = self.recipe.train.covariance
        seen = np.isfinite(residuals).all(axis=1)
        star = None if weights is None else weights[seen]
        effective = int(seen.sum()) if star is None else int(star.sum() ** 2 / (star**2).sum())
        rank = min(recipe.rank, effective // _STARS_PER_FACTOR)

        def candidate(inflation: float) -> ModelCovariance:
            return low_rank_covariance(
                residuals[seen], self.spectra.ivar[seen], rank, star_weights=star, inflation=inflation, clip=recipe.clip
            )

        candidates = (recipe.inflation,) if isinstance(recipe.inflation, float) else recipe.inflations
        if len(candidates) == 1:
            return candidate(candidates[0])
        scores = {c: self._label_score(fit(candidate(c))) for c in candidates}
        return candidate(min(scores, key=scores.__getitem__))

    def _label_score(self, estimated: FloatArray) -> float:
        """Sum over labels of ln(robust scatter) in the ranges that the recipe reports: lower is better."""
        from maury.recipes.training import reported_stars

        inside = reported_stars(self.recipe, self.values) & np.isfinite(estimated).all(axis=1)
        n_labels = self.values.shape[1]
        residual = estimated[:, :n_labels] - self.values
        return float(sum(np.log(robust_std(residual[inside, k])) for k in range(n_labels)))
