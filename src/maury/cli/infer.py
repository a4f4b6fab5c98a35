"""``maury infer MODEL SPECTRA... -o CATALOGUE``: labels of spectra, every one a row, readable or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from astropy.table import Table
    from rich.console import Console

    from maury.estimates import LabelEstimates
    from maury.model import Model
    from maury.regress.ensemble import EnsembleInferrer
    from maury.spectra import Medium, Spectra


_MANY_FILES = 2000  # from here on, reading in several processes saves more than starting them costs
_SHOWN = 20  # stars of which labels are printed
_DIGITS = {"K": 0, "km/s": 1, "dex": 2}  # after the point, as in Table 4 of Passegger et al. 2020; of other units 3


def infer(
    model: Annotated[str, typer.Argument(help="Model file of `maury train`, or a name of `maury models`.", show_default=False)],
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
    photometry: Annotated[
        Path | None,
        typer.Option("--photometry", help="Table with columns file, bp_rp and m_g (mag, free of extinction): where fits start."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda: sums over pixels on a GPU.")] = "cpu",
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Folder for a Kiel diagram and the best exposed star with its fit.")
    ] = None,
    votes: Annotated[
        Path | None, typer.Option("--votes", help="File for each network's vote, of an ensemble: .fits .vot .parquet .ecsv")
    ] = None,
) -> None:
    """Infer labels of spectra and write a catalogue; a file that cannot be read keeps a row with its reason."""
    from maury.catalogue import build_catalogue, run_provenance, write_catalogue
    from maury.catalogue.formats import format_of
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.prepare.orders import Wanted, join_orders
    from maury.read import read_files
    from maury.recipes.file_columns import with_photometry, with_velocities
    from maury.store import load_model
    from maury.threads import cores

    format_of(output)  # refuse an unknown extension before the work, not after it
    loaded = load_model(model).running_on(device=device, workers=cores())
    if photometry is not None:
        _require_isochrones(loaded)
    if votes is not None:
        _require_votes(loaded, votes, output)
    prepared: list[Spectra] = []
    with stage_bars() as report:
        result = read_files(
            spectra,
            format,
            lambda done, total: report("read", done, total),
            cores() if len(spectra) >= _MANY_FILES else None,
            medium=cast("Medium | None", medium),
            snr=snr,
        )
        if velocities is not None:
            result = with_velocities(result, velocities)
        if photometry is not None:
            result = with_photometry(result, photometry)
        result = join_orders(result, Wanted.by(loaded.preparation))
        estimates = loaded.infer_files(result, [str(path) for path in spectra], report, prepared.append)
    model_id = loaded.model_id
    provenance = run_provenance(model_file=Path(model).name, model=loaded.provenance.get("recipe", {}).get("name"))
    table = build_catalogue(estimates, model_id=model_id, provenance=provenance)
    write_catalogue(table, output)
    if votes is not None and prepared:
        _write_votes(table, loaded, prepared[0], estimates, votes)
    if plots is not None:
        _plots(table, loaded, prepared, estimates, plots)
    _print(output_console(), estimates, output)
    if not any(status.value != "not_fitted" for status in estimates.status):
        typer.echo(f"maury: nothing was fitted; the first, {estimates.ids[0]}: {estimates.reason[0]}", err=True)
        raise typer.Exit(2)


def _require_isochrones(model: Model) -> None:
    from maury.errors import UsageError
    from maury.fit.inferrer import FittedInferrer

    if not isinstance(model.inferrer, FittedInferrer) or model.inferrer.fitter.photometry is None:
        raise UsageError(
            "expected a model with isochrones for --photometry, got one without; train it with photometry in the recipe's [fit], "
            "or leave the option out (fits then start at the best points of a search)"
        )


def _require_votes(model: Model, path: Path, output: Path) -> None:
    from maury.catalogue.votes_file import check_votes_name
    from maury.errors import UsageError
    from maury.regress.ensemble import EnsembleInferrer

    if not isinstance(model.inferrer, EnsembleInferrer):
        raise UsageError(
            f"expected an ensemble of networks for --votes, got a model without votes ({type(model.inferrer).__name__}); "
            "leave the option out"
        )
    check_votes_name(path)
    if path.resolve() == output.resolve():
        raise UsageError(f"expected another file for --votes than the catalogue's, got {path} twice; change one of them")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"expected an existing folder for {path}, got none; make the folder first")


def _write_votes(table: Table, model: Model, prepared: Spectra, estimates: LabelEstimates, path: Path) -> None:
    """Each network's vote on the spectra that could be prepared, in the rows that they have in the catalogue."""
    import numpy as np

    from maury.catalogue import write_catalogue
    from maury.catalogue.votes_file import build_votes
    from maury.flags import ResultFlag

    inferrer = cast("EnsembleInferrer", model.inferrer)
    rows = np.flatnonzero(estimates.flag & int(ResultFlag.UNREADABLE) == 0)  # the bit of all those that no network saw
    found = inferrer.votes(prepared)
    write_catalogue(build_votes(table, inferrer.labels, found.values, found.names, rows), path)


