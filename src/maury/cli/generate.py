"""``maury generate MODEL --teff 5777 --logg 4.44 ... -o spectra.fits``: spectra of labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from maury.catalogue.spectra_file import SpectrumGenerator
    from maury.labels import LabelSet
    from maury.model import Model
    from maury.spectra import Medium

    FloatArray = NDArray[np.float64]

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The labels are options whose names only the model knows."""

DEFAULTS = {
    "v_micro": (1.0, "usual for stars like the Sun; giants and hot stars have 1.5 to 3"),
    "vsini": (0.0, "no rotation"),
    "v_macro": (0.0, "no macroturbulence"),
}
"""Labels that may be left out: value in the house's unit, and why that. A constant v_micro, not a relation with Teff and log g:
each of the published ones holds for some stars only, and a constant surprises nobody."""

_BAR_AFTER_SECONDS = 2.0
_EDGE = 1e-4  # of the training range: ends as they are printed, and a v sin i of 0 where the slowest training star has 1e-9 km/s


def generate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model file of `maury train`, or a name of `maury models`.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .fits, or .csv for a single star.")] = Path(
        "spectra.fits"
    ),
    table: Annotated[
        Path | None, typer.Option("--table", help="Table with a column for each label and a row for each star; id names them.")
    ] = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Allow labels outside the training range; they are flagged.")
    ] = False,
    medium: Annotated[str | None, typer.Option("--medium", help="air or vacuum, for models that do not say.")] = None,
) -> None:
    """Generate spectra of given labels: `maury generate gaia-rvs --teff 5777 --logg 4.44 --mh 0`.

    Each label of the model (`maury info MODEL` lists them) is an option of its name. With --table they are its columns; a label
    given as an option holds for all rows then. v_micro (then 1 km/s), vsini and v_macro (then 0) may be left out.
    """
    from maury.catalogue import run_provenance
    from maury.catalogue.spectra_file import check_spectra_name, write_spectra
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.fit.inferrer import fitted
    from maury.store import load_model

    loaded = load_model(_not_an_option(model))
    labels = fitted(loaded.inferrer).emulator.labels  # a velocity that is fitted along is none of a spectrum at rest
    ids, values, assumed = _stars(labels, label_options(context.args, labels), table)
    check_spectra_name(output, len(values))
    generator = _generator(loaded, medium)
    if not extrapolate:
        values = _in_range(labels, ids, values)
    with stage_bars() as report:
        flags = write_spectra(
            output,
            generator,
            values,
            ids=ids,
            provenance=run_provenance(model_file=Path(model).name, model=loaded.provenance.get("recipe", {}).get("name")),
            progress=_late(report),
        )
    _print(output_console(), generator, flags, output, assumed)


def label_options(words: Sequence[str], labels: LabelSet) -> dict[str, float]:
    """Labels from ``--teff 5777 --fe_h=-0.5``; upper case, ``-`` and ``_`` in names do not matter (``--fe-h``, ``--feh``).

    Raises
    ------
    UsageError
        If a word is no label of the model, comes twice, or has no number; the sentence lists the labels with units and ranges.
    """
    from maury.errors import UsageError

    known = {_plain(name): name for name in labels.names}
    found: dict[str, float] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        option, has_value, text = word.partition("=")
        name = known.get(_plain(option)) if option.startswith("--") else None
        if name is None:
            raise UsageError(f"expected labels of this model ({_described(labels)}), got {word!r}; write --NAME VALUE")
        if name in found:
            raise UsageError(f"expected each label once, got {option} twice; leave one out")
        value = text if has_value else left.pop(0) if left else ""
        try:
            found[name] = float(value)
        except ValueError:
            unit = labels.units[labels.index(name)]
            raise UsageError(f"expected a number ({unit}) after {option}, got {value!r}; write {option} VALUE") from None
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _described(labels: LabelSet) -> str:
    ranges = zip(labels.names, labels.units, labels.lower, labels.upper, strict=True)
    return ", ".join(f"{name} {low:.5g} to {high:.5g} {unit}" for name, unit, low, high in ranges)


def _not_an_option(model: str) -> str:
    from maury.errors import UsageError

    if model.startswith("-"):
        raise UsageError(f"expected the model file first, got {model}; write maury generate MODEL --NAME VALUE ...")
    return model


def _stars(labels: LabelSet, options: dict[str, float], table: Path | None) -> tuple[list[str], FloatArray, dict[str, float]]:
    """Names and (n, K) labels of the stars, from the options and the table together; and what was assumed of labels left out."""
    import numpy as np

    from maury.errors import UsageError

    ids, columns = (["0"], {}) if table is None else _table_columns(labels, table)
    both = [name for name in labels.names if name in options and name in columns]
    if both:
        raise UsageError(f"expected each label once, got {both[0]} as an option and in {table}; leave one out")
    left_out = [name for name in labels.names if name not in options and name not in columns]
    assumed = {name: DEFAULTS[name][0] for name in left_out if name in DEFAULTS}
    missing = [name for name in left_out if name not in assumed]
    if missing:
        where = "as options (--NAME VALUE)" if table is None else f"as columns of {table} or options"
        raise UsageError(f"expected all labels of this model {where}: {_described(labels)}; got none for {', '.join(missing)}")
    given = {**assumed, **options}
    values = np.column_stack([columns.get(name, np.full(len(ids), given.get(name, np.nan))) for name in labels.names])
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, k = wrong[0]
        raise UsageError(f"expected finite labels, got {values[row, k]} for {labels.names[k]} of star {ids[row]}; correct it")
    return ids, values, assumed


