"""``maury assess MODEL SPECTRA...``: may I believe it? Repeat visits, known labels, other resolutions, and the synthetic gap.

``maury assess --catalogue A --with B`` compares two catalogues and needs no model: ``assess_catalogue.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from maury.assess.learn_repeats import RepeatConfig
    from maury.estimates import LabelEstimates
    from maury.model import Model
    from maury.spectra import Medium, Spectra

    Report = Callable[[str, int, int], None]


def assess(
    model: Annotated[
        str | None, typer.Argument(help="Model file of `maury train`, or a name of `maury models`.", show_default=False)
    ] = None,
    spectra: Annotated[list[Path] | None, typer.Argument(help="Spectrum files of any survey.", show_default=False)] = None,
    groups: Annotated[Path | None, typer.Option("--groups", help="Table that says which files are visits of one star.")] = None,
    group_column: Annotated[str, typer.Option("--group-column", help="Its column with the star.")] = "group",
    file_column: Annotated[str, typer.Option("--file-column", help="Column with the file, in --groups and --labels.")] = "file",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Table of known labels; columns as in the model's recipe, or label names.")
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="LABEL=COLUMN in --labels, as in fe_h=feh, or LABEL=COLUMN,COLUMN in --catalogue and --with; may be repeated.",
        ),
    ] = None,
    resolving_power: Annotated[
        list[float] | None, typer.Option("--resolving-power", help="Refit spectra degraded to this R; may be repeated.")
    ] = None,
    fwhm: Annotated[list[float] | None, typer.Option("--fwhm", help="The same for a line width in Å.")] = None,
    velocities: Annotated[
        Path | None, typer.Option("--velocities", help="Table with columns file and rv (km/s) that replaces the headers'.")
    ] = None,
    gap: Annotated[bool, typer.Option("--gap", help="How far the spectra lie from those the model was trained on.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the model with errors from the repeat visits.")
    ] = None,
    variant: Annotated[
        str, typer.Option("--variant", help="How errors are learned: debiased, or as_published (Imig+2022).")
    ] = "debiased",
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for figures.")] = None,
    format: Annotated[str | None, typer.Option("--format", "-f", help="Force a spectrum format.")] = None,
    medium: Annotated[str | None, typer.Option("--medium", help="air or vacuum, for files that do not say.")] = None,
    snr: Annotated[float | None, typer.Option("--snr", help="S/N to assume for files without errors.")] = None,
    catalogue: Annotated[
        Path | None, typer.Option("--catalogue", help="Compare this table of labels with another; no model, no spectra.")
    ] = None,
    reference: Annotated[Path | None, typer.Option("--with", help="The other table.")] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="COLUMN,COLUMN with the stars' names in the two; one if both call it so.")
    ] = None,
    error_column: Annotated[
        list[str] | None, typer.Option("--error-column", help="LABEL=COLUMN,COLUMN with its errors in the two; else e_COLUMN.")
    ] = None,
    edge: Annotated[
        list[float] | None, typer.Option("--edge", help="Where ranges of --catalogue's first label meet; may be repeated.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="A star to leave out of the comparison; may be repeated.")
    ] = None,
) -> None:
    """Compare a model with what is known: repeat visits (are errors right?), labels, lower resolution, its training spectra.

    Or compare two catalogues, published or own: --catalogue A --with B.
    """
    from maury.cli.assess_catalogue import assess_catalogue, wanted
    from maury.cli.assess_gap import assess_gap
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.cli.tables import label_columns, names_in_tables, read_labels, read_stars, stars_of
    from maury.errors import ModelFileError, UsageError
    from maury.store import load_model

    compared = wanted(catalogue, reference, on, label_column, error_column, edge, without, plots)
    given: dict[str, Any] = {"MODEL": model, "SPECTRA": spectra, "--groups": groups, "--labels": labels, "--output": output}
    given |= {"--resolving-power": resolving_power, "--fwhm": fwhm, "--velocities": velocities, "--gap": gap}
    given |= {"--format": format, "--medium": medium, "--snr": snr}
    if compared is not None:
        _refuse(given)
        assess_catalogue(output_console(), compared)
        return
    if model is None or not spectra:
        raise UsageError("expected MODEL and SPECTRA, or --catalogue with --with, got neither; say what to assess")
    degraded = [*(resolving_power or []), *(fwhm or [])]
    config = _checked(groups, labels, degraded, output, variant, gap)
    if output is not None and not output.resolve().parent.is_dir():
        raise ModelFileError(f"expected an existing folder for {output}, got none; make the folder first")
    loaded = load_model(model)
    if gap:
        loaded.checked_gap()  # or one sentence, before the work
    star_of = None if groups is None else read_stars(groups, file_column, group_column)
    columns = label_columns(label_column or [], loaded.labels.names)
    console = output_console()
    with stage_bars() as report:
        said = cast("Medium | None", medium)
        batches = _read(console, loaded, spectra, velocities, report, format=format, medium=said, snr=snr)
        formal = _formal(loaded, batches, report)
        if plots is not None:
            plots.mkdir(parents=True, exist_ok=True)
        names = names_in_tables(formal)
        if groups is not None and star_of is not None:
            stars = stars_of(star_of, names, groups)
            _repeats(console, loaded, formal, stars, config, report=report, output=output, plots=plots)
        truth = None
        if labels is not None:
            truth = read_labels(labels, file_column, columns, loaded, names)
            _against_labels(console, loaded, batches, formal, truth, plots)
        if degraded:
            _resolutions(console, loaded, batches, resolving_power or [], fwhm or [], report)
        if gap:
            assess_gap(console, loaded, batches, formal, truth, plots)


def _refuse(given: dict[str, Any]) -> None:
    """Raise UsageError if anything of a model's assessment was given beside a catalogue."""
    from maury.errors import UsageError

    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(f"expected --catalogue alone, got {', '.join(names)} too; assess a model or compare catalogues")


