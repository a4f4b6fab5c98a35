"""Label estimates into a catalogue: one row per star, every column with unit, UCD and a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.catalogue.columns import (
    CATALOGUE_FORMAT,
    CATALOGUE_VERSION,
    EXTRA,
    FIXED,
    ColumnMeaning,
    ascii_text,
    correlation_meaning,
    flag_meaning,
    interval_meanings,
    label_meanings,
)
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import canonical_json
from maury.flags import RESULT_FLAG_MEANING, FitStatus, ResultFlag, names_of

if TYPE_CHECKING:
    from astropy.table import Column, Table

Pairs = Iterator[tuple[ColumnMeaning, NDArray[Any]]]


def build_catalogue(
    estimates: LabelEstimates,
    *,
    model_id: str,
    provenance: Mapping[str, Any] | None = None,
    extra_columns: bool | Sequence[str] = True,
) -> Table:
    """The catalogue of a batch of estimates.

    Parameters
    ----------
    estimates : values and covariances in label units; ``meta`` gives the columns file, snr and rv.
    model_id : id of the model, as in its file.
    provenance : plain JSON values, for example of :func:`~maury.catalogue.run_provenance`.
    extra_columns : True appends the other columns of ``estimates.meta`` (one value per star, not empty throughout);
        names append just these; False none. A name that the catalogue needs itself is prefixed: ``input_teff``.

    Returns
    -------
    astropy Table. Column ``meta["ucd"]`` holds the UCD; table ``meta`` holds ``format``, ``format_version``,
    ``model_id``, ``provenance`` and ``flag_bits`` (name -> bit and meaning).

    Raises
    ------
    UsageError
        If the provenance holds what JSON can not, or a named extra column is not there.
    """
    from astropy.table import Table

    columns = [_column(meaning, data) for meaning, data in _own_columns(estimates, model_id)]
    table = Table(columns, copy=False)
    for column in _extra_columns(estimates, set(table.colnames), extra_columns):
        table.add_column(column, copy=False)
    table.meta = {
        "format": CATALOGUE_FORMAT,
        "format_version": CATALOGUE_VERSION,
        "model_id": model_id,
        "provenance": json.loads(canonical_json(dict(provenance or {}), "a catalogue's provenance")),
        "flag_bits": {str(bit.name): {"bit": int(bit), "meaning": RESULT_FLAG_MEANING[bit]} for bit in ResultFlag},
        "status_values": [status.value for status in FitStatus],
    }
    return table


def _own_columns(estimates: LabelEstimates, model_id: str) -> Pairs:
    n, labels = len(estimates), estimates.labels.labels
    yield FIXED["file"], _meta_text(estimates, "file")
    yield FIXED["id"], _text(estimates.ids)
    yield from _values(estimates, estimates.values, estimates.covariance, raw=False)
    rho = estimates.correlation
    for (i, first), (j, second) in combinations(enumerate(labels), 2):
        yield correlation_meaning(first, second), rho[:, i, j]
    yield FIXED["chi2"], estimates.chi2
    yield FIXED["n_pixels"], estimates.n_pixels.astype(np.int32)
    yield FIXED["snr"], _meta_float(estimates, "snr")
    yield FIXED["rv"], _meta_float(estimates, "rv")
    yield FIXED["status"], _text([status.value for status in estimates.status])
    yield FIXED["flag"], estimates.flag.astype(np.int32)
    yield FIXED["flag_names"], _text(["|".join(names_of(ResultFlag, int(flag))) for flag in estimates.flag])
    for k, label in enumerate(labels):
        yield flag_meaning(label), estimates.label_flags[:, k].astype(np.int32)
    yield FIXED["reason"], _text(estimates.reason)
    yield FIXED["model_id"], _text([model_id] * n)
    if estimates.raw_values is not None or estimates.raw_covariance is not None:
        yield from _raw_values(estimates)


def _raw_values(estimates: LabelEstimates) -> Pairs:
    """What was before calibration; where it changed the errors alone, ``teff`` is not repeated as ``raw_teff``."""
    values = estimates.values if estimates.raw_values is None else estimates.raw_values
    covariance = estimates.covariance if estimates.raw_covariance is None else estimates.raw_covariance
    for meaning, data in _values(estimates, values, covariance, raw=True):
        if estimates.raw_values is not None or meaning.name.startswith("e_"):
            yield meaning, data


def _values(estimates: LabelEstimates, values: NDArray[Any], covariance: NDArray[Any], *, raw: bool) -> Pairs:
    """Value and error of each label, and lower and upper error where they differ; the error of a missing value is missing too."""
    intervals = None if raw else estimates.interval_errors
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    errors = np.sqrt(np.where(np.isfinite(values) & (variance >= 0), variance, np.nan))
    for k, label in enumerate(estimates.labels.labels):
        value_meaning, error_meaning = label_meanings(label, raw=raw)
        yield value_meaning, values[:, k]
        yield error_meaning, errors[:, k]
        if intervals is not None:
            known = np.isfinite(values[:, k])
            for side, meaning in enumerate(interval_meanings(label)):
                yield meaning, np.where(known, intervals[:, k, side], np.nan)


def _column(meaning: ColumnMeaning, data: NDArray[Any]) -> Column:
    from astropy.table import Column

    meta = {"ucd": meaning.ucd} if meaning.ucd else {}
    return Column(data, name=meaning.name, unit=meaning.unit or None, description=meaning.description, meta=meta, copy=True)


# -- columns of the spectra's meta --------------------------------------------------------------------------------


def _extra_columns(estimates: LabelEstimates, taken: set[str], wanted: bool | Sequence[str]) -> Iterator[Column]:
    meta = estimates.meta
    if wanted is False:
        return
    if wanted is not True:
        absent = [name for name in wanted if name not in meta.colnames]
        if absent:
            raise UsageError(
                f"expected extra columns among {', '.join(meta.colnames)}, got {', '.join(absent)}; correct the name"
            )
    for name in meta.colnames if wanted is True else wanted:
        if name in FIXED and name != "id":
            continue
        data = _plain_array(meta[name])
        if data is None or (wanted is True and _is_empty(data)):
            continue
        given = meta[name]
        known = EXTRA.get(name)
        unit = str(given.unit) if given.unit is not None else (known.unit if known else "")
        text = given.info.description or (known.description if known else f"{name} as given with the spectrum")
        ucd = given.info.meta.get("ucd", "") if given.info.meta else ""
        free = name if name not in taken else f"input_{name}"
        if free not in taken:
            taken.add(free)
            yield _column(ColumnMeaning(free, ascii_text(text), unit, ucd or (known.ucd if known else "")), data)


def _plain_array(column: Any) -> NDArray[Any] | None:
    """One number, truth value or text per star, missing ones as NaN or ""; None where a column holds anything else.

    Integers with gaps become floats, or text if they are too long for that (Gaia's source ids).
    """
    if getattr(column, "ndim", 0) != 1 or not hasattr(column, "dtype"):
        return None
    mask = np.asarray(getattr(column, "mask", np.zeros(len(column), bool)), dtype=bool)
    data = np.asarray(getattr(column, "filled", lambda: column)())
    kind = data.dtype.kind
    if kind in "SU":
        text = np.char.decode(data, "utf-8", "replace") if kind == "S" else data
        return _text(np.where(mask, "", text))
    if kind == "f":
        return np.where(mask, np.nan, data.astype(np.float64))
    if kind in "iu":
        return _integers(data, mask)
    return data if kind == "b" and not mask.any() else None


def _integers(data: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    if not mask.any() and (data <= np.iinfo(np.int64).max).all():
        return data.astype(np.int64)
    if (np.abs(data[~mask].astype(np.float64)) < 2**53).all():
        return np.where(mask, np.nan, data.astype(np.float64))
    return _text(np.where(mask, "", data.astype(np.str_)))


def _is_empty(data: NDArray[Any]) -> bool:
    if data.dtype.kind == "f":
        return bool(np.isnan(data).all())
    return bool((data == "").all()) if data.dtype.kind == "U" else False


def _meta_text(estimates: LabelEstimates, name: str) -> NDArray[np.str_]:
    data = _plain_array(estimates.meta[name]) if name in estimates.meta.colnames else None
    return _text([""] * len(estimates) if data is None else data)


def _meta_float(estimates: LabelEstimates, name: str) -> NDArray[np.float64]:
    data = _plain_array(estimates.meta[name]) if name in estimates.meta.colnames else None
    return np.full(len(estimates), np.nan) if data is None or data.dtype.kind not in "fi" else data.astype(np.float64)


def _text(values: Any) -> NDArray[np.str_]:
    return np.array([str(value) for value in values], dtype=np.str_) if len(values) else np.zeros(0, "U1")
