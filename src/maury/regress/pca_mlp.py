"""Flux -> labels by principal components and networks (the inversion of Gebran 2024; METHODS 3), in numpy: no torch needed here.

    x = scores of the spectrum / their spread,   scaled labels = mean over members of network(x)

with one network per label (as the paper's text has it) or one for all (as its Table 4). The paper gives no errors. Here the
covariance of a star is that of the held-out residuals (what the networks do not know) plus the covariance of its own scores
carried through the Jacobian of the networks, J C J', times a factor that held-out spectra with noise made right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet
from maury.regress.scores import Scores, ScoreSpace
from maury.spectra import Spectra
from maury.threads import in_threads

FloatArray = NDArray[np.float64]
Layer = tuple[NDArray[Any], NDArray[Any]]

_BLOCK = 256  # spectra per pass: bounds the memory of hidden layers
_UNCONSTRAINED = 0.5  # of the training range, as in the fit


@dataclass(frozen=True, eq=False)
class PcaMlpInferrer:
    """A trained inversion. An :class:`~maury.protocols.Inferrer`; it has neither emulator nor fitter.

    Parameters
    ----------
    labels : label set with scaling and training range.
    space : principal components of the training spectra.
    layers : (weights (E, n_in, n_out), bias (E, n_out)) of each layer. The last one has an output per label (joint), or one:
        network m K + k is then member m of label k.
    activation : a name of :data:`maury.emulate.activations.ACTIVATIONS`, after every layer but the last.
    residual_covariance : (K, K) of held-out residuals, in scaled labels.
    noise_factor : (K,) by which errors from J C J' are multiplied.
    min_pixels : spectra with fewer usable pixels get no labels (FEW_PIXELS).
    workers : blocks of spectra that are worked on at the same time; a choice of the moment, not saved.
    """

    labels: LabelSet
    space: ScoreSpace
    layers: tuple[Layer, ...]
    activation: str
    residual_covariance: FloatArray
    noise_factor: FloatArray
    min_pixels: int = 50
    workers: int = 1

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r}; correct it")
        k, sizes = len(self.labels), [self.space.n_components, *(weight.shape[2] for weight, _ in self.layers)]
        inputs, n_out = [weight.shape[1] for weight, _ in self.layers], sizes[-1]
        if sizes[:-1] != inputs or not (n_out == k or (n_out == 1 and self.n_networks % k == 0)):
            raise UsageError(
                f"expected layers that fit each other, the components and {k} labels, got inputs {inputs} for outputs {sizes}"
            )
        if self.residual_covariance.shape != (k, k) or self.noise_factor.shape != (k,):
            raise UsageError(f"expected a residual covariance and noise factors of {k} labels, got others; correct them")

    @property
    def n_networks(self) -> int:
        return int(self.layers[0][0].shape[0])

    @property
    def n_members(self) -> int:
        """Networks that are averaged for each label."""
        return self.n_networks if self.is_joint else self.n_networks // len(self.labels)

    @property
    def is_joint(self) -> bool:
        """Whether one network has all labels as outputs."""
        return int(self.layers[-1][0].shape[2]) == len(self.labels)

    def member(self, number: int) -> PcaMlpInferrer:
        """One network (of each label) alone."""
        width = 1 if self.is_joint else len(self.labels)
        rows = slice(number * width, (number + 1) * width)
        return replace(self, layers=tuple((weight[rows], bias[rows]) for weight, bias in self.layers))

    def infer(self, spectra: Spectra, progress: Callable[[int, int], None] | None = None) -> LabelEstimates:
        """Labels of prepared spectra on the components' grid.

        Parameters
        ----------
        spectra : n spectra; pixels with ivar = 0 have no influence.
        progress : called with (spectra done, spectra in all).

        Returns
        -------
        LabelEstimates with chi2 and n_pixels of the spectrum as the components describe it. Flags: OUT_OF_RANGE and
        UNCONSTRAINED of labels; POOR_CHI2 where the components leave far more than of the training spectra; FEW_PIXELS.

        Raises
        ------
        UsageError
            If the grids differ or there is no spectrum.
        """
        if len(spectra) == 0:
            raise UsageError("expected at least one spectrum to infer labels of, got none")
        self.space.check_grid(spectra)
        blocks = [spectra[first : first + _BLOCK] for first in range(0, len(spectra), _BLOCK)]
        parts: list[LabelEstimates] = []
        for part in in_threads(self._infer_block, blocks, self.workers):
            parts.append(part)
            if progress is not None:
                progress(sum(map(len, parts)), len(spectra))
        return LabelEstimates.concatenate(parts)

    def scaled_labels(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, r) scores over spread -> (n, K) scaled labels and their slopes (n, K, r) by the inputs."""
        out, slopes = inputs[None], []
        for weight, bias in self._double[:-1]:
            out, slope = ACTIVATIONS[self.activation](np.matmul(out, weight) + bias[:, None])
            slopes.append(slope)
        weight, bias = self._double[-1]
        scaled = np.matmul(out, weight) + bias[:, None]  # (E, n, n_out)
        n_out = weight.shape[2]
        back = np.tile(weight.transpose(0, 2, 1), (1, len(inputs), 1))  # (E, n * n_out, hidden)
        for (weight, _), slope in zip(self._double[-2::-1], slopes[::-1], strict=True):
            back = np.matmul(back * np.repeat(slope, n_out, axis=1), weight.transpose(0, 2, 1))  # the chain rule, backwards
        back = back.reshape(len(back), len(inputs), n_out, -1)
        if self.is_joint:
            return scaled.mean(axis=0), np.asarray(back.mean(axis=0))
        shape = (self.n_members, len(self.labels), len(inputs))
        values = scaled.reshape(shape).mean(axis=0).T
        return np.ascontiguousarray(values), back.reshape(*shape, -1).mean(axis=0).transpose(1, 0, 2)

    @cached_property
    def _double(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """The layers in float64 (files hold float32): a star alone is then the star in a batch, but for rounding."""
        return tuple((weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in self.layers)

    # -- one block ----------------------------------------------------------------------------------------------

    def _infer_block(self, spectra: Spectra) -> LabelEstimates:
        found = self.space.project(spectra)
        estimates = LabelEstimates.missing(
            self.labels,
            spectra.ids.tolist(),
            [f"{p} usable pixels, the model asks for {self.min_pixels}" for p in found.n_pixels],
            spectra.meta,
            int(ResultFlag.FEW_PIXELS | ResultFlag.FAILED),
        ).with_(n_pixels=found.n_pixels)
        used = np.flatnonzero(found.n_pixels >= self.min_pixels)
        return estimates if used.size == 0 else self._assemble(estimates, used, found)

    def _assemble(self, estimates: LabelEstimates, used: NDArray[np.int64], found: Scores) -> LabelEstimates:
        scaled, slopes = self.scaled_labels(found.values[used] / self.space.spread)
        labels = self.labels.unscale(scaled)
        covariance = self.labels.unscale_covariance(self.scaled_covariance(slopes, found.covariance[used]), scaled)
        good: NDArray[np.bool_] = np.asarray(np.isfinite(labels).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2)))
        values, errors, chi2 = estimates.values.copy(), estimates.covariance.copy(), estimates.chi2.copy()
        values[used[good]], errors[used[good]], chi2[used] = labels[good], covariance[good], found.chi2[used]
        status, reason, flag = list(estimates.status), list(estimates.reason), estimates.flag.copy()
        for row, fine in zip(used, good, strict=True):
            status[row] = FitStatus.CONVERGED if fine else FitStatus.FAILED
            reason[row] = "" if fine else "the network's labels are not finite"
        flag[used] = np.where(good, 0, int(ResultFlag.FAILED))
        flag[used] |= np.where(found.strange[used], int(ResultFlag.POOR_CHI2), 0)
        out = estimates.with_(values=values, covariance=errors, chi2=chi2, status=tuple(status), reason=tuple(reason), flag=flag)
        finite = np.isfinite(values)
        out = out.add_label_flag(finite & ~self.labels.in_range(values), int(ResultFlag.OUT_OF_RANGE))
        width = np.array(self.labels.upper) - np.array(self.labels.lower)
        wide = np.nan_to_num(out.errors) > _UNCONSTRAINED * width
        return out.add_label_flag(finite & wide, int(ResultFlag.UNCONSTRAINED))

    def scaled_covariance(self, slopes: FloatArray, covariance: FloatArray) -> FloatArray:
        """(n, K, r) slopes by the inputs and (n, r, r) covariance of the scores -> (n, K, K) of the scaled labels."""
        slopes = slopes / self.space.spread * self.noise_factor[:, None]
        own = np.matmul(np.matmul(slopes, covariance), slopes.transpose(0, 2, 1))
        return np.asarray(self.residual_covariance + 0.5 * (own + own.transpose(0, 2, 1)))

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays, config = self.space.to_arrays()
        arrays |= {"residual_covariance": self.residual_covariance, "noise_factor": self.noise_factor}
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"] = weight, bias
        config |= {"kind": "pca_mlp", "label_set": self.labels.to_config(), "activation": self.activation}
        return arrays, {**config, "n_layers": len(self.layers), "min_pixels": self.min_pixels}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> PcaMlpInferrer:
        """Inverse of :meth:`to_arrays`."""
        layers = tuple((arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(int(config["n_layers"])))
        return cls(
            LabelSet.from_config(config["label_set"]),
            ScoreSpace.from_arrays(arrays, config),
            layers,
            config["activation"],
            arrays["residual_covariance"],
            arrays["noise_factor"],
            int(config["min_pixels"]),
        )
