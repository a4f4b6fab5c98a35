"""``maury rv SPECTRA... --template FILE_OR_MODEL -o velocities.csv``: radial velocities by cross-correlation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table
    from numpy.typing import NDArray
    from rich.console import Console

    from maury.model import Model
    from maury.prepare.velocity import CrossCorrelator, Velocities
    from maury.read import ReadResult
    from maury.spectra import Medium, Spectra

    FloatArray = NDArray[np.float64]
    Report = Callable[[str, int, int], None]

_N_TEMPLATES = 16  # of a model, spread over its training stars
_GRIDS = (".zarr", ".toml")  # besides folders of PHOENIX files
_DENSE = 0.9  # part of the training stars that templates are taken from: a model is poor where it had few stars


def rv(
    spectra: Annotated[list[Path], typer.Argument(help="Spectrum files of any survey.", show_default=False)],
    template: Annotated[
        list[str],
        typer.Option(
            "--template", "-t", help="Spectra at rest (any format), a model (file or name), or a grid. May be repeated."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .csv .ecsv .fits")] = Path("velocities.csv"),
    range_: Annotated[tuple[float, float], typer.Option("--range", help="Velocities to search, km/s.")] = (-500.0, 500.0),
    continuum: Annotated[str, typer.Option("--continuum", help="running_median, gisic, gaussian or none.")] = "running_median",
    window: Annotated[
        float, typer.Option("--window", help="km/s: width of the running median, sigma of the Gaussian.")
    ] = 20_000.0,
    floor: Annotated[
        float, typer.Option("--floor", help="km/s added to errors in quadrature: how stable the wavelength calibration is.")
    ] = 0.0,
    keep_tellurics: Annotated[bool, typer.Option("--keep-tellurics", help="Do not mask telluric bands and sky lines.")] = False,
    format: Annotated[str | None, typer.Option("--format", "-f", help="Force a spectrum format.")] = None,
    medium: Annotated[str | None, typer.Option("--medium", help="air or vacuum, for files that do not say.")] = None,
    snr: Annotated[float | None, typer.Option("--snr", help="S/N to assume for files without errors.")] = None,
) -> None:
    """Measure radial velocities, each with its error; a file that cannot be read keeps a row with its reason.

    Orders of a file are measured one by one and have one row, the weighted mean of those that agree.

    A velocity is that of the frame the wavelengths are in (column velocity_frame); no barycentric correction is made. The table
    is what `maury infer --velocities` reads.
    """
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.prepare.templates import ContinuumRule
    from maury.prepare.velocity import CrossCorrelation, CrossCorrelator
    from maury.read import read_files

    _format_of(output)
    rule = ContinuumRule(cast("Any", continuum), window)
    settings = CrossCorrelation(low=range_[0], high=range_[1], continuum=rule, floor=floor)
    said = cast("Medium | None", medium)
    correlator = CrossCorrelator(tuple(batch for source in template for batch in _templates(source, said)), settings)
    with stage_bars() as report:
        result = read_files(spectra, format, lambda done, total: report("read", done, total), medium=said, snr=snr)
        table = _measured(correlator, result, [str(path) for path in spectra], keep_tellurics, report)
    _write(table, output)
    _print(output_console(), table, output)
    if not any(reason == "" for reason in table["reason"]):
        raise typer.Exit(2)


# -- templates ----------------------------------------------------------------------------------------------------


def _templates(source: str, medium: Medium | None) -> list[Spectra]:
    """The spectra of a file, or some of a model or a grid."""
    from maury.models import is_shipped
    from maury.prepare.templates import read_templates

    if Path(source).suffix.lower() in _GRIDS or Path(source).is_dir():
        return [grid_templates(Path(source))]
    if not is_shipped(source) and Path(source).suffix.lower() != ".safetensors":
        return read_templates(Path(source), medium)
    from maury.store import load_model

    return [model_templates(load_model(source), medium)]


def model_templates(model: Model, medium: Medium | None = None) -> Spectra:
    """Spectra at rest that a model predicts for up to 16 different kinds of its training stars.

    Each has the labels of a training star: first the most typical one, then, again and again, the star that differs most from
    those taken, among the nine tenths that have most neighbours.

    Raises
    ------
    UsageError
        If the model makes no spectra, knows no training stars (there were fewer than 100), or not whether its wavelengths are in
        air.
    """
    import numpy as np

    from maury.catalogue.spectra_file import SpectrumGenerator
    from maury.catalogue.spectra_file import medium_of as medium_of_preparation
    from maury.errors import UsageError
    from maury.fit.inferrer import fitted
    from maury.spectra import Spectra

    density = None if model.region is None else model.region.density
    said = medium_of_preparation(model.preparation) or model.provenance.get("medium") or medium
    if density is None or said not in ("vacuum", "air"):
        what = "with at least 100 training stars" if density is None else "that says whether its wavelengths are in air"
        raise UsageError(f"expected a model {what} as a template, got another; give spectra of `maury generate`, or --medium")
    emulator = fitted(model.inferrer).emulator
    labels = emulator.labels
    stars = density.stars.astype(np.float64)
    distance = density.distance(stars)
    values = labels.unscale(_different(stars[distance <= np.quantile(distance, _DENSE)], _N_TEMPLATES))
    generator = SpectrumGenerator(emulator, model.region, model.preparation, said, model.model_id)
    ivar = np.broadcast_to(generator.ivar, (len(values), len(generator.ivar)))
    ids = [
        ", ".join(f"{name} {round(value, 3) + 0.0:.4g}" for name, value in zip(labels.names, row, strict=True)) for row in values
    ]
    return Spectra.from_arrays(
        generator.emulator.wavelength, generator.flux(values), ivar=ivar, medium=said, frame="rest", ids=ids
    )


def grid_templates(path: Path) -> Spectra:
    """Up to 16 different spectra of a grid of model spectra, as it has them.

    Raises
    ------
    MauryError
        If there is no such grid.
    """
    import numpy as np

    from maury.grids import open_grid
    from maury.spectra import Spectra

    grid = open_grid(path)
    span = np.ptp(grid.values, axis=0)
    points = (grid.values - grid.values.min(axis=0)) / np.where(span > 0, span, 1.0)
    taken = _different(points, _N_TEMPLATES)
    rows = np.array([int(np.argmin(((points - point) ** 2).sum(axis=1))) for point in taken])
    flux = np.asarray(grid.flux(rows), dtype=np.float64)
    ids = [
        ", ".join(f"{name} {value:.4g}" for name, value in zip(grid.names, row, strict=True))
        for row in grid.values[rows].tolist()
    ]
    return Spectra.from_arrays(grid.wavelength, flux, ivar=np.ones(flux.shape), medium=grid.medium, frame="rest", ids=ids)


def _different(points: FloatArray, n: int) -> FloatArray:
    """The point nearest the median of all, then those farthest from all taken before."""
    import numpy as np

    taken = [int(np.argmin(((points - np.median(points, axis=0)) ** 2).sum(axis=1)))]
    nearest = ((points - points[taken[0]]) ** 2).sum(axis=1)
    while len(taken) < min(n, len(points)) and nearest.max() > 0:
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[taken[-1]]) ** 2).sum(axis=1))
    return points[taken]


# -- measurement --------------------------------------------------------------------------------------------------


def _measured(correlator: CrossCorrelator, result: ReadResult, files: list[str], keep_tellurics: bool, report: Report) -> Table:
    """The table of all spectra and unreadable files, in the order of the command line."""
    from itertools import groupby

    import numpy as np

    from maury.flags import ResultFlag
    from maury.prepare.masking import Mask
    from maury.prepare.orders import is_order, name_of_orders, velocity_of_orders
    from maury.prepare.velocity import Velocities
    from maury.spectra import empty_meta

    mask = Mask(presets=() if keep_tellurics else ("sky_lines", "telluric_oxygen", "telluric_water"))
    position = {file: i for i, file in enumerate(files)}
    parts: list[Velocities] = []
    metas, ids, places = [], [], []
    done = 0
    for file, pairs in groupby(zip(result.files, result.spectra, strict=True), key=lambda pair: pair[0]):
        batches = [batch for _, batch in pairs]
        own = [correlator.measure(mask(batch)) for batch in batches]
        names = [str(name) for batch in batches for name in batch.ids]
        if len(batches) > 1 and all(map(is_order, batches)):
            own, names = [velocity_of_orders(Velocities.concatenate(own))], [name_of_orders(batches[0])]
            done, batches = done + len(batches) - 1, [max(batches, key=lambda batch: float(np.nan_to_num(batch.meta["snr"][0])))]
        parts += own
        metas += [batch.meta for batch in batches]
        ids += names
        places += [position[file]] * len(names)
        done += len(batches)
        report("velocities", done, len(result.spectra))
    if result.failures:
        parts.append(Velocities.missing([failure.reason for failure in result.failures], ResultFlag.UNREADABLE))
        meta = empty_meta(len(result.failures))
        meta["file"] = [Path(failure.file).name for failure in result.failures]
        metas.append(meta)
        ids += [Path(failure.file).name.split(".")[0] for failure in result.failures]
        places += [position[failure.file] for failure in result.failures]
    names = [str(name) for batch in correlator.templates for name in batch.ids]
    return _table(Velocities.concatenate(parts), metas, ids, names)[np.argsort(places, kind="stable")]


def _table(velocities: Velocities, metas: list[Table], ids: list[str], templates: list[str]) -> Table:
    import numpy as np
    from astropy.table import Column, Table

    from maury.flags import ResultFlag, names_of
    from maury.spectra import stack_tables

    meta = stack_tables([Table({name: m[name] for name in _META if name in m.colnames}) for m in metas])
    frames = meta["velocity_frame"] if "velocity_frame" in meta.colnames else [""] * len(ids)
    snr = np.ma.filled(np.ma.MaskedArray(meta["snr"], dtype=float), np.nan)
    v = velocities
    columns = (
        ("file", meta["file"], "", "file the spectrum was read from"),
        ("id", ids, "", "name of the spectrum"),
        ("rv", v.rv, "km/s", "radial velocity in the frame of the wavelengths"),
        ("e_rv", v.e_rv, "km/s", "standard error of rv"),
        ("ccf_peak", v.ccf_peak, "", "height of the correlation at its peak, 0 to 1"),
        ("ccf_second", v.ccf_second, "", "height of the next peak"),
        ("template", ["" if t < 0 else templates[t] for t in v.template], "", "template that fits best"),
        ("chi2", v.chi2, "", "chi-square with that template"),
        ("n_pixels", v.n_pixels, "", "number of pixels used"),
        ("snr", snr, "", "median signal-to-noise ratio per pixel"),
        ("velocity_frame", ["" if np.ma.is_masked(f) else str(f) for f in frames], "", "frame the wavelengths were in, if known"),
        ("flag", v.flag, "", "reasons to doubt the velocity, sum of bits"),
        ("flag_names", ["|".join(names_of(ResultFlag, int(f))) for f in v.flag], "", "names of the bits in flag"),
        ("reason", list(v.reason), "", "why there is no velocity"),
    )
    return Table([Column(data, name=name, unit=unit or None, description=text) for name, data, unit, text in columns])


_META = ("file", "snr", "velocity_frame")
_FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}


def _format_of(path: Path) -> str:
    from maury.errors import CatalogueError

    if path.suffix.lower() not in _FORMATS:
        raise CatalogueError(f"expected a table name ending in {', '.join(_FORMATS)}, got {path}; add one of these endings")
    return _FORMATS[path.suffix.lower()]


def _write(table: Table, path: Path) -> None:
    from maury.catalogue.columns import ascii_text
    from maury.errors import CatalogueError
    from maury.files import replacing

    out = table.copy()
    if _format_of(path) == "fits":  # which holds no other characters; file names in text stay what `maury infer` compares with
        for name in ("file", "id", "template", "reason"):
            out[name] = [ascii_text(str(text)) for text in out[name]]
    with replacing(path, CatalogueError) as temporary:
        out.write(temporary, format=_format_of(path))


def _print(console: Console, table: Table, output: Path) -> None:
    from collections import Counter

    import numpy as np

    measured = np.isfinite(table["rv"])
    text = f"{len(table)} spectra, {int(measured.sum())} with a velocity"
    if measured.any():
        text += f", median error {np.median(table['e_rv'][measured]):.2f} km/s"
    console.print(text, markup=False)
    flags = Counter(name for names in table["flag_names"] for name in str(names).split("|") if name)
    if flags:
        console.print("flagged: " + ", ".join(f"{n} {name}" for name, n in flags.most_common()), markup=False)
    console.print(f"velocities written to {output}, each in the frame of its spectrum's wavelengths", markup=False)
