"""The miles recipe taken apart: cross-validation with its parts added one after the other.

python examples/what_helped.py data
"""

from __future__ import annotations

import sys

from maury.recipes import Recipe, load_recipe, parse_recipe, train_on
from maury.recipes.dataset import load_training_set


def variant(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with entries replaced: ``train__robust_stars=None`` is recipe.train.robust_stars."""
    content = recipe.model_dump(mode="json")
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = content
        for folder in folders:
            place = place[folder]
        place[last] = value
    return parse_recipe(content, "variant")


def main(folder: str) -> None:
    """Print robust scatter (and pull scatter of formal errors) between 4000 and 7000 K for each variant."""
    full = load_recipe("miles")
    nothing = {"train__robust_stars": None, "train__covariance__rank": 0, "train__regions": None, "fit__prior": None}
    variants = {
        "order 2, scatter only (The Cannon)": {**nothing, "train__order": 2},
        "order 3, scatter only": nothing,
        "+ star weights": {k: v for k, v in nothing.items() if "robust" not in k},
        "+ covariance, rank 60, inflation 1": {"train__covariance__inflation": 1.0, "train__regions": None, "fit__prior": None},
        "+ inflation 80": {"train__regions": None, "fit__prior": None},
        "+ regions": {"fit__prior": None},
        "+ prior (the recipe)": {},
        "the recipe, MILES fluxes not trusted": {"fit__continuum__trusted": []},
    }
    data = load_training_set(full, folder)
    for name, changes in variants.items():
        run = train_on(variant(full, errors__model="formal", **changes), data)
        rows = [row for row in run.scores if row.selection == "teff 4000-7000"]
        scatter = "  ".join(f"{row.scatter:6.1f}" if row.unit == "K" else f"{row.scatter:.3f}" for row in rows)
        pulls = "  ".join(f"{row.pull_scatter:.1f}" for row in rows)
        print(f"{name:40s} {scatter}   pulls {pulls}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
