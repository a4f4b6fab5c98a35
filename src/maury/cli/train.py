"""``maury train RECIPE --data DIR -o MODEL``: from labelled spectra to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from maury.recipes import Recipe, TrainingRun


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a built-in name (see `maury recipes`).", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="Folder below which the recipe's files lie.")] = Path(),
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")] = Path("model.safetensors"),
    folds: Annotated[int | None, typer.Option("--folds", help="Folds of the cross-validation; 0: none.", min=0)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the folds.")] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for figures of the cross-validation.")] = None,
    device: Annotated[str, typer.Option("--device", help="Where networks are trained: cpu or cuda.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="The recipe's small version: see that all works, in minutes.")] = False,
) -> None:
    """Train a model as a recipe says, cross-validate it, and write it to one file.

    Networks keep the state of their training beside the output: after a kill, the same command goes on where it was.
    """
    import shutil

    from maury.cli.console import output_console
    from maury.cli.experiment import run_experiment
    from maury.cli.progress import stage_bars
    from maury.cli.transfer import print_transfer
    from maury.errors import ModelFileError
    from maury.recipes import load_recipe, run_recipe
    from maury.recipes.schema import quick_version
    from maury.store import save_model

    if not output.resolve().parent.is_dir():
        raise ModelFileError(f"expected an existing folder for {output}, got none; make the folder first")
    loaded = load_recipe(recipe)
    ready = _with_options(quick_version(loaded) if quick else loaded, folds, seed)
    state = output.resolve().with_name(f".{output.name}.training")
    if ready.experiment is not None:
        run_experiment(ready, data, output, plots, device=device, checkpoints=state)
        return
    with stage_bars() as report:
        run = run_recipe(ready, data, report, device=device, checkpoints=state)
    model_id = save_model(run.model, output)
    shutil.rmtree(state, ignore_errors=True)
    console = output_console()
    _print(console, run)
    if run.transfer is not None:
        print_transfer(console, run, plots)
    if plots is not None:
        _plots(run, plots)
    console.print(f"\nmodel {model_id} written to {output}", markup=False)


def _with_options(recipe: Recipe, folds: int | None, seed: int | None) -> Recipe:
    """The recipe with the command line's changes, checked like a recipe."""
    from maury.errors import UsageError
    from maury.recipes import parse_recipe

    content = recipe.model_dump(mode="json")
    if folds is not None:
        if folds and recipe.experiment is not None:
            raise UsageError(
                f"expected no --folds for {recipe.name}, whose [experiment] has a test set instead, got {folds}; remove it"
            )
        content["validation"]["folds"] = folds
        if folds == 0 and content["errors"]["model"] in ("held_out", "snr"):
            content["errors"]["model"] = "formal"  # nothing is left to learn errors from; the catalogue says so
    if seed is not None:
        content["validation"]["seed"] = seed
    return parse_recipe(content, "command line")


def _plots(run: TrainingRun, folder: Path) -> None:
    from maury.fit.inferrer import own_labels
    from maury.report.coverage_figure import coverage_figure
    from maury.report.figures import cross_validation_figure, pull_histogram, true_vs_recovered
    from maury.report.history_figure import history_figure
    from maury.report.style import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    labels, stars = own_labels(run.model.inferrer), run.training_set
    if "teff" in labels.names and len(labels) > 1:
        save_figure(coverage_figure(labels, stars.values, stars.part), folder / "coverage.png")
    for name, history in run.histories.items():
        save_figure(history_figure(history), folder / ("history.png" if name == "network" else f"history_{name}.png"))
    if run.held_out is None:
        return
    truth, held = run.scored.values, run.held_out.only(labels.names)
    save_figure(true_vs_recovered(held.labels, truth, held.values, held.errors, held.flag), folder / "recovered.png")
    save_figure(pull_histogram(held.labels, truth, held.values, held.errors), folder / "pulls.png")
    by = held.labels.names[0]
    save_figure(cross_validation_figure(held.labels, truth, held.values, held.errors, by=by), folder / "residuals.png")


def _print(console: Console, run: TrainingRun) -> None:
    from maury.assess.metrics import format_table

    left_out = run.training_set.left_out
    console.print(f"{len(run.training_set)} training spectra, {len(left_out)} left out{': ' if left_out else ''}", end="")
    console.print(_reasons(left_out))
    if run.condition_number is not None:
        console.print(f"condition number of the design matrix {run.condition_number:.3g}")
    if run.flux_error is not None:
        error = run.flux_error
        console.print(
            f"flux of {error.n_spectra} spectra held back from training: median |error| {error.median:.2g}, "
            f"99 % below {error.percentile_99:.2g}",
            markup=False,
        )
    if run.scores:
        console.print("\nheld-out stars (cross-validation; bias = median, scatter = 1.4826 MAD):")
        console.print(format_table(run.scores), markup=False, soft_wrap=True)


def _reasons(left_out: tuple[tuple[str, str], ...]) -> str:
    """Why spectra were left out, counted by the first words of the reason."""
    counts: dict[str, int] = {}
    for _, reason in left_out:
        short = reason.split(" = ")[0].split(",")[0]
        key = f"{short} outside the limits" if " = " in reason else short
        counts[key] = counts.get(key, 0) + 1
    return "; ".join(f"{n} x {reason}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))
