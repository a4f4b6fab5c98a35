"""Emulator + Fitter is an Inferrer; and how inferrers go into model files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from maury.emulate import emulator_from_arrays
from maury.errors import ModelFileError
from maury.estimates import LabelEstimates
from maury.fit.fitter import ChiSquareFitter
from maury.fit.regional import RegionalInferrer
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.spectra import Spectra

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class EmulatorInferrer:
    """Labels by fitting ``emulator`` to spectra with ``fitter``."""

    emulator: Emulator
    fitter: ChiSquareFitter

    @property
    def labels(self) -> LabelSet:
        return self.fitter.labels_of(self.emulator.labels)

    def infer(self, spectra: Spectra, progress: Callable[[int, int], None] | None = None) -> LabelEstimates:
        """Labels of prepared spectra on the emulator's grid (see :meth:`ChiSquareFitter.fit`)."""
        return self.fitter.fit(spectra, self.emulator, progress)


FittedInferrer = EmulatorInferrer | RegionalInferrer
"""Inferrers that fit emulators; both have ``emulator`` (of the whole label range) and ``fitter``."""


def inferrer_to_arrays(inferrer: FittedInferrer) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and plain settings for a model file."""
    emulator_arrays, emulator_config = inferrer.emulator.to_arrays()
    arrays = _prefixed("emulator.", emulator_arrays)
    config: dict[str, Any] = {"emulator": emulator_config, "fitter": inferrer.fitter.to_config(), "regions": None}
    if isinstance(inferrer, RegionalInferrer):
        configs = []
        for number, region in enumerate(inferrer.regions):
            region_arrays, region_config = region.to_arrays()
            arrays |= _prefixed(f"region{number}.", region_arrays)
            configs.append(region_config)
        config["regions"] = {"label": inferrer.label, "centres": list(inferrer.centres), "emulators": configs}
    return arrays, config


def inferrer_from_arrays(arrays: Arrays, config: dict[str, Any]) -> FittedInferrer:
    """Inverse of :func:`inferrer_to_arrays`.

    Raises
    ------
    ModelFileError
        If an emulator is of a kind this version does not know.
    """
    emulator = emulator_from_arrays(part_of(arrays, "emulator."), config["emulator"])
    fitter = ChiSquareFitter.from_config(config["fitter"])
    regions = config["regions"]
    if regions is None:
        return EmulatorInferrer(emulator, fitter)
    if len(regions["emulators"]) != len(regions["centres"]):
        raise ModelFileError("expected one emulator per region in the model, got another number; train it again")
    parts = tuple(emulator_from_arrays(part_of(arrays, f"region{i}."), c) for i, c in enumerate(regions["emulators"]))
    return RegionalInferrer(emulator, fitter, regions["label"], tuple(regions["centres"]), parts)


def part_of(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}
