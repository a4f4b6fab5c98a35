"""Measure radial velocities on the way to the rest frame: the step that carries its templates as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maury.errors import MauryError, RecipeError, UsageError
from maury.prepare.config import config_of
from maury.prepare.grid import velocity_of, with_meta
from maury.prepare.templates import Continuum, ContinuumRule, read_templates, to_rest
from maury.prepare.velocity import CrossCorrelation, CrossCorrelator
from maury.spectra import Medium, Spectra

_MOST_VALUES = 100_000  # of templates: a megabyte in a model's header


@dataclass(frozen=True)
class MeasureRv:
    """Write velocities by cross-correlation with templates into meta ``rv``, from which ``resample`` reaches the rest frame.

    In a recipe, ``template = "sun.fits"`` stands for the first three parameters: a file of spectra on one grid (of ``maury
    generate``, or any format), its path taken from where the command runs. It is read once, when the recipe is: a model saves the
    numbers, so that it needs no file elsewhere, and equal templates make equal fingerprints whatever their files are called.

    Parameters
    ----------
    wavelength : (n_pixels,) of the templates, Å, in their rest frame.
    flux : (n_templates, n_pixels); the template that fits best counts.
    medium : "vacuum" or "air", of the templates; they are brought to that of the spectra.
    low, high : km/s, between which the velocity is searched.
    continuum, window : what spectra and templates are divided by, see :class:`~maury.prepare.templates.ContinuumRule`.
    floor : km/s added to errors in quadrature.
    keep_known : leave ``rv`` as it is where it is known (headers, ``--velocities`` of ``maury infer``); ``e_rv`` is NaN there.

    Notes
    -----
    Writes meta ``rv``, ``e_rv`` (km/s), ``ccf_peak`` and ``rv_flag`` (of :class:`~maury.flags.ResultFlag`). Velocities with a
    flag are not to be trusted, so ``rv`` and ``e_rv`` are NaN there, even where a velocity was known before.
    Spectra that are at rest already are returned unchanged. Mask tellurics and sky lines before (step ``mask``).
    """

    wavelength: tuple[float, ...]
    flux: tuple[tuple[float, ...], ...]
    medium: Medium
    low: float = CrossCorrelation.low
    high: float = CrossCorrelation.high
    continuum: Continuum = ContinuumRule.kind
    window: float = ContinuumRule.window
    floor: float = CrossCorrelation.floor
    keep_known: bool = False

    name: ClassVar[str] = "measure_rv"

    def __post_init__(self) -> None:
        n_values = sum(len(row) for row in self.flux)
        if n_values > _MOST_VALUES:
            raise UsageError(
                f"expected templates of at most {_MOST_VALUES} pixels in all, got {n_values}, which a model would have to carry; "
                "crop or degrade them first"
            )
        if not self.flux or len(self.wavelength) < 4 or any(len(row) != len(self.wavelength) for row in self.flux):
            raise UsageError(
                f"expected templates of at least 4 pixels, one flux per wavelength, got {len(self.wavelength)} wavelengths and "
                f"rows of {', '.join(str(n) for n in sorted({len(row) for row in self.flux})) or 'no'} fluxes; correct them"
            )
        if not all(np.isfinite(row).all() for row in self.flux):
            raise UsageError("expected finite fluxes of templates, got others; leave such pixels out (MeasureRv.of does)")
        self._correlator  # noqa: B018  made now, since it refuses what else is impossible

    @classmethod
    def of(cls, templates: Spectra, **settings: Any) -> MeasureRv:
        """The step with these templates; pixels that are bad in one of them are left out.

        Parameters
        ----------
        templates : at rest, or of known velocity that is the same for all. Flux is kept to six digits, wavelengths to ten.
        settings : the other parameters of the step.

        Raises
        ------
        UsageError
            If the templates' velocities are unknown or differ, or something else is impossible.
        """
        factor = to_rest(templates)
        if len(set(factor)) != 1:
            raise UsageError(f"expected templates of one velocity, got {len(set(factor))} velocities; bring them to rest first")
        good = (templates.ivar > 0).all(axis=0)
        wavelength = templates.wavelength[good] * factor[0]
        flux = tuple(tuple(float(f"{value:.6g}") for value in row) for row in templates.flux[:, good])
        return cls(tuple(float(f"{value:.10g}") for value in wavelength), flux, templates.medium, **settings)

    @classmethod
    def with_file_read(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The entry of a recipe with the templates' numbers in place of their file; others are returned as they are.

        Raises
        ------
        RecipeError
            If there are neither, both, or the file does not hold templates on one grid.
        """
        given = [name for name in ("wavelength", "flux") if name in config]
        if "template" not in config:
            if len(given) == 2:
                return config
            raise RecipeError(f'step {cls.name!r} expects template = "a file of spectra at rest", got none; name one')
        if given or not isinstance(config["template"], str):
            raise RecipeError(f"step {cls.name!r} expects one template file, got {_shown(config, given)}; name only a file")
        path, settings = Path(config["template"]), {k: v for k, v in config.items() if k not in ("step", "template", "medium")}
        try:
            batches = read_templates(path, config.get("medium"))
            if len(batches) != 1:
                raise UsageError(
                    f"expected templates on one wavelength grid in {path}, got {len(batches)} grids; give one of these"
                )
            step = cls.of(batches[0])
        except MauryError as error:
            raise RecipeError(f"step {cls.name!r}: {error}") from error
        return step.to_config() | settings

    def __call__(self, spectra: Spectra) -> Spectra:
        if spectra.frame == "rest":
            return spectra
        found = self._correlator.measure(spectra)
        known = velocity_of(spectra) if self.keep_known else np.full(len(spectra), np.nan)
        sound = (found.flag == 0) & np.isnan(known)
        rv, error = np.where(sound, found.rv, known), np.where(sound, found.e_rv, np.nan)
        return with_meta(spectra, {"rv": rv, "e_rv": error, "ccf_peak": found.ccf_peak, "rv_flag": found.flag})

    def to_config(self) -> dict[str, Any]:
        return config_of(self)

    @cached_property
    def _correlator(self) -> CrossCorrelator:
        flux = np.array(self.flux, dtype=np.float64)
        templates = Spectra.from_arrays(self.wavelength, flux, ivar=np.ones(flux.shape), medium=self.medium, frame="rest")
        settings = CrossCorrelation(self.low, self.high, ContinuumRule(self.continuum, self.window), floor=self.floor)
        return CrossCorrelator((templates,), settings)


def _shown(config: dict[str, Any], given: Sequence[str]) -> str:
    return f"numbers ({', '.join(given)}) beside it" if given else f"template = {config['template']!r}"
