"""``maury infer MODEL SPECTRA... -o CATALOGUE``: labels of spectra, every one a row, readable or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from maury.estimates import LabelEstimates
    from maury.model import Model
    from maury.read import ReadResult
    from maury.spectra import Medium, Spectra


def infer(
    model: Annotated[Path, typer.Argument(help="Model file of `maury train`.", show_default=False)],
    spectra: Annotated[list[Path], typer.Argument(help="Spectrum files of any survey.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Catalogue: .fits .vot .parquet .ecsv .csv")] = Path(
        "stars.fits"
    ),
    format: Annotated[str | None, typer.Option("--format", "-f", help="Force a spectrum format.")] = None,
    medium: Annotated[str | None, typer.Option("--medium", help="air or vacuum, for files that do not say.")] = None,
    snr: Annotated[float | None, typer.Option("--snr", help="S/N to assume for files without errors.")] = None,
    velocities: Annotated[
        Path | None, typer.Option("--velocities", help="Table with columns file and rv (km/s) that replaces the headers'.")
    ] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for a Kiel diagram and the first fit.")] = None,
) -> None:
    """Infer labels of spectra and write a catalogue; a file that cannot be read keeps a row with its reason."""
    from maury.catalogue import build_catalogue, run_provenance, write_catalogue
    from maury.catalogue.formats import format_of
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.read import read_files
    from maury.store import load_model

    format_of(output)  # refuse an unknown extension before the work, not after it
    loaded = load_model(model)
    with stage_bars() as report:
        result = read_files(
            spectra, format, lambda done, total: report("read", done, total), medium=cast("Medium | None", medium), snr=snr
        )
        if velocities is not None:
            result = _with_velocities(result, velocities)
        estimates = _estimates(loaded, result, [str(path) for path in spectra], report)
    model_id = loaded.model_id
    provenance = run_provenance(model_file=model.name, model=loaded.provenance.get("recipe", {}).get("name"))
    table = build_catalogue(estimates, model_id=model_id, provenance=provenance)
    write_catalogue(table, output)
    if plots is not None:
        _plots(table, loaded, result, estimates, plots)
    _print(output_console(), estimates, output)
    if not any(status.value != "not_fitted" for status in estimates.status):
        raise typer.Exit(2)


def _estimates(model: Model, result: ReadResult, files: list[str], report: Callable[[str, int, int], None]) -> LabelEstimates:
    """Estimates of all spectra and a row for each file that could not be read, in the order of the command line."""
    import numpy as np

    from maury.estimates import LabelEstimates
    from maury.flags import ResultFlag
    from maury.spectra import empty_meta

    parts: list[LabelEstimates] = []
    places: list[int] = []
    position = {file: i for i, file in enumerate(files)}
    if result.spectra:
        parts.append(model.infer(result.spectra, report))
        places += [position[file] for file, batch in zip(result.files, result.spectra, strict=True) for _ in range(len(batch))]
    if result.failures:
        meta = empty_meta(len(result.failures))
        meta["file"] = [Path(failure.file).name for failure in result.failures]
        ids = [Path(failure.file).name.split(".")[0] for failure in result.failures]
        reasons = [failure.reason for failure in result.failures]
        parts.append(LabelEstimates.missing(model.labels, ids, reasons, meta, int(ResultFlag.UNREADABLE)))
        places += [position[failure.file] for failure in result.failures]
    return LabelEstimates.concatenate(parts)[np.argsort(places, kind="stable")]


def _with_velocities(result: ReadResult, path: Path) -> ReadResult:
    """The same spectra with meta rv from a table; spectra that it does not name keep their own."""
    from dataclasses import replace

    from maury.errors import ReadError
    from maury.recipes.dataset import read_label_table

    table = read_label_table(path)
    missing = [name for name in ("file", "rv") if name not in table.colnames]
    if missing:
        raise ReadError(f"expected columns file and rv (km/s) in {path}, got {', '.join(table.colnames)}; rename them")
    velocity = {str(row["file"]).strip(): float(row["rv"]) for row in table}
    spectra = []
    for batch in result.spectra:
        meta = batch.meta.copy()
        meta["rv"] = [velocity.get(str(row["file"]), float(row["rv"])) for row in meta]
        spectra.append(batch.with_pixels(meta=meta))
    return replace(result, spectra=spectra)


def _plots(table: Any, model: Model, result: ReadResult, estimates: LabelEstimates, folder: Path) -> None:
    from maury.report.figures import kiel_diagram
    from maury.report.style import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    if {"teff", "logg"} <= set(table.colnames):
        save_figure(kiel_diagram(table), folder / "kiel.png")
    prepared = model.preparation.prepare_each(result.spectra).spectra if result.spectra else None
    if prepared is not None:
        _fit_plot(prepared, model, estimates, folder / "fit.png")


def _fit_plot(prepared: Spectra, model: Model, estimates: LabelEstimates, path: Path) -> None:
    """The best exposed star without flag (or, if all have one, with the fewest) and its fit."""
    import numpy as np

    from maury.report.fit_figure import fit_example
    from maury.report.style import save_figure

    row_of = {name: i for i, name in enumerate(estimates.ids.tolist())}
    rows = np.array([row_of[name] for name in prepared.ids.tolist()])
    fitted = np.isfinite(estimates.chi2[rows])
    if not fitted.any():
        return
    clean = fitted & (estimates.flag[rows] == 0)
    snr = np.where(clean if clean.any() else fitted, np.nan_to_num(np.array(prepared.meta["snr"], dtype=float)), -1.0)
    best = int(np.argmax(snr))
    row, star = rows[best], prepared[best : best + 1]
    emulator, modes = model.inferrer.emulator, model.inferrer.fitter.continuum
    values = estimates.values[row : row + 1]
    flux = emulator.predict_flux(values) if modes is None else modes.fitted(star, emulator, values)
    known = emulator.model_covariance.known
    label_lines = [f"{n} {v:.4g} ± {e:.2g} {u}" for n, v, e, u in _labels_of(estimates, row)]
    figure = fit_example(
        star.wavelength,
        star.flux[0],
        np.where(known, star.ivar[0], 0.0),
        np.where(known, flux[0], np.nan),
        medium=star.medium,
        title=f"{star.ids[0]}, S/N {snr[best]:.0f} per pixel",
        text="\n".join(label_lines),
    )
    save_figure(figure, path)


def _labels_of(estimates: LabelEstimates, row: int) -> list[tuple[str, float, float, str]]:
    labels = estimates.labels
    return list(zip(labels.names, estimates.values[row], estimates.errors[row], labels.units, strict=True))


def _print(console: Console, estimates: LabelEstimates, output: Path) -> None:
    from collections import Counter

    from maury.flags import ResultFlag, names_of

    status = Counter(s.value for s in estimates.status)
    flags = Counter(name for flag in estimates.flag.tolist() for name in names_of(ResultFlag, flag))
    console.print(f"{len(estimates)} spectra: " + ", ".join(f"{n} {name}" for name, n in status.most_common()), markup=False)
    clean = int((estimates.flag == 0).sum())
    text = ", ".join(f"{n} {name}" for name, n in flags.most_common())
    console.print(f"{clean} without any flag" + (f"; flagged: {text}" if text else ""), markup=False)
    console.print(f"catalogue written to {output}", markup=False)