def _plots(table: Any, model: Model, prepared: list[Spectra], estimates: LabelEstimates, folder: Path) -> None:
    from maury.report.figures import kiel_diagram
    from maury.report.style import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    if {"teff", "logg"} <= set(table.colnames):
        save_figure(kiel_diagram(table), folder / "kiel.png")
    if prepared:
        _fit_plot(prepared[0], model, estimates, folder / "fit.png")


def _fit_plot(prepared: Spectra, model: Model, estimates: LabelEstimates, path: Path) -> None:
    """The best exposed star without flag (or, if all have one, of all) and its fit; nothing for models that fit no spectra."""
    import numpy as np

    from maury.fit.inferrer import FittedInferrer
    from maury.report.fit_figure import fit_figure
    from maury.report.style import save_figure

    if not isinstance(model.inferrer, FittedInferrer):
        return
    row_of = {name: i for i, name in enumerate(estimates.ids.tolist())}
    rows = np.array([row_of[name] for name in prepared.ids.tolist()])
    fitted = np.isfinite(estimates.chi2[rows])
    if not fitted.any():
        return
    clean = fitted & (estimates.flag[rows] == 0)
    snr = np.nan_to_num(np.ma.filled(np.ma.MaskedArray(prepared.meta["snr"], dtype=float), np.nan))
    best = int(np.argmax(np.where(clean if clean.any() else fitted, snr, -1.0)))
    save_figure(fit_figure(prepared[best : best + 1], model.inferrer, estimates[rows[best : best + 1]]), path)


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
    if estimates.interval_errors is not None:
        _print_intervals(console, estimates[:_SHOWN])
        if len(estimates) > _SHOWN:
            console.print(f"and {len(estimates) - _SHOWN} more", markup=False)


def _print_intervals(console: Console, estimates: LabelEstimates) -> None:
    """``3738 +60 -35`` per star and label, the form of Table 4 of Passegger et al. (2020)."""
    from rich.table import Table
    from rich.text import Text

    from maury.flags import ResultFlag, names_of

    labels = estimates.labels.labels
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("star", *(f"{label.name} ({label.unit})" if label.unit else label.name for label in labels), "flags"):
        shown.add_column(name, overflow="fold")
    for i, star in enumerate(estimates.ids.tolist()):
        cells = [
            _interval_text(value, lower, upper, _DIGITS.get(label.unit, 3))
            for label, value, (lower, upper) in zip(labels, estimates.values[i], estimates.both_errors[i], strict=True)
        ]
        flags = ", ".join(names_of(ResultFlag, int(estimates.flag[i])))
        shown.add_row(*(Text(cell) for cell in (star, *cells, flags)))  # names may hold brackets, which rich takes for markup
    console.print(shown)


def _interval_text(value: float, lower: float, upper: float, digits: int) -> str:
    from math import isnan

    return "-" if isnan(value) else f"{value:.{digits}f} +{upper:.{digits}f} -{lower:.{digits}f}"
