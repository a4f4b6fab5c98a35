"""Many networks vote on each label (Passegger 2020, Sect. 3; METHODS 0.7): mode and 16/84 % interval of the votes.

The paper's interval is the spread of networks alone. Networks that were trained on the same spectra err together, so it says
nothing of what all of them have wrong; an error model from spectra that no network has seen can make up for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import part_of
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet
from maury.prepare.grid import windows_of
from maury.regress.cnn import CnnNetworks
from maury.regress.latent import LatentNetworks
from maury.regress.votes import summarise
from maury.spectra import Spectra
from maury.threads import in_threads

FloatArray = NDArray[np.float64]

Voters = CnnNetworks | LatentNetworks
"""Stacks of networks that can vote together."""

_BLOCK = 512  # spectra of which all votes are counted at a time
_UNCONSTRAINED = 0.5  # of the training range, as in the fit
_LEAST_SEEN = 0.5  # of the pixels of each of its windows must be usable, or a network does not vote


@dataclass(frozen=True, eq=False)
class Votes:
    """What each network says.

    Parameters
    ----------
    values : per label (n, M) label units, M the networks that know the label; NaN where a network has too few pixels to vote.
    names : per label the M networks' names.
    """

    values: tuple[FloatArray, ...]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class EnsembleInferrer:
    """Networks that vote. An :class:`~maury.protocols.Inferrer`; it has neither emulator nor fitter.

    Parameters
    ----------
    labels : all labels that some network votes on, with their training range.
    wavelength : (n_pixels,) Å, the grid of prepared spectra; each network looks at some of its pixels.
    networks : stacks of networks of one topology, on pixels or on an encoder's latent numbers.
    names : per stack one for each of its members.
    min_pixels : spectra with fewer usable pixels get no labels (FEW_PIXELS).
    workers : blocks of spectra that are worked on at the same time; a choice of the moment, not saved.

    Raises
    ------
    UsageError
        If there is no network, one without a name, a label without one, or networks look at pixels that the grid does not have.
    """

    labels: LabelSet
    wavelength: FloatArray
    networks: tuple[Voters, ...]
    names: tuple[tuple[str, ...], ...]
    min_pixels: int = 50
    workers: int = 1

    def __post_init__(self) -> None:
        members, named = [stack.n_members for stack in self.networks], [len(names) for names in self.names]
        if not members or named != members:
            raise UsageError(f"expected networks and a name for each, got stacks of {members} and {named} names; train some")
        known = {name for stack in self.networks for name in stack.labels.names}
        if known != set(self.labels.names):
            raise UsageError(f"expected networks for {', '.join(self.labels.names)}, got some for {', '.join(sorted(known))}")
        for stack, index in zip(self.networks, self._pixels, strict=True):
            if index.size != stack.wavelength.size or not np.array_equal(self.wavelength[index], stack.wavelength):
                raise UsageError(
                    f"expected networks on pixels of the grid {self.wavelength[0]:.2f} to {self.wavelength[-1]:.2f} Å, got one "
                    f"on others ({stack.wavelength[0]:.2f} to {stack.wavelength[-1]:.2f} Å); train them on one preparation"
                )

    @classmethod
    def of(
        cls,
        wavelength: FloatArray,
        networks: tuple[Voters, ...],
        names: tuple[tuple[str, ...], ...],
        min_pixels: int = 50,
    ) -> EnsembleInferrer:
        """Networks with the labels in the order in which they first come."""
        first: dict[str, tuple[Voters, int]] = {}
        for stack in networks:
            for k, name in enumerate(stack.labels.names):
                first.setdefault(name, (stack, k))
        parts = [stack.labels.only([stack.labels.names[k]]) for stack, k in first.values()]
        labels = LabelSet(*(tuple(getattr(p, f)[0] for p in parts) for f in ("labels", "pivot", "spread", "lower", "upper")))
        return cls(labels, wavelength, networks, names, min_pixels)

    @property
    def n_members(self) -> tuple[int, ...]:
        """Networks that vote, per label."""
        return tuple(sum(s.n_members for s in self.networks if name in s.labels.names) for name in self.labels.names)

    def votes(self, spectra: Spectra) -> Votes:
        """What each network says of prepared spectra on the ensemble's grid.

        Raises
        ------
        UsageError
            If the grids differ or there is no spectrum.
        """
        blocks = self._blocks(spectra)
        parts = list(in_threads(self._vote, blocks, self.workers))
        values = tuple(np.concatenate([part[k] for part in parts]) for k in range(len(self.labels)))
        stacks = list(zip(self.networks, self.names, strict=True))
        voters = [[each for stack, own in stacks if label in stack.labels.names for each in own] for label in self.labels.names]
        return Votes(values, tuple(tuple(some) for some in voters))

    def infer(self, spectra: Spectra, progress: Callable[[int, int], None] | None = None) -> LabelEstimates:
        """Labels of prepared spectra on the ensemble's grid.

        Parameters
        ----------
        spectra : n spectra; pixels with ivar = 0 have no influence.
        progress : called with (spectra done, spectra in all).

        Returns
        -------
        LabelEstimates: modes of the votes; ``interval_errors`` to their 16th and 84th percentile; half that interval as standard
        error, without correlations (networks of different labels have none to tell); chi2 is NaN, as nothing is fitted. Flags:
        DEGENERATE_VOTES, OUT_OF_RANGE and UNCONSTRAINED of labels; FEW_PIXELS, also of a label that no network can vote on.

        Raises
        ------
        UsageError
            If the grids differ or there is no spectrum.
        """
        parts: list[LabelEstimates] = []
        for part in in_threads(self._infer_block, self._blocks(spectra), self.workers):
            parts.append(part)
            if progress is not None:
                progress(sum(map(len, parts)), len(spectra))
        return LabelEstimates.concatenate(parts)

    # -- one block ----------------------------------------------------------------------------------------------

    def _blocks(self, spectra: Spectra) -> list[Spectra]:
        if len(spectra) == 0:
            raise UsageError("expected at least one spectrum to infer labels of, got none")
        if not np.array_equal(spectra.wavelength, self.wavelength):
            raise UsageError(
                f"expected spectra on the model's grid of {len(self.wavelength)} pixels from {self.wavelength[0]:.2f} to "
                f"{self.wavelength[-1]:.2f} Å, got {spectra!r}; prepare them with the model's preparation"
            )
        return [spectra[first : first + _BLOCK] for first in range(0, len(spectra), _BLOCK)]

    @cached_property
    def _pixels(self) -> tuple[NDArray[np.int64], ...]:
        """Of each stack, which pixels of the grid it looks at."""
        last = len(self.wavelength) - 1
        return tuple(np.minimum(np.searchsorted(self.wavelength, stack.wavelength), last) for stack in self.networks)

    def _vote(self, spectra: Spectra) -> list[FloatArray]:
        """Per label (n, M)."""
        good = spectra.ivar > 0
        found: dict[str, list[FloatArray]] = {name: [] for name in self.labels.names}
        for stack, index in zip(self.networks, self._pixels, strict=True):
            whole = index.size == len(self.wavelength)
            flux, usable = (spectra.flux, good) if whole else (spectra.flux[:, index], good[:, index])
            seen = np.stack([usable[:, window].mean(axis=1) for window in windows_of(stack.wavelength)])
            lost: NDArray[np.bool_] = np.asarray((seen < _LEAST_SEEN).any(axis=0))
            values = np.where(lost[:, None, None], np.nan, stack.predict(flux, usable))
            for k, name in enumerate(stack.labels.names):
                found[name].append(values[:, :, k])
        few = self._usable(good) < self.min_pixels
        return [np.where(few[:, None], np.nan, np.concatenate(found[name], axis=1)) for name in self.labels.names]

    def _usable(self, good: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(n,) usable pixels that some network looks at."""
        seen = np.zeros(len(self.wavelength), dtype=bool)
        for index in self._pixels:
            seen[index] = True
        return np.asarray((good & seen).sum(axis=1), dtype=np.int64)

    def _infer_block(self, spectra: Spectra) -> LabelEstimates:
        n_pixels = self._usable(spectra.ivar > 0)
        few = int(ResultFlag.FEW_PIXELS | ResultFlag.FAILED)
        estimates = LabelEstimates.missing(self.labels, spectra.ids.tolist(), [""] * len(spectra), spectra.meta, few)
        summaries = [summarise(votes) for votes in self._vote(spectra)]
        values = np.stack([s.mode for s in summaries], axis=1)
        known: NDArray[np.bool_] = np.asarray(np.isfinite(values))
        voted: NDArray[np.bool_] = np.asarray(known.any(axis=1))
        sigma = np.where(known, np.stack([s.sigma for s in summaries], axis=1), np.nan)
        out = estimates.with_(
            n_pixels=n_pixels,
            values=np.where(known, values, np.nan),
            covariance=_diagonal(sigma),
            interval_errors=np.stack([np.stack([s.lower, s.upper], axis=1) for s in summaries], axis=1),
            flag=np.where(voted, 0, estimates.flag),
            status=tuple(FitStatus.CONVERGED if some else FitStatus.NOT_FITTED for some in voted),
            reason=tuple(_reason(bool(some), n, self.min_pixels) for some, n in zip(voted, n_pixels, strict=True)),
        )
        degenerate = np.stack([s.degenerate for s in summaries], axis=1) & known
        out = out.add_label_flag(degenerate, int(ResultFlag.DEGENERATE_VOTES))
        out = out.add_label_flag(voted[:, None] & ~known, int(ResultFlag.FEW_PIXELS))
        out = out.add_label_flag(known & ~self.labels.in_range(out.values), int(ResultFlag.OUT_OF_RANGE))
        width = np.array(self.labels.upper) - np.array(self.labels.lower)
        return out.add_label_flag(np.nan_to_num(out.errors) > _UNCONSTRAINED * width, int(ResultFlag.UNCONSTRAINED))

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays: dict[str, NDArray[Any]] = {"wavelength": self.wavelength}
        configs = []
        for number, (stack, names) in enumerate(zip(self.networks, self.names, strict=True)):
            stack_arrays, config = stack.to_arrays()
            arrays |= {f"stack{number}.{key}": array for key, array in stack_arrays.items()}
            configs.append({**config, "names": list(names)})
        label_set = self.labels.to_config()
        return arrays, {"kind": "ensemble", "label_set": label_set, "networks": configs, "min_pixels": self.min_pixels}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> EnsembleInferrer:
        """Inverse of :meth:`to_arrays`."""
        networks: list[Voters] = []
        for number, own in enumerate(config["networks"]):
            kind = LatentNetworks if "heads" in own else CnnNetworks
            networks.append(kind.from_arrays(part_of(arrays, f"stack{number}."), own))
        return cls(
            LabelSet.from_config(config["label_set"]),
            arrays["wavelength"],
            tuple(networks),
            tuple(tuple(own["names"]) for own in config["networks"]),
            int(config["min_pixels"]),
        )


def _diagonal(sigma: FloatArray) -> FloatArray:
    """(n, K) -> (n, K, K) covariance without correlations; NaN throughout for a label without error."""
    known = np.isfinite(sigma)
    out = np.where(known[:, :, None] & known[:, None, :], 0.0, np.nan)
    places = np.arange(sigma.shape[1])
    out[:, places, places] = sigma**2
    return out


def _reason(voted: bool, n_pixels: int, least: int) -> str:
    """Why a star has no label."""
    if voted:
        return ""
    if n_pixels < least:
        return f"{n_pixels} usable pixels, the model asks for {least}"
    return f"fewer than {_LEAST_SEEN:.0%} usable pixels in the windows of every network"
