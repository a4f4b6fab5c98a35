"""What a recipe may say about a sweep: many networks over architectures, windows and labels (Passegger 2020; METHODS 1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field

from maury.errors import RecipeError
from maury.labels import Label
from maury.networks.topology import PASSEGGER2020, PRESETS
from maury.prepare import Gisic, Mask, PolynomialContinuum, Preparation, Resample
from maury.prepare.grid import FloatArray
from maury.protocols import Step
from maury.recipes.data_schema import Strict

WHOLE = "all"
"""Name of the one window of a recipe without [[sweep.window]]: all pixels of its preparation."""

PAPER_THRESHOLDS = {"teff": 25.0, "logg": 0.05, "m_h": 0.05, "vsini": 1.0}
"""Table 3 of Passegger+2020, label units."""

_GROUPS = {"all": tuple(PRESETS), "passegger2020": tuple(PASSEGGER2020)}
_APART = 4  # spacings between two windows, so that they count as two (:func:`maury.prepare.grid.windows_of`)
_BY_THEMSELVES = (
    *("to_vacuum", "to_air", "mask", "crop", "fill_masked", "noise_floor", "correlated_noise"),
    *("measure_snr", "gisic", "polynomial"),
)
"""Steps that treat each pixel by itself; and others whose result in one window does not depend on the others' pixels (but for the
S/N that is measured, which no network sees)."""

Span = tuple[float, float, float]
"""Start, stop (excluded) and spacing of a window with its margins, Å; as the step ``resample`` has it."""


class WindowRecipe(Strict):
    """A stretch of the spectrum, and how much of it networks see."""

    start: float = Field(gt=0, description="Å")
    stop: float = Field(description="Å, excluded")
    spacing: float = Field(gt=0, description="Å between pixels")
    chunks: tuple[int, ...] = Field(
        default=(), description="numbers of pixels about the window's centre, its margins included; none: the window"
    )
    margin: float = Field(default=5.0, ge=0, description="Å on either side, for the continuum")

    @property
    def name(self) -> str:
        return f"{self.start:g}-{self.stop:g}"

    def pixels(self, wavelength: FloatArray, chunk: int) -> slice:
        """Which pixels of the window with its margins networks see; ``chunk`` 0: those of the window itself.

        Raises
        ------
        RecipeError
            If there are not so many.
        """
        tiny = 1e-6 * self.spacing
        low, high = np.searchsorted(wavelength, [self.start - tiny, self.stop - tiny]).tolist()
        if chunk == 0:
            return slice(low, high)
        if chunk > wavelength.size:
            raise RecipeError(
                f"expected chunks of at most {wavelength.size} pixels in the window {self.name} with its margins, got {chunk}; "
                "shorten it"
            )
        first = min(max((low + high - chunk) // 2, 0), wavelength.size - chunk)
        return slice(first, first + chunk)


class SweepRecipe(Strict):
    """Which networks are tried, by which spectra they are judged, and which are accepted."""

    architectures: tuple[str, ...] = Field(
        default=("passegger2020",), min_length=1, description="topologies by name; passegger2020: that family of 36; all: all"
    )
    labels: tuple[tuple[str, ...], ...] = Field(
        default=(), description="labels of one network each: one (approach A) or several (B); none: every label by itself"
    )
    joined: tuple[tuple[str, ...], ...] = Field(default=(), description="windows, by name, that a network sees together (C)")
    sampler: Literal["all", "random", "optuna"] = Field(
        default="all", description="every combination, some at random, or what promises a low validation loss"
    )
    number: int = Field(default=60, ge=1, description="of networks, for the samplers random and optuna")
    repeats: int = Field(default=1, ge=1, description="networks of each combination, from other first weights; sampler all")
    seed: int = Field(default=0, ge=0, description="of the choice of networks, of held-out spectra and of first weights")
    screening: float = Field(default=0.1, gt=0, lt=0.5, description="share of the stars that networks are accepted by")
    report: float = Field(default=0.1, gt=0, lt=0.5, description="share of the stars that the ensemble's figures are of, alone")
    thresholds: dict[str, float] = Field(default_factory=dict, description="label -> largest error; Passegger+2020 has four")
    reading: Literal["mean", "worst_tenth"] = Field(
        default="mean", description="absolute error that must stay below: its mean, or that in the worst tenth of the labels"
    )
    members: int = Field(default=50, ge=0, description="most networks per label in the ensemble, the best; 0: all accepted")
    rebuild: bool = Field(default=False, description="parts with ``build`` are built for each window, at its spacing")
    window: tuple[WindowRecipe, ...] = ()

    def check(self, labels: Sequence[Label], preparation: Preparation) -> None:
        """Raise RecipeError where parts contradict each other or the recipe."""
        names = [label.name for label in labels]
        for some in self.labels:
            strange = [name for name in some if name not in names]
            if strange or not some or len(set(some)) < len(some):
                raise RecipeError(f"expected different labels of the recipe in sweep.labels, got {list(some)}; correct the names")
        unknown = [name for name in self.thresholds if name not in names]
        if unknown:
            raise RecipeError(f"expected labels of the recipe in sweep.thresholds, got {unknown[0]!r}; correct the name")
        wanting = [name for some in self.label_sets(names) for name in some if name not in PAPER_THRESHOLDS | self.thresholds]
        if wanting or min(self.thresholds.values(), default=1.0) <= 0:
            what = f"none for {wanting[0]}" if wanting else "one that is not positive"
            raise RecipeError(f"expected a positive threshold for each label in sweep.thresholds, got {what}; correct it")
        strange = [name for name in self.architectures if name not in _GROUPS and name not in PRESETS]
        if strange:
            raise RecipeError(
                f"expected architectures among {', '.join((*_GROUPS, *PRESETS))}, got {strange[0]!r}; correct the name"
            )
        self._check_windows(preparation)

    def _check_windows(self, preparation: Preparation) -> None:
        names = [window.name for window in self.window]
        for some in self.joined:
            if len(some) < 2 or len(set(some)) < len(some) or not set(some) <= set(names):
                raise RecipeError(
                    f"expected two or more of the windows {', '.join(names) or '(there are none)'} in sweep.joined, got "
                    f"{list(some)}; correct it"
                )
        if not self.window:
            return
        if not any(isinstance(step, Resample) for step in preparation.steps):
            raise RecipeError("expected a step resample in [[prepare]], which makes the sweep's windows, got none; add one")
        for window, span in zip(self.window, self.spans(), strict=True):
            for chunk in window.chunks:
                if chunk < 1:
                    raise RecipeError(
                        f"expected chunks of at least one pixel in the window {window.name}, got {chunk}; correct it"
                    )
                window.pixels(Resample(windows=(span,)).grid(), chunk)
        if len(self.window) > 1:
            check_apart(preparation.steps)

    def spans(self) -> tuple[Span, ...]:
        """Of each window with its margins; where two would overlap, they meet in the middle between their windows.

        Raises
        ------
        RecipeError
            If windows do not follow each other with a little space between them.
        """
        for window in self.window:
            if not window.start + 2 * window.spacing <= window.stop:
                raise RecipeError(f"expected start < stop of a window with several pixels, got {window.name}; correct it")
        low = [window.start - window.margin for window in self.window]
        high = [window.stop + window.margin for window in self.window]
        for i, (one, other) in enumerate(pairwise(self.window)):
            gap = _APART * max(one.spacing, other.spacing)
            if other.start - one.stop < gap:
                raise RecipeError(
                    f"expected windows in increasing order, at least {gap:g} Å apart, got {one.name} and {other.name}; make one "
                    "of them"
                )
            if low[i + 1] - high[i] < gap:
                middle = 0.5 * (one.stop + other.start)
                high[i], low[i + 1] = min(high[i], middle - 0.5 * gap), max(low[i + 1], middle + 0.5 * gap)
        return tuple((round(a, 6), round(b, 6), window.spacing) for a, b, window in zip(low, high, self.window, strict=True))

    @property
    def window_names(self) -> tuple[str, ...]:
        return tuple(window.name for window in self.window) or (WHOLE,)

    @property
    def topologies(self) -> tuple[str, ...]:
        """Names of the architectures, each once."""
        return tuple(dict.fromkeys(name for given in self.architectures for name in _GROUPS.get(given, (given,))))

    def label_sets(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Labels of a network, for each kind of network; ``names`` are the recipe's."""
        return tuple(dict.fromkeys(self.labels)) or tuple((name,) for name in names)

    def threshold(self, label: str) -> float:
        """Largest error of an accepted network, label units."""
        return (PAPER_THRESHOLDS | self.thresholds)[label]


