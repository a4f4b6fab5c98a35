"""The Cannon and The Payne side by side: MILES cross-validation, LAMOST DR1 against LASP, LAMOST repeat visits.

python examples/cannon_against_payne.py data
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from what_helped import variant

from maury import Model, load_recipe, read_files, run_recipe
from maury.assess.learn_repeats import cross_fitted
from maury.assess.metrics import LabelMetrics, label_metrics, robust_std
from maury.assess.repeats import repeat_scores
from maury.assess.visits import good_visits, visit_pairs
from maury.estimates import LabelEstimates
from maury.recipes import Recipe, TrainingRun
from maury.recipes.label_table import read_label_table

RANGES = [(4000.0, 7000.0), (3000.0, 30000.0)]
LASP = {"teff": "teff", "logg": "logg", "fe_h": "feh"}


def recipes() -> dict[str, Recipe]:
    """The two recipes, and The Cannon on all stars that The Payne has."""
    cannon, payne = load_recipe("miles"), load_recipe("miles-payne")
    labels = payne.model_dump(mode="json")["label"]
    everywhere = variant(cannon, data__limits={"teff": [2800, 36500]}, label=labels)
    return {"Cannon (miles)": cannon, "Cannon, all stars": everywhere, "Payne (miles-payne)": payne}


def show(name: str, what: str, rows: list[LabelMetrics]) -> None:
    """One line: n and scatter / bias of every label."""
    cells = [f"{r.scatter:6.1f} ± {r.scatter_error:4.1f} / {r.bias:+5.1f}" for r in rows if r.unit == "K"]
    cells += [f"{r.scatter:.3f} ± {r.scatter_error:.3f} / {r.bias:+.3f}" for r in rows if r.unit != "K"]
    print(f"{name:22s} {what:24s} n {rows[0].n:4d}  " + "   ".join(cells), flush=True)


def on_miles(name: str, run: TrainingRun) -> None:
    """Held-out stars of both ranges."""
    assert run.held_out is not None
    rows = label_metrics(run.scored.values, run.held_out.values, labels=run.held_out.labels, by="teff", ranges=RANGES)
    for low, high in RANGES:
        show(name, f"MILES {low:g}-{high:g} K", [r for r in rows if r.selection == f"{low:g} <= teff < {high:g}"])


def inferred(model: Model, folder: Path) -> LabelEstimates:
    """Labels of all spectra of a folder that can be read."""
    return model.infer(read_files(sorted(folder.glob("*.fits*"))).spectra)


def on_lamost(name: str, model: Model, data: Path) -> None:
    """LAMOST DR1 against LASP, S/N i > 20."""
    table = read_label_table(data / "lamost_dr1/labels.csv")
    known = {str(row["file"]): row for row in table if not np.ma.is_masked(row["teff"]) and row["snri"] > 20}
    estimates = inferred(model, data / "lamost_dr1/spectra")
    rows = [i for i, file in enumerate(estimates.meta["file"]) if str(file) in known]
    truth = np.array([[float(known[str(estimates.meta["file"][i])][c]) for c in LASP.values()] for i in rows])
    scores = label_metrics(truth, estimates.values[rows], labels=estimates.labels, by="teff", ranges=RANGES[:1])
    show(name, "LAMOST-LASP 4000-7000 K", [row for row in scores if row.selection != "all"])


def on_repeats(name: str, model: Model, data: Path) -> None:
    """Robust standard deviation of differences of repeat visits over their errors: formal, and learned from other stars."""
    table = read_label_table(data / "lamost_repeats/groups.csv")
    group = {str(row["file"]): str(row["group"]) for row in table}
    estimates = inferred(replace(model, error_model=None), data / "lamost_repeats/spectra")
    pairs = visit_pairs([group[str(file)] for file in estimates.meta["file"]], good_visits(estimates))
    for what, some in (("formal", estimates), ("calibrated", cross_fitted(estimates, pairs))):
        scores = repeat_scores(some, pairs)
        text = [f"{s.label} {s.selection}: {s.scatter:.2f} ± {s.uncertainty:.2f}" for s in scores]
        print(f"{name:22s} repeats, {what}: " + ", ".join(text), flush=True)


def in_common(first: TrainingRun, second: TrainingRun) -> None:
    """How the residuals of two models on the same held-out stars correlate, wild stars clipped at three times the scatter."""
    low, high = RANGES[0]
    chosen = (first.scored.values[:, 0] >= low) & (first.scored.values[:, 0] < high)
    texts = []
    for k, name in enumerate(LASP):
        pair = [(run.held_out.values - run.scored.values)[chosen, k] for run in (first, second) if run.held_out is not None]
        clipped = [np.clip(r, -3 * robust_std(r), 3 * robust_std(r)) for r in pair]
        texts.append(f"{name} {np.corrcoef(*clipped)[0, 1]:.2f}")
    print(f"correlation of the residuals of The Cannon (all stars) and The Payne, {low:g}-{high:g} K: " + ", ".join(texts))


def main(folder: str) -> None:
    """Train all three and print their lines."""
    data = Path(folder)
    runs = []
    for name, recipe in recipes().items():
        run = run_recipe(recipe, data)
        runs.append(run)
        on_miles(name, run)
        on_lamost(name, run.model, data)
        on_repeats(name, run.model, data)
    in_common(*runs[1:])


if __name__ == "__main__":
    main(sys.argv[1])