def _checked(
    groups: Path | None, labels: Path | None, degraded: list[float], output: Path | None, variant: str, gap: bool
) -> RepeatConfig:
    """How to learn errors; the options' sense is checked before the work."""
    from maury.assess.learn_repeats import IMIG2022, RepeatConfig
    from maury.errors import UsageError

    if groups is None and labels is None and not degraded and not gap:
        raise UsageError("expected --groups, --labels, --resolving-power, --fwhm or --gap, got none; say what to compare with")
    if output is not None and groups is None:
        raise UsageError("expected --groups together with --output, got none; errors are learned from repeat visits")
    if not all(x > 0 for x in degraded):
        raise UsageError(
            f"expected resolving powers and widths above 0, got {', '.join(f'{x:g}' for x in degraded)}; correct them"
        )
    return IMIG2022 if variant == "as_published" else RepeatConfig(cast("Any", variant))


def _read(
    console: Console,
    model: Model,
    files: list[Path],
    velocities: Path | None,
    report: Report,
    *,
    format: str | None,
    medium: Medium | None,
    snr: float | None,
) -> list[Spectra]:
    """All spectra that can be read, orders of a file joined as `maury infer` does; those that can not are listed."""
    from maury.errors import ReadError
    from maury.prepare.orders import Wanted, join_orders
    from maury.read import read_files
    from maury.recipes.file_columns import with_velocities

    result = read_files(files, format, lambda done, total: report("read", done, total), medium=medium, snr=snr)
    if not result.spectra:
        raise ReadError(f"expected spectra that can be read, got none of {len(files)}; the first: {result.failures[0].reason}")
    for failure in result.failures:
        console.print(f"not read: {Path(failure.file).name}: {failure.reason}", markup=False, soft_wrap=True)
    if velocities is not None:
        result = with_velocities(result, velocities)
    return join_orders(result, Wanted.by(model.preparation)).spectra


def _formal(model: Model, batches: list[Spectra], report: Report) -> LabelEstimates:
    """Estimates with the errors of the fit alone."""
    from dataclasses import replace

    return replace(model, error_model=None).infer(batches, report)