def check_apart(steps: Sequence[Step]) -> None:
    """Windows are prepared one by one for training and together for inference: both must come to the same.

    Raises
    ------
    RecipeError
        If a step behind the first ``resample`` reaches from one window into another, or may.
    """
    first = next((i for i, step in enumerate(steps) if isinstance(step, Resample)), len(steps))
    for step in steps[first + 1 :]:
        config = step.to_config()
        whole = isinstance(step, PolynomialContinuum) and not step.each_window
        reaches = whole or (isinstance(step, Mask) and step.grow > 0)  # masks grow by pixels, whatever lies between these
        if reaches or config["step"] not in _BY_THEMSELVES:
            raise RecipeError(
                f"expected steps after resample that treat each window by itself, as {Gisic.name}, got {config['step']}; put it "
                "before resample, or sweep one window"
            )


def window_steps(prepare: Sequence[dict[str, Any]], spans: Sequence[Span]) -> tuple[dict[str, Any], ...]:
    """The steps of a recipe with the pixels of these windows as grid."""
    grid_keys = ("start", "stop", "spacing", "log_spacing", "wavelengths", "windows")
    out = []
    for step in prepare:
        own = {key: value for key, value in step.items() if key not in grid_keys}
        out.append(own | {"windows": [list(span) for span in spans]} if step.get("step") == Resample.name else dict(step))
    return tuple(out)
