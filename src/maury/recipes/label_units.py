"""Units of label columns: what a part's table holds -> the unit of the label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import RecipeError
from maury.labels import Label
from maury.recipes.data_schema import PartRecipe

FloatArray = NDArray[np.float64]


def to_label_unit(values: ArrayLike, unit: str, label: Label) -> FloatArray:
    """(n,) values of a column of ``unit`` in the label's own unit; NaN stays NaN.

    Logarithmic units work too: a column of log10(v / km/s) has the unit ``dex(km/s)``.

    Raises
    ------
    RecipeError
        If astropy does not know the unit, or it cannot become the label's.
    """
    import astropy.units as u

    try:
        with np.errstate(over="ignore"):
            converted = u.Quantity(np.asarray(values, dtype=np.float64), u.Unit(unit), subok=True).to_value(u.Unit(label.unit))
    except (ValueError, TypeError):  # astropy's own unit errors are kinds of these
        raise RecipeError(
            f"expected a unit that can become {label.unit} for label {label.name!r}, got {unit!r}; correct units of that part"
        ) from None
    return np.asarray(converted, dtype=np.float64)


def errors_to_label_unit(values: FloatArray, errors: FloatArray, unit: str, label: Label) -> FloatArray:
    """(n,) standard errors of a column in the label's unit: half of what value ± error spans there."""
    if unit == label.unit:
        return errors
    span = to_label_unit(values + errors, unit, label) - to_label_unit(values - errors, unit, label)
    return np.asarray(0.5 * np.abs(span))


def check_labels_of(part: PartRecipe, labels: Sequence[Label]) -> None:
    """Raise RecipeError if a part names labels that the recipe does not have, or units they cannot have."""
    known = {label.name: label for label in labels}
    for key in ("columns", "error_columns", "units"):
        unknown = [name for name in getattr(part, key) if name not in known]
        if unknown:
            raise RecipeError(
                f"expected labels among {', '.join(known)} in {key} of part {part.name!r}, got {unknown[0]!r}; correct its name"
            )
    for name, unit in part.units.items():
        to_label_unit([1.0], unit, known[name])
