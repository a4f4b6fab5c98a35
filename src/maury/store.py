"""Model files: one safetensors file of arrays with a JSON header. No pickle; nothing in the file is ever executed.

The header lies in the safetensors metadata under the key ``maury``. What the caller gives (``kind``, configuration,
labels, ``provenance``, ...) is completed with

* ``format`` ("maury-model") and ``format_version``: which files this version of the package can read;
* ``created_by``: the version of maury that wrote the file;
* ``arrays``: shape and dtype of each array, so that a missing one is noticed;
* ``model_id``: 12 hexadecimal digits, a hash of the arrays and of the header without ``provenance`` and ``created_by``:
  the same training gives the same id, whoever ran it and when;
* ``sha256``: over arrays and the whole header, so that a damaged file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury import __version__
from maury.errors import ModelFileError, UsageError
from maury.files import canonical_json, one_line, replacing
from maury.models import SHIPPED, model_path

if TYPE_CHECKING:
    from maury.model import Model

FORMAT = "maury-model"
FORMAT_VERSION = 1

_METADATA_KEY = "maury"
_ADDED = ("format", "format_version", "created_by", "arrays", "model_id", "sha256")
_NOT_IN_ID = ("provenance", "created_by", "model_id", "sha256")
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON as an unsigned 64-bit integer

Arrays = dict[str, NDArray[Any]]


def write_model_file(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> str:
    """Write arrays and header to one safetensors file, atomically; the same input gives the same bytes.

    Parameters
    ----------
    path : file to write; an existing file is replaced.
    arrays : real, integer or boolean arrays of any shape, by name.
    header : plain JSON values (numpy scalars and arrays become numbers and lists); ``kind`` (text) must be there.
        Entries under ``provenance`` do not enter the model's id.

    Returns
    -------
    The model's id, 12 hexadecimal digits.

    Raises
    ------
    UsageError
        If ``kind`` is missing, an added key is given, a value is not JSON or not finite, or an array has another dtype.
    ModelFileError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    ready = {name: _ready_array(name, array) for name, array in arrays.items()}
    complete = _complete_header(ready, header)
    with replacing(path, ModelFileError) as temporary:
        temporary.write_bytes(save(ready, metadata={_METADATA_KEY: _canonical(complete)}))
    return str(complete["model_id"])


