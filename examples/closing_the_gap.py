"""Ways to carry networks from synthetic to LAMOST spectra, five seeds each, judged by LASP's labels, which none of them sees.

    python examples/closing_the_gap.py --data data

All are the recipe ``lamost-red-transfer`` with other settings: the same library, the same observed spectra, one autoencoder
each. Prints bias (median) and robust scatter of estimate - LASP by way: mean over the seeds, and the standard
deviation of one seed's result; then a row for all seeds' autoencoders of the way, which vote together.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maury.assess.metrics import robust_std
from maury.recipes import load_recipe, parse_recipe
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.parts import LoadedPart, load_part
from maury.recipes.schema import Recipe
from maury.recipes.training import Trainer
from maury.regress.ensemble import EnsembleInferrer

ALONE: dict[str, Any] = {"method": "none", "population": 0}
FROZEN = ["weights.0", "biases.0"]
WAYS: dict[str, dict[str, Any]] = {
    "none; white noise": {"transfer": ALONE, "noise": "observed"},
    "none; residuals": {"transfer": ALONE},
    "none; residuals, population": {"transfer": {"method": "none"}},
    "published; white noise": {"transfer": {"population": 0}, "noise": "observed"},
    "published, old latents; white": {"transfer": {"population": 0}, "noise": "observed", "latents": "pretrained"},
    "published; residuals": {"transfer": {"population": 0}},
    "published; residuals, population": {},
    "CORAL; white noise": {"transfer": {"method": "coral", "weight": 3.0, "population": 0, "frozen": []}, "noise": "observed"},
    "CORAL; residuals, population": {"transfer": {"method": "coral", "weight": 3.0, "frozen": []}},
    "MMD; residuals, population": {"transfer": {"method": "mmd", "weight": 0.3, "frozen": []}},
    "adversarial; residuals, population": {"transfer": {"method": "adversarial", "weight": 0.03, "frozen": []}},
}
"""What is changed of ``[train.latent]``: transfer; noise of synthetic spectra; whether these are drawn like observed stars."""


@dataclass(frozen=True)
class Result:
    """Bias and scatter of each label for each seed, (n_seeds, K), those of all seeds' networks together, (K,), and seconds."""

    bias: np.ndarray
    scatter: np.ndarray
    together: tuple[np.ndarray, np.ndarray]
    seconds: float


def judged(recipe: Recipe, training_set: TrainingSet, test: LoadedPart, seeds: range) -> Result:
    """Train with each seed and compare with the labels of the test."""
    found, began = [], time.monotonic()
    ensembles = []
    for seed in seeds:
        content = recipe.model_dump(mode="json", exclude_unset=True)
        content["train"]["latent"]["seed"] = seed
        one = parse_recipe(content, "example")
        inferrer = Trainer(one, training_set).train(np.arange(len(training_set)))
        assert isinstance(inferrer, EnsembleInferrer)
        ensembles.append(inferrer)
        found.append(inferrer.infer(test.spectra).values - test.values)
    voting = EnsembleInferrer.of(
        ensembles[0].wavelength,
        tuple(stack for ensemble in ensembles for stack in ensemble.networks),
        tuple(names for ensemble in ensembles for names in ensemble.names),
    )
    together = voting.infer(test.spectra).values - test.values
    scatter = np.array([[robust_std(column) for column in residual.T] for residual in found])
    of_all = np.median(together, axis=0), np.array([robust_std(column) for column in together.T])
    return Result(np.median(np.array(found), axis=1), scatter, of_all, (time.monotonic() - began) / len(seeds))


def changed(recipe: Recipe, change: dict[str, Any]) -> Recipe:
    """The recipe with one autoencoder and the settings of a way."""
    content = recipe.model_dump(mode="json", exclude_unset=True)
    latent = content["train"].setdefault("latent", {})
    latent |= {"autoencoders": 1, **change}
    return parse_recipe(content, "example")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="some of them alone")
    asked = parser.parse_args()
    recipe = load_recipe("lamost-red-transfer")
    assert recipe.test is not None
    training_set = load_training_set(recipe, asked.data)
    test = load_part(recipe, recipe.test, asked.data)
    names = [label.name for label in recipe.labels]
    print(
        f"{len(training_set)} synthetic spectra, {len(training_set.observed or ())} observed; judged by {len(test.spectra)} stars"
    )
    print(f"{'':35s} {'seconds':>7s}  " + "  ".join(f"{'bias ' + name:>16s} {'scatter':>12s}" for name in names))
    for way in asked.ways:
        result = judged(changed(recipe, WAYS[way]), training_set, test, range(asked.seeds))
        cells = []
        for k, name in enumerate(names):
            digits = 0 if name == "teff" else 2
            columns = (result.bias[:, k], result.scatter[:, k])
            bias, spread = (f"{x.mean():.{digits}f} +- {x.std(ddof=min(1, len(x) - 1)):.{digits}f}" for x in columns)
            cells.append(f"{bias:>16s} {spread:>12s}")
        print(f"{way:35s} {result.seconds:7.0f}  " + "  ".join(cells), flush=True)
        cells = []
        for k, name in enumerate(names):
            digits = 0 if name == "teff" else 2
            cells.append(f"{result.together[0][k]:>16.{digits}f} {result.together[1][k]:>12.{digits}f}")
        print(f"{'  all seeds vote':35s} {'':7s}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