# -- repeat visits --------------------------------------------------------------------------------------------------------


def _repeats(
    console: Console,
    model: Model,
    formal: LabelEstimates,
    stars: list[str],
    config: RepeatConfig,
    *,
    report: Report,
    output: Path | None,
    plots: Path | None,
) -> None:
    """Pulls of repeat visits before and after; the model with new errors, if it is to be written."""
    from maury.assess.learn_repeats import MIN_STARS, cross_fitted
    from maury.assess.visits import good_visits, visit_pairs
    from maury.errors import UsageError

    pairs = visit_pairs(stars, good_visits(formal))
    console.print(f"{len(formal)} spectra, {len(pairs)} pairs of visits of {pairs.n_stars} stars", markup=False)
    if not len(pairs):
        raise UsageError(
            "expected at least two usable visits of some star, got no pair; check the groups and the spectra's flags"
        )
    series = {"formal errors": formal}
    if model.error_model is not None:
        series["catalogue errors"] = model.error_model.apply(formal)
    if pairs.n_stars < MIN_STARS / 0.9:  # nine tenths of them teach in each fold
        if output is not None:
            raise UsageError(
                f"expected repeat visits of at least {MIN_STARS / 0.9:.0f} stars to learn errors, got {pairs.n_stars}"
            )
        console.print("too few stars to learn errors from: the errors are judged as they are")
    else:
        progress = lambda done, total: report("calibrate", done, total)  # noqa: E731
        series["from repeat visits"] = cross_fitted(formal, pairs, config, progress=progress)
    _print_scores(console, series, pairs, config.snr_column)
    if plots is not None:
        _repeat_plot(series, pairs, config.snr_column, plots)
    if output is not None:
        _write(console, model, formal, pairs, config, output)


def _repeat_plot(series: dict[str, LabelEstimates], pairs: Any, snr_column: str, folder: Path) -> None:
    from maury.report.repeat_figure import repeat_figure
    from maury.report.style import save_figure

    save_figure(repeat_figure(series, pairs, snr_column=snr_column), folder / "repeats.png")


def _print_scores(console: Console, series: dict[str, LabelEstimates], pairs: Any, snr_column: str) -> None:
    from maury.assess.repeats import repeat_scores

    console.print("\nrobust s.d. of (x1 - x2)/sqrt(s1^2 + s2^2) +- bootstrap over stars, and share of pairs within 1 sigma")
    console.print("(1 and 68 % if errors are right and Gaussian); errors from repeat visits are learned from other stars:")
    scores = {name: repeat_scores(estimates, pairs, snr_column=snr_column) for name, estimates in series.items()}
    rows = []
    for place, first in enumerate(next(iter(scores.values()))):
        found = [score[place] for score in scores.values()]
        cells = [f"{x.scatter:.2f} +- {x.uncertainty:.2f}, {100 * x.inside:.0f} %" for x in found]
        rows.append([first.label, first.selection, str(first.n_pairs), str(first.n_stars), *cells])
    print_table(console, ["label", "visits", "pairs", "stars", *series], rows)


def _write(console: Console, model: Model, formal: LabelEstimates, pairs: Any, config: RepeatConfig, output: Path) -> None:
    from dataclasses import replace

    from maury.assess.learn_repeats import fit_repeat_error_model
    from maury.catalogue import run_provenance
    from maury.store import save_model

    learned = fit_repeat_error_model(formal, pairs, config)
    about = run_provenance(kind="repeats", n_stars=pairs.n_stars, n_pairs=len(pairs), before=model.model_id)
    changed = replace(model, error_model=learned, provenance={**model.provenance, "errors": about})
    console.print(f"\nmodel {save_model(changed, output)} with errors from repeat visits written to {output}", markup=False)


# -- known labels, other resolutions ---------------------------------------------------------------------------------------


