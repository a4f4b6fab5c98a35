"""``maury models``: the models that come with the package, or the card of one."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    name: Annotated[str | None, typer.Argument(help="Print the card of this model.")] = None,
) -> None:
    """List the models that ship, usable by name in every command; or print what is known of one: data, errors, limits."""
    from maury.cli.console import output_console
    from maury.errors import ModelFileError
    from maury.models import SHIPPED

    if name is not None:
        if name not in SHIPPED:
            raise ModelFileError(f"expected a model that ships ({', '.join(SHIPPED)}), got {name}; see `maury models`")
        typer.echo(SHIPPED[name].card.read_text(encoding="utf-8"), nl=False)
        return
    console = output_console()
    for model in SHIPPED.values():
        for line in _lines(model.name):
            console.print(line, markup=False)
    example = next(iter(SHIPPED))
    console.print(f"\nmaury models {example} prints its card; maury infer {example} FILES -o stars.fits uses it", markup=False)


def _lines(name: str) -> list[str]:
    """What one model is for, its labels, wavelengths and size."""
    from maury.files import size_text
    from maury.models import SHIPPED
    from maury.store import describe_model

    model, about = SHIPPED[name], describe_model(name)
    first, last = about["wavelength"]
    grid = f"{first:.0f}-{last:.0f} Å {about['provenance'].get('medium', '')}, {about['n_pixels']} pixels"
    lines = [f"{name}: {model.purpose}", f"  {grid}; {size_text(model.file.stat().st_size)}; id {about['model_id']}"]
    for label in about["labels"]:
        low, high = (float(f"{end:.4g}") if abs(end) > 1e-6 else 0.0 for end in label["range"])
        lines.append(f"  {label['name']:8s} {low:g} to {high:g} {label['unit']:5s} {label['description']}")
    return lines
