"""Checkpoints: a training that was killed goes on where it was and ends with the same weights.

One safetensors file per training, written to a temporary name and moved into place, so a kill at any moment leaves a
whole one. Nothing is pickled. A fingerprint of data and settings stands in it: a checkpoint of another training is not used.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ModelFileError
from maury.files import canonical_json, replacing

Arrays = dict[str, NDArray[Any]]

_META = "maury_checkpoint_2"  # counts up when a state holds something else: one of before is none, its training starts anew


def fingerprint_of(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits that change with any setting and any number."""
    digest = hashlib.sha256(canonical_json(dict(settings), "the settings of a training").encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:32]


@dataclass(eq=False)
class Checkpoint:
    """Where one training keeps its state.

    Parameters
    ----------
    folder : made if it is missing; may be shared by many trainings.
    fingerprint : names the training (:func:`fingerprint_of`), and the file.
    every_seconds : time between two writes; it has no influence on the result.
    """

    folder: Path
    fingerprint: str
    every_seconds: float = 10.0
    _last: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.fingerprint}.safetensors"

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Write the whole state; ``state`` is plain JSON.

        Raises
        ------
        ModelFileError
            If the file cannot be written (a full disk, no permission).
        """
        from safetensors.numpy import save

        self.folder.mkdir(parents=True, exist_ok=True)
        ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        text = canonical_json({"state": dict(state), "sha256": fingerprint_of(state, ready)}, "a checkpoint")
        with replacing(self.path, ModelFileError) as temporary:
            temporary.write_bytes(save(ready, metadata={_META: text}))
        self._last = time.monotonic()

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The state that was saved, or None where there is none that is whole and of this form: the training then starts anew."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="numpy") as opened:
                metadata = dict(opened.metadata() or {})
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            written = json.loads(metadata[_META])
            state: dict[str, Any] = written["state"]
            whole = written["sha256"] == fingerprint_of(state, arrays)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None
        return (arrays, state) if whole else None
