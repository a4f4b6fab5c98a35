"""Labels: what a star is described by, in which unit, over which range; and the only place where they are scaled.

A :class:`LabelSet` knows the labels of one model. Models work in *scaled coordinates*: each label goes through its
coordinate (``linear``, ``log10`` or ``inverse``: 5040/x, the field's theta for Teff), then pivot and spread are removed.
Values, Jacobians and covariances all pass through the same object, so an error can not stay behind in scaled units
(the fault of TheCannon, its issue 74).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]
Coordinate = Literal["linear", "log10", "inverse"]

_INVERSE_NUMERATOR = 5040.0  # theta = 5040 K / Teff; any positive constant serves


@dataclass(frozen=True)
class Label:
    """One label: ``name``, ``unit`` (astropy string), a sentence, its UCD and the coordinate models use for it."""

    name: str
    unit: str
    description: str = ""
    ucd: str = ""
    coordinate: Coordinate = "linear"
    positive: bool = False


def _known(*labels: Label) -> dict[str, Label]:
    return {label.name: label for label in labels}


KNOWN_LABELS: dict[str, Label] = _known(
    Label("teff", "K", "effective temperature", "phys.temperature.effective", positive=True),
    Label("logg", "dex", "surface gravity, log10 of cm/s2", "phys.gravity"),
    Label("fe_h", "dex", "iron abundance relative to the Sun", "phys.abund.Fe"),
    Label("m_h", "dex", "overall metallicity relative to the Sun", "phys.abund.Z"),
    Label("alpha_m", "dex", "alpha-element abundance relative to metals", "phys.abund"),
    Label("v_micro", "km/s", "micro-turbulent velocity", "phys.veloc.microTurb", positive=True),
    Label("v_macro", "km/s", "macro-turbulent velocity", "phys.veloc", positive=True),
    Label("vsini", "km/s", "projected rotational velocity", "phys.veloc.rotat", positive=True),
    Label("rv", "km/s", "radial velocity", "spect.dopplerVeloc"),
    Label("delta_rv", "km/s", "velocity left after the shift by the given rv", "spect.dopplerVeloc"),
    Label("resolving_power", "", "resolving power, wavelength over FWHM", "spect.resolution", positive=True),
    Label("radius", "Rsun", "stellar radius, nominal solar", "phys.size.radius", positive=True),
    Label("mass", "Msun", "stellar mass, nominal solar", "phys.mass", positive=True),
    Label("luminosity", "Lsun", "bolometric luminosity, nominal solar", "phys.luminosity", positive=True),
)


def make_label(name: str, unit: str, coordinate: Coordinate = "linear") -> Label:
    """A label with the house's description and UCD where the name is known; the unit is always said.

    Raises
    ------
    UsageError
        If the unit is not one astropy knows, or not convertible to the house unit of a known label.
    """
    import astropy.units as u

    try:
        parsed = u.Unit(unit)
    except (ValueError, TypeError):
        raise UsageError(f"expected a unit astropy knows for label {name!r}, got {unit!r}; write 'K' or 'dex'") from None
    known = KNOWN_LABELS.get(name)
    if known is None:
        return Label(name, unit, coordinate=coordinate)
    house = u.Unit(known.unit)
    if parsed != house:
        raise UsageError(f"expected label {name!r} in {known.unit}, got {unit!r}; convert the column or give it in {known.unit}")
    return Label(name, known.unit, known.description, known.ucd, coordinate, known.positive)


@dataclass(frozen=True)
class LabelSet:
    """The labels of one model with their scaling and training range.

    Parameters
    ----------
    labels : the labels, in the order of every array's last axis.
    pivot, spread : per label, in the label's *coordinate*; scaled = (coordinate(value) - pivot) / spread.
    lower, upper : range of the training labels, in label units.
    """

    labels: tuple[Label, ...]
    pivot: tuple[float, ...]
    spread: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.labels)
        if n == 0:
            raise UsageError("expected at least one label, got none; name the labels")
        if len({label.name for label in self.labels}) != n:
            raise UsageError(f"expected different label names, got {', '.join(self.names)}; remove the repeated one")
        for field in ("pivot", "spread", "lower", "upper"):
            if len(getattr(self, field)) != n:
                raise UsageError(f"expected {n} values in {field}, got {len(getattr(self, field))}; give one per label")
        if not all(np.isfinite(self.spread)) or min(self.spread) <= 0:
            raise UsageError(f"expected positive label spreads, got {self.spread}; a label that never varies can not be learned")

    # -- construction -------------------------------------------------------------------------------------------

    @classmethod
    def from_training(cls, labels: Sequence[Label], values: ArrayLike) -> LabelSet:
        """Scaling of The Cannon: pivot = median, spread = (p97.5 - p2.5)/4 of the training labels (METHODS 0.5).

        Parameters
        ----------
        values : (n_stars, n_labels), label units. Every value must be finite.
        """
        array = np.asarray(values, dtype=float)
        if array.ndim != 2 or array.shape[1] != len(labels) or array.shape[0] < 2:
            raise UsageError(f"expected training labels of shape (n >= 2, {len(labels)}), got {array.shape}; check the table")
        if not np.isfinite(array).all():
            raise UsageError("expected finite training labels, got NaN or infinity; drop those stars before training")
        coordinates = _to_coordinate(tuple(labels), array)
        low, pivot, high = np.percentile(coordinates, [2.5, 50.0, 97.5], axis=0)
        spread = (high - low) / 4.0
        flat = [label.name for label, s in zip(labels, spread, strict=True) if not s > 0]
        if flat:
            raise UsageError(f"expected labels that vary over the training set, got constant {', '.join(flat)}; add other stars")
        return cls(
            tuple(labels),
            tuple(pivot.tolist()),
            tuple(spread.tolist()),
            tuple(array.min(axis=0).tolist()),
            tuple(array.max(axis=0).tolist()),
        )

    def scaled_to_range(self) -> LabelSet:
        """The same labels with the scaling of The Payne: the training range becomes [-0.5, 0.5] (METHODS 0.6)."""
        corners = np.sort(_to_coordinate(self.labels, np.array([self.lower, self.upper])), axis=0)
        return replace(self, pivot=tuple(corners.mean(axis=0).tolist()), spread=tuple(np.ptp(corners, axis=0).tolist()))

    def only(self, names: Sequence[str]) -> LabelSet:
        """Some of the labels, in the order given."""
        index = [self.index(name) for name in names]
        parts = (tuple(getattr(self, field)[i] for i in index) for field in ("labels", "pivot", "spread", "lower", "upper"))
        return LabelSet(*parts)

    def with_label(self, label: Label, lower: float, upper: float) -> LabelSet:
        """These labels and one more with a linear coordinate, whose range becomes [-1, 1]."""
        return LabelSet(
            (*self.labels, label),
            (*self.pivot, 0.5 * (lower + upper)),
            (*self.spread, 0.5 * (upper - lower)),
            (*self.lower, lower),
            (*self.upper, upper),
        )

    # -- description --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(label.unit for label in self.labels)

    def index(self, name: str) -> int:
        """Position of a label.

        Raises
        ------
        UsageError
            If there is no such label.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UsageError(f"expected a label among {', '.join(self.names)}, got {name!r}; correct the name") from None

    def in_range(self, values: ArrayLike) -> NDArray[np.bool_]:
        """(n, n_labels): True where a label lies inside the training range; NaN is outside."""
        array = np.asarray(values, dtype=float)
        return (array >= np.array(self.lower)) & (array <= np.array(self.upper))

    # -- scaling ------------------------------------------------------------------------------------------------

    def scale(self, values: ArrayLike) -> FloatArray:
        """(n, n_labels) label units -> scaled coordinates."""
        coordinate = _to_coordinate(self.labels, np.asarray(values, dtype=float))
        return np.asarray((coordinate - np.array(self.pivot)) / np.array(self.spread))

    def unscale(self, scaled: ArrayLike) -> FloatArray:
        """(n, n_labels) scaled coordinates -> label units."""
        coordinate = np.asarray(scaled, dtype=float) * np.array(self.spread) + np.array(self.pivot)
        return _from_coordinate(self.labels, coordinate)

    def unscale_slope(self, scaled: ArrayLike) -> FloatArray:
        """(n, n_labels): d(label)/d(scaled), which carries Jacobians and covariances between the two."""
        spread = np.array(self.spread)
        coordinate = np.asarray(scaled, dtype=float) * spread + np.array(self.pivot)
        value = _from_coordinate(self.labels, coordinate)
        slope = np.empty_like(coordinate)
        for k, label in enumerate(self.labels):
            if label.coordinate == "linear":
                slope[..., k] = 1.0
            elif label.coordinate == "log10":
                slope[..., k] = value[..., k] * np.log(10.0)
            else:
                slope[..., k] = -value[..., k] / coordinate[..., k]
        return np.asarray(slope * spread)

    def unscale_covariance(self, covariance: ArrayLike, scaled: ArrayLike) -> FloatArray:
        """(n, K, K) covariance in scaled coordinates at ``scaled`` -> label units (first order)."""
        slope = self.unscale_slope(scaled)
        return np.asarray(np.asarray(covariance, dtype=float) * slope[..., :, None] * slope[..., None, :])

    # -- files --------------------------------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file's header."""
        return {
            "labels": [vars(label) for label in self.labels],
            "pivot": list(self.pivot),
            "spread": list(self.spread),
            "lower": list(self.lower),
            "upper": list(self.upper),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LabelSet:
        """Inverse of :meth:`to_config`."""
        return cls(
            tuple(Label(**item) for item in config["labels"]),
            tuple(config["pivot"]),
            tuple(config["spread"]),
            tuple(config["lower"]),
            tuple(config["upper"]),
        )


def _to_coordinate(labels: tuple[Label, ...], values: FloatArray) -> FloatArray:
    out = np.array(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, label in enumerate(labels):
            if label.coordinate == "log10":
                out[..., k] = np.log10(out[..., k])
            elif label.coordinate == "inverse":
                out[..., k] = _INVERSE_NUMERATOR / out[..., k]
    return out


def _from_coordinate(labels: tuple[Label, ...], coordinate: FloatArray) -> FloatArray:
    out = np.array(coordinate, dtype=float)
    with np.errstate(divide="ignore", over="ignore"):
        for k, label in enumerate(labels):
            if label.coordinate == "log10":
                out[..., k] = 10.0 ** out[..., k]
            elif label.coordinate == "inverse":
                out[..., k] = _INVERSE_NUMERATOR / out[..., k]
    return out
