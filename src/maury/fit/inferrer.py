"""Emulator + Fitter is an Inferrer; and which inferrers a model holds, sets to work and puts into its file.

There are two sorts. Inferrers that fit (:data:`FittedInferrer`) have an emulator and a fitter, and a model file names their
parts. Inferrers that stand alone (:data:`STANDALONE`) go from flux to labels by themselves. What needs an emulator asks
:func:`fitted` for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from maury.emulate import emulator_from_arrays
from maury.errors import ModelFileError, UsageError
from maury.estimates import LabelEstimates
from maury.files import part_of
from maury.fit.fitter import ChiSquareFitter
from maury.fit.products import check_device
from maury.fit.regional import RegionalInferrer
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.pca_mlp import PcaMlpInferrer
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


ModelInferrer = FittedInferrer | PcaMlpInferrer | EnsembleInferrer
"""What a :class:`maury.Model` may hold."""

STANDALONE: dict[str, type[PcaMlpInferrer | EnsembleInferrer]] = {"pca_mlp": PcaMlpInferrer, "ensemble": EnsembleInferrer}
"""Kinds of inferrers without an emulator that a model file may hold."""


def fitted(inferrer: ModelInferrer) -> FittedInferrer:
    """The inferrer itself, if it has an emulator and a fitter: what generates spectra, or looks into a fit, needs them.

    Raises
    ------
    UsageError
        If it stands alone.
    """
    if isinstance(inferrer, FittedInferrer):
        return inferrer
    raise UsageError(
        "expected a model with an emulator, which turns labels into spectra, got one that turns spectra into labels alone "
        f"({type(inferrer).__name__}); take a Cannon, a Payne or a generator"
    )


def own_labels(inferrer: ModelInferrer) -> LabelSet:
    """The labels it was trained on, which region and error model know: all of its labels but a fitted velocity."""
    return inferrer.emulator.labels if isinstance(inferrer, FittedInferrer) else inferrer.labels


def workers_of(inferrer: ModelInferrer) -> int:
    """Blocks of spectra that it works on at the same time."""
    return inferrer.fitter.workers if isinstance(inferrer, FittedInferrer) else inferrer.workers


def running_on(inferrer: ModelInferrer, device: str, workers: int) -> ModelInferrer:
    """The same inferrer at work elsewhere; one that stands alone computes in numpy on any device.

    Raises
    ------
    UsageError
        If the device is not there.
    """
    if isinstance(inferrer, FittedInferrer):
        return replace(inferrer, fitter=replace(inferrer.fitter, device=device, workers=workers))
    check_device(device)
    return replace(inferrer, workers=workers)


def inferrer_to_arrays(inferrer: ModelInferrer) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and plain settings, with the model's ``kind``, for a model file."""
    if not isinstance(inferrer, FittedInferrer):
        own_arrays, own_config = inferrer.to_arrays()
        return _prefixed("inferrer.", own_arrays), {"kind": own_config["kind"], "inferrer": own_config}
    emulator_arrays, emulator_config = inferrer.emulator.to_arrays()
    arrays = _prefixed("emulator.", emulator_arrays)
    config: dict[str, Any] = {"kind": emulator_config["kind"], "emulator": emulator_config}
    config |= {"fitter": inferrer.fitter.to_config(), "regions": None}
    if isinstance(inferrer, RegionalInferrer):
        configs = []
        for number, region in enumerate(inferrer.regions):
            region_arrays, region_config = region.to_arrays()
            arrays |= _prefixed(f"region{number}.", region_arrays)
            configs.append(region_config)
        config["regions"] = {"label": inferrer.label, "centres": list(inferrer.centres), "emulators": configs}
    return arrays, config


def inferrer_from_arrays(arrays: Arrays, config: dict[str, Any]) -> ModelInferrer:
    """Inverse of :func:`inferrer_to_arrays`.

    Raises
    ------
    ModelFileError
        If the inferrer or an emulator is of a kind this version does not know.
    """
    if "inferrer" in config:
        own = config["inferrer"]
        if own["kind"] not in STANDALONE:
            raise ModelFileError(f"expected an inferrer of kind {', '.join(STANDALONE)}, got {own['kind']!r}; update maury")
        return STANDALONE[own["kind"]].from_arrays(part_of(arrays, "inferrer."), own)
    emulator = emulator_from_arrays(part_of(arrays, "emulator."), config["emulator"])
    fitter = ChiSquareFitter.from_config(config["fitter"])
    regions = config["regions"]
    if regions is None:
        return EmulatorInferrer(emulator, fitter)
    if len(regions["emulators"]) != len(regions["centres"]):
        raise ModelFileError("expected one emulator per region in the model, got another number; train it again")
    parts = tuple(emulator_from_arrays(part_of(arrays, f"region{i}."), c) for i, c in enumerate(regions["emulators"]))
    return RegionalInferrer(emulator, fitter, regions["label"], tuple(regions["centres"]), parts)


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}