def model_id_of(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> str:
    """The id that :func:`write_model_file` would give, for a model that was never written."""
    ready = {name: _ready_array(name, array) for name, array in arrays.items()}
    return str(_complete_header(ready, header)["model_id"])


def read_model_file(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and header of a model file, checked against the stored hash.

    Parameters
    ----------
    path : of a file, or the name of a model that ships, such as ``gaia-rvs`` (see :mod:`maury.models`).

    Raises
    ------
    ModelFileError
        One sentence each: no such file or shipped model, a folder, empty, truncated, not safetensors, not ours, newer format,
        broken header, an array missing or of another shape, contents that do not match their hash.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = model_path(path)
    header = _parse_header(file, _read_metadata(file))
    try:
        arrays = load(file.read_bytes())
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as failure:
        raise ModelFileError(
            f"expected arrays that can be read in {file}, got {one_line(failure)}; copy or train it again"
        ) from None
    _check_arrays(file, arrays, header)
    if header["sha256"] != _digest(arrays, {k: v for k, v in header.items() if k != "sha256"}):
        raise ModelFileError(f"expected contents that match their hash in {file}, got others; the file is damaged: copy it again")
    return arrays, header


# -- writing ------------------------------------------------------------------------------------------------------


def _ready_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Little-endian and C-ordered, which is what safetensors stores."""
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise UsageError(f"expected real, integer or boolean numbers in array {name!r}, got {array.dtype}; convert it first")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _complete_header(arrays: Arrays, header: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(header.get("kind"), str):
        raise UsageError("expected a header with the kind of model as text under 'kind', got none; name the kind")
    taken = [key for key in _ADDED if key in header]
    if taken:
        raise UsageError(f"expected a header without {', '.join(taken)}, which the file adds itself; rename the entry")
    complete: dict[str, Any] = json.loads(_canonical(header))
    complete |= {"format": FORMAT, "format_version": FORMAT_VERSION, "created_by": f"maury {__version__}"}
    complete["arrays"] = {name: {"shape": list(a.shape), "dtype": a.dtype.name} for name, a in sorted(arrays.items())}
    complete["model_id"] = _digest(arrays, {k: v for k, v in complete.items() if k not in _NOT_IN_ID})[:12]
    complete["sha256"] = _digest(arrays, complete)
    return complete


def _digest(arrays: Arrays, header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_canonical(header).encode())
    for name in sorted(arrays):  # shapes and dtypes stand in the header
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _canonical(header: Mapping[str, Any]) -> str:
    return canonical_json(header, "a model's header")


# -- reading ------------------------------------------------------------------------------------------------------


def _read_metadata(file: Path) -> dict[str, str]:
    """The safetensors metadata; says which of the ways to be no such file this one is."""
    from safetensors import SafetensorError, safe_open

    if file.is_dir():
        raise ModelFileError(f"expected a model file, got the folder {file}; give the .safetensors file in it")
    try:
        size = file.stat().st_size
        if size == 0:
            raise ModelFileError(f"expected a model file, got the empty file {file}; copy or train it again")
        if _is_truncated(file, size):
            raise ModelFileError(f"expected a whole model file, got the truncated file {file}; copy it again")
        with safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except FileNotFoundError:
        raise ModelFileError(
            f"expected a model file or the name of a model that ships ({', '.join(SHIPPED)}), got no file at {file}; "
            "check the path"
        ) from None
    except OSError as failure:
        raise ModelFileError(f"expected a model file that can be read, got {failure.strerror or failure} at {file}") from None
    except (SafetensorError, ValueError):
        raise ModelFileError(
            f"expected a safetensors model file, got another kind of file: {file}; give a file of `maury train`"
        ) from None


def _is_truncated(file: Path, size: int) -> bool:
    """Whether the file starts as safetensors does and ends before its own JSON says it should."""
    with open(file, "rb") as handle:
        start = handle.read(_LENGTH_BYTES + 1)
        if len(start) <= _LENGTH_BYTES or start[_LENGTH_BYTES:] != b"{":
            return False
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        if length > size - _LENGTH_BYTES:
            return length < 100_000_000  # the format's own limit: a longer header is no header
        handle.seek(_LENGTH_BYTES)
        try:
            entries = json.loads(handle.read(length))
            end = max((int(e["data_offsets"][1]) for name, e in entries.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return False
    return _LENGTH_BYTES + length + end > size


def _parse_header(file: Path, metadata: dict[str, str]) -> dict[str, Any]:
    text = metadata.get(_METADATA_KEY)
    if text is None:
        raise ModelFileError(f"expected a model of maury, got the safetensors file of another program: {file}")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("format_version"), int):
        raise ModelFileError(f"expected a model header that can be read in {file}, got a broken one; copy or train it again")
    if header["format_version"] > FORMAT_VERSION:
        raise ModelFileError(
            f"expected a model of format {FORMAT_VERSION} or older, got format {header['format_version']} in {file} "
            f"(written by {header.get('created_by', 'a newer maury')}); update maury"
        )
    if not isinstance(header.get("arrays"), dict) or not all(
        isinstance(header.get(k), str) for k in ("kind", "model_id", "sha256")
    ):
        raise ModelFileError(f"expected a model header that can be read in {file}, got a broken one; copy or train it again")
    return header


def _check_arrays(file: Path, arrays: Arrays, header: dict[str, Any]) -> None:
    missing = sorted(set(header["arrays"]) - set(arrays))
    if missing:
        raise ModelFileError(f"expected the arrays {', '.join(missing)} in {file}, got a file without; copy or train it again")
    extra = sorted(set(arrays) - set(header["arrays"]))
    changed = [
        n for n, a in arrays.items() if n not in extra and header["arrays"][n] != {"shape": list(a.shape), "dtype": a.dtype.name}
    ]
    if extra or changed:
        raise ModelFileError(
            f"expected the arrays that the header of {file} names, got others ({', '.join(extra + changed)}); "
            "copy or train it again"
        )


# -- description --------------------------------------------------------------------------------------------------


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model file holds, as plain JSON values, for ``maury info``; the file is read whole and its hash checked.

    Returns
    -------
    dict with ``file``, ``kind``, ``model_id``, ``format_version``, ``created_by``, ``labels`` (name, unit, description,
    coordinate, range), ``n_pixels`` and ``wavelength`` (first and last, Å), ``arrays`` (name -> shape and dtype),
    ``provenance``, and ``settings``: the rest of the header (preparation, fitter, cuts, error model, ...).

    Raises
    ------
    ModelFileError
        As :func:`read_model_file`.
    """
    arrays, header = read_model_file(path)
    part = "inferrer" if "inferrer" in header else "emulator"  # what holds the labels and the grid
    wavelength = arrays.get(f"{part}.wavelength", np.zeros(0))
    shown = {"kind", "emulator", "inferrer", "provenance", *_ADDED}
    return {
        "file": os.fspath(path),
        **{name: header[name] for name in ("kind", "model_id", "format_version", "created_by", "arrays")},
        "labels": _describe_labels(header.get(part, {}).get("label_set", {})),
        "n_pixels": int(wavelength.size),
        "wavelength": [float(wavelength[0]), float(wavelength[-1])] if wavelength.size else [],
        "settings": {name: value for name, value in header.items() if name not in shown},
        "provenance": header.get("provenance", {}),
    }


def _describe_labels(config: dict[str, Any]) -> list[dict[str, Any]]:
    ranges = zip(config.get("labels", []), config.get("lower", []), config.get("upper", []), strict=True)
    keys = ("name", "unit", "description", "coordinate")
    return [{**{key: label.get(key, "") for key in keys}, "range": [lower, upper]} for label, lower, upper in ranges]


# -- models -------------------------------------------------------------------------------------------------------


def save_model(model: Model, path: str | os.PathLike[str]) -> str:
    """Write a model to one file; returns its id.

    Raises
    ------
    ModelFileError
        If the file cannot be written.
    """
    return write_model_file(path, *model.to_arrays())


def load_model(path: str | os.PathLike[str]) -> Model:
    """The model that :func:`save_model` wrote, or one that ships.

    Parameters
    ----------
    path : of a file, or a name of :data:`maury.models.SHIPPED`: ``load_model("gaia-rvs")``.

    Raises
    ------
    ModelFileError
        If the file is not a whole, undamaged model that this version can read; see :func:`read_model_file`.
    """
    from maury.model import Model

    arrays, header = read_model_file(path)
    try:
        return Model.from_arrays(arrays, header)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as failure:
        raise ModelFileError(
            f"expected a model header that fits this version of maury in {path}, got {one_line(failure)!r}; train it again"
        ) from None
