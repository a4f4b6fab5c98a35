"""Steps to configuration and back: what stands in a recipe and inside a model file."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from maury.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from maury.protocols import Step

Ranges = tuple[tuple[float, float], ...]
"""Wavelength ranges (low, high) in Å."""


def config_of(step: Any) -> dict[str, Any]:
    """``{"step": name, parameter: value, ...}`` of a step dataclass, in plain JSON types; every parameter is written."""
    return {"step": step.name} | {f.name: _plain(getattr(step, f.name)) for f in fields(step)}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    return value


def canonical(config: Any) -> Any:
    """The same configuration with every whole number as a float, so that ``4500`` and ``4500.0`` are one recipe."""
    if isinstance(config, dict):
        return {k: canonical(v) for k, v in config.items()}
    if isinstance(config, list):
        return [canonical(v) for v in config]
    if isinstance(config, int) and not isinstance(config, bool):
        return float(config)
    return config


def step_from_config(config: dict[str, Any], registry: dict[str, type[Any]]) -> Step:
    """A step from its entry in a recipe.

    Raises
    ------
    RecipeError
        If the step or one of its keys is unknown, or a value has the wrong type or an impossible value.
    """
    name = config.get("step")
    if name not in registry:
        raise RecipeError(f"expected a preparation step among {', '.join(sorted(registry))}, got {name!r}; correct its name")
    values = {k: v for k, v in config.items() if k != "step"}
    allowed = [f.name for f in fields(registry[name])]
    unknown = [k for k in values if k not in allowed]
    if unknown:
        keys = ", ".join(allowed) if allowed else "none"
        raise RecipeError(f"step {name!r} expects only the keys {keys}, got {', '.join(unknown)}; correct or remove it")
    step: Step = _validated(name, registry[name], values)
    return step


def _validated(name: str, cls: type[Any], values: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:  # strict JSON mode: lists become tuples and 1 becomes 1.0, but "1" is not a number and 1 is not true
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, UsageError):
            raise RecipeError(f"step {name!r}: {cause}") from error
        where = ".".join(str(part) for part in first["loc"]) or "its values"
        raise RecipeError(
            f"step {name!r} got an unusable {where} = {first.get('input')!r}: {first['msg']}; correct it"
        ) from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"step {name!r} expects plain numbers, words and lists, got others ({error}); correct them") from error


def check_ranges(name: str, ranges: Ranges) -> None:
    """Raise UsageError unless every range is (low, high) in Å with 0 < low < high."""
    for low, high in ranges:
        if not 0 < low < high:
            raise UsageError(
                f"expected {name} as (low, high) in Å with 0 < low < high, got ({low}, {high}); swap or correct them"
            )


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise UsageError unless ``value`` is one of the words of a Literal type."""
    words = get_args(choices)
    if value not in words:
        raise UsageError(f"expected {name} among {', '.join(words)}, got {value!r}; correct it")


VarianceRule = Literal["information", "marginal"]
"""How variances go through an operation that correlates neighbouring pixels; see :mod:`maury.prepare.resample`."""
