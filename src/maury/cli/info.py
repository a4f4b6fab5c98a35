"""``maury info FILE``: say what a model or a catalogue is, and where it came from."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MODEL_SUFFIX = ".safetensors"
_LONG = 400  # characters


def info(
    file: Annotated[
        str, typer.Argument(help="A model (file, or name of `maury models`) or a catalogue of `maury infer`.", show_default=False)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Say what a model or a catalogue is: labels, units, ranges, flags, versions, the command that made it."""
    from maury.cli.console import output_console

    is_model = _is_model(file)
    about = _describe(file, is_model)
    if json:
        typer.echo(json_module.dumps({"type": "model" if is_model else "catalogue", **about}, indent=1, allow_nan=False))
    elif is_model:
        _print_model(output_console(), about)
    else:
        _print_catalogue(output_console(), about)


def _is_model(file: str) -> bool:
    from maury.catalogue.formats import FORMAT_OF_SUFFIX, has_catalogue_suffix
    from maury.errors import UsageError
    from maury.models import SHIPPED, is_shipped

    if is_shipped(file) or Path(file).suffix.lower() == _MODEL_SUFFIX:
        return True
    if not has_catalogue_suffix(file):
        known = ", ".join((_MODEL_SUFFIX, *FORMAT_OF_SUFFIX))
        raise UsageError(
            f"expected a model or a catalogue (name ending in {known}, or {', '.join(SHIPPED)}), got {file}; "
            "for spectra use `maury read`"
        )
    return False


def _describe(file: str, is_model: bool) -> dict[str, Any]:
    if is_model:
        from maury.store import describe_model

        return describe_model(file)
    from maury.catalogue import describe_catalogue

    return describe_catalogue(file)


# -- printing -----------------------------------------------------------------------------------------------------


def _print_model(console: Console, about: dict[str, Any]) -> None:
    _head(console, f"model of kind {about['kind']}", about, f"format {about['format_version']}, written by {about['created_by']}")
    if about["wavelength"]:
        first, last = about["wavelength"]
        console.print(f"{about['n_pixels']} pixels, {first:.2f} - {last:.2f} Å", style="default", markup=False)
    labels = _table("label", "unit", "from", "to", "model coordinate", "meaning")
    for label in about["labels"]:
        low, high = label["range"]
        _row(labels, label["name"], label["unit"], f"{low:g}", f"{high:g}", label["coordinate"], label["description"])
    _section(console, "labels, with the range of the training stars", labels)
    settings = dict(about["settings"])
    steps = _table("", "step", "settings")
    for number, step in enumerate(settings.pop("preparation", None) or [], start=1):
        rest = {key: value for key, value in step.items() if key != "step"}
        _row(steps, str(number), str(step.get("step", "")), _short(rest))
    _section(console, "preparation", steps)
    _section(console, "settings", _pairs(settings))
    _section(console, "provenance", _pairs(about["provenance"]))


def _print_catalogue(console: Console, about: dict[str, Any]) -> None:
    status = ", ".join(f"{count} {name}" for name, count in about["status"].items())
    _head(console, f"catalogue of {about['n_stars']} stars", about, f"{status or 'no star'}; {about['n_unflagged']} without flag")
    columns = _table("column", "unit", "smallest", "median", "largest", "missing", "meaning")
    for column in about["columns"]:
        numbers = [f"{x:.5g}" for x in column.get("range", [])] or ["", "", ""]
        missing = str(column["n_missing"]) if column.get("n_missing") else ""
        _row(columns, column["name"], column["unit"], *numbers, missing, column["description"])
    _section(console, "columns", columns)
    flags = _table("flag", "bit", "stars", "meaning")
    for name, flag in about["flags"].items():
        if flag["n_stars"]:
            _row(flags, name, str(flag["bit"]), str(flag["n_stars"]), flag["meaning"])
    _section(console, "flags that are set", flags)
    _section(console, "provenance", _pairs(about["provenance"]))


def _head(console: Console, title: str, about: dict[str, Any], line: str) -> None:
    console.print(f"{about['file']}: {title}, id {about['model_id']}", style="bold", markup=False, soft_wrap=True)
    console.print(line, markup=False)


def _section(console: Console, title: str, table: Table) -> None:
    if table.row_count:
        console.print(f"\n{title}", style="bold", markup=False)
        console.print(table)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    numbers = ("from", "to", "smallest", "median", "largest", "missing", "bit", "stars")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _pairs(values: dict[str, Any]) -> Table:
    table = _table("", "")
    table.show_header = False
    for key, value in values.items():
        if value is not None:
            _row(table, key, _short(value))
    return table


def _row(table: Table, *cells: str) -> None:
    """File names and reasons may hold brackets, which rich would take for markup."""
    from rich.text import Text

    table.add_row(*(Text(cell) for cell in cells))


def _short(value: Any) -> str:
    """One line for a setting: plain words where possible, JSON deeper down; of long lists only the length."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} = {_short(item)}" if not isinstance(item, dict) else f"{key} = {_json(item)}" for key, item in value.items()
        )
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    text = json_module.dumps(value)
    return text if len(text) <= _LONG or not isinstance(value, list | dict) else f"({len(value)} values)"