def _table_columns(labels: LabelSet, path: Path) -> tuple[list[str], dict[str, FloatArray]]:
    import numpy as np

    from maury.errors import UsageError
    from maury.recipes.label_table import read_label_table
    from maury.recipes.label_units import to_label_unit

    table = read_label_table(path)
    if len(table) == 0:
        raise UsageError(f"expected a row for each star in {path}, got none; add rows")
    ids = [str(name) for name in table["id"]] if "id" in table.colnames else [str(row) for row in range(len(table))]
    known = {_plain(label.name): label for label in labels.labels}
    columns: dict[str, FloatArray] = {}
    for name in table.colnames:
        label = known.get(_plain(name))
        if label is None:
            continue
        if label.name in columns:
            raise UsageError(f"expected one column for {label.name} in {path}, got several; rename the others")
        try:
            numbers = np.ma.filled(np.ma.MaskedArray(table[name], dtype=np.float64), np.nan)
        except ValueError:
            raise UsageError(f"expected numbers in column {name} of {path}, got text; correct the table") from None
        unit = table[name].unit
        columns[label.name] = np.asarray(numbers) if unit is None else to_label_unit(numbers, str(unit), label)
    return ids, columns


def _generator(model: Model, medium: str | None) -> SpectrumGenerator:
    from maury.catalogue.spectra_file import SpectrumGenerator, medium_of
    from maury.errors import UsageError
    from maury.fit.inferrer import fitted

    said = medium_of(model.preparation) or model.provenance.get("medium") or medium
    if said not in ("vacuum", "air"):
        raise UsageError(
            "expected to know whether the model's wavelengths are in air or in vacuum, got a model whose preparation converts "
            f"neither way and --medium {medium or 'not given'}; add --medium vacuum or --medium air, as its training spectra were"
        )
    # of a model of regions the global emulator: it describes the MILES training spectra better than the blended regional ones in
    # four of five Teff ranges (median rms 2.8 against 3.0 % at 4800-5800 K), and it has no seams
    return SpectrumGenerator(
        fitted(model.inferrer).emulator, model.region, model.preparation, cast("Medium", said), model.model_id
    )


def _in_range(labels: LabelSet, ids: list[str], values: FloatArray) -> FloatArray:
    """The labels, those a hair's breadth outside the training range put to its end.

    Raises
    ------
    UsageError
        If one lies farther outside.
    """
    import numpy as np

    from maury.errors import UsageError

    lower, upper = np.array(labels.lower), np.array(labels.upper)
    near = np.clip(values, lower, upper)
    outside = np.argwhere(np.abs(near - values) > _EDGE * (upper - lower))
    if len(outside):
        row, k = outside[0]
        more = len(np.unique(outside[:, 0])) - 1
        who = f" of star {ids[row]}" if len(ids) > 1 else ""
        raise UsageError(
            f"expected {labels.names[k]}{who} between {labels.lower[k]:.5g} and {labels.upper[k]:.5g} {labels.units[k]}, the "
            f"training range, got {values[row, k]:g}{f' ({more} more stars are outside)' if more else ''}; change it, or add "
            "--extrapolate to get a flagged spectrum"
        )
    return near


def _late(report: Callable[[str, int, int], None]) -> Callable[[int, int], None]:
    """A progress callback that stays silent for the first two seconds."""
    start = time.monotonic()

    def step(done: int, total: int) -> None:
        if time.monotonic() - start > _BAR_AFTER_SECONDS:
            report("simulate", done, total)

    return step


def _print(
    console: Console, generator: SpectrumGenerator, flags: NDArray[np.int64], output: Path, assumed: dict[str, float]
) -> None:
    from collections import Counter

    from maury.catalogue.spectra_file import form_sentence
    from maury.flags import ResultFlag, names_of

    wavelength = generator.emulator.wavelength
    what = f"{len(flags)} {'spectrum' if len(flags) == 1 else 'spectra'} of {len(wavelength)} pixels"
    where = f"{wavelength[0]:.1f}-{wavelength[-1]:.1f} Å {generator.medium}, rest frame"
    console.print(f"{what}, {where}, written to {output}", markup=False)
    console.print(form_sentence(generator.preparation), markup=False)
    labels = generator.emulator.labels
    for name, value in assumed.items():
        unit = labels.units[labels.index(name)]
        console.print(f"{name} was not given: {value:g} {unit} ({DEFAULTS[name][1]})", markup=False)
    counts = Counter(name for flag in flags.tolist() for name in names_of(ResultFlag, flag))
    if counts:
        console.print("flagged: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()), markup=False)