def _against_labels(
    console: Console, model: Model, batches: list[Spectra], formal: LabelEstimates, truth: Any, plots: Path | None
) -> None:
    """Bias, scatter and pulls by range of the first label; and how well spectra are generated from the known labels."""
    import numpy as np

    from maury.assess.emulation import IMIG2022_TEFF_BINS
    from maury.assess.metrics import format_table, label_metrics

    name = "teff" if "teff" in model.labels.names else model.labels.names[0]
    along = truth[:, model.labels.index(name)]
    edges = np.nanquantile(along, [0.0, 0.5, 1.0])
    ranges = IMIG2022_TEFF_BINS if name == "teff" else ((edges[0], edges[1]), (edges[1], np.nextafter(edges[2], np.inf)))
    filled = [(low, high) for low, high in ranges if ((along >= low) & (along < high)).any()]
    judged = formal if model.error_model is None else model.error_model.apply(formal)
    rows = label_metrics(truth, judged.values, judged.errors, labels=model.labels, by=name, ranges=filled)
    console.print("\nestimated - known labels (bias = median, scatter = 1.4826 MAD), with the catalogue's errors:")
    console.print(format_table(rows), markup=False, soft_wrap=True)
    _emulation(console, model, batches, truth, (name, filled), plots)


def _emulation(
    console: Console, model: Model, batches: list[Spectra], truth: Any, by: tuple[str, Any], plots: Path | None
) -> None:
    import numpy as np

    from maury.assess.emulation import LIMITS, emulator_accuracy, fitted_flux, share_per_pixel
    from maury.fit import FittedInferrer
    from maury.fit.inferrer import own_labels

    inferrer = model.inferrer
    if not isinstance(inferrer, FittedInferrer):
        console.print("\nno spectra generated from the known labels: this model has no emulator")
        return
    prepared = model.preparation.prepare_each(batches)
    if prepared.spectra is None:
        return
    first = np.concatenate([[0], np.cumsum([len(batch) for batch in batches])])
    known_labels = truth[[first[source.batch] + source.row for source in prepared.sources]]
    own = [model.labels.index(name) for name in own_labels(inferrer).names]  # a fitted velocity is no label of the emulator
    flux = fitted_flux(inferrer, prepared.spectra, known_labels[:, own])
    known = inferrer.emulator.model_covariance.known
    values = known_labels[:, model.labels.index(by[0])]
    rows = emulator_accuracy(prepared.spectra, flux, known=known, by=(by[0], values), ranges=by[1])
    console.print(
        "\nspectra generated from the known labels: share of pixels within a part of the observed flux (noise included):"
    )
    cells = [[r.selection, str(r.n_spectra), str(r.n_pixels), *(f"{100 * s:.1f} %" for s in r.shares)] for r in rows]
    print_table(console, ["stars", "n", "pixels", *(f"{100 * limit:g} %" for limit in LIMITS)], cells)
    if plots is not None:
        from maury.report.emulator_figure import emulator_figure
        from maury.report.style import save_figure

        shares = share_per_pixel(prepared.spectra, flux, known=known)
        figure = emulator_figure(prepared.spectra.wavelength, shares, LIMITS, medium=prepared.spectra.medium)
        save_figure(figure, plots / "emulator.png")


def _resolutions(
    console: Console, model: Model, batches: list[Spectra], powers: list[float], widths: list[float], report: Report
) -> None:
    from maury.assess.resolution import degradations, resolution_shifts

    steps = degradations(model.preparation, powers, widths)
    rows = resolution_shifts(model.infer, batches, steps, lambda done, total: report("degrade", done, total))
    console.print("\nspectra degraded without the model's knowledge, labels minus those of the spectra as they are:")
    cells = []
    for row in rows:
        numbers = [_number(x, row.unit) for x in (row.shift, row.scatter, row.error)]
        cells.append([row.target, row.label, row.unit, str(row.n), *numbers])
    print_table(console, ["degraded to", "label", "unit", "n", "median shift", "scatter", "median error"], cells)


def _number(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "K" else f"{value:.3f}"


def print_table(console: Console, heads: list[str], rows: list[list[str]]) -> None:
    """A table without lines; names stand left, numbers right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    text = ("system", "label", "visits", "stars", "degraded to", "unit", "window")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if head in text and number < 3 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
