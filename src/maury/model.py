"""Model: everything needed to judge a raw spectrum: preparation, inferrer, training region, cuts, calibrated errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.calibration import ErrorModel, error_model_from_config
from maury.assess.gap import SyntheticGap, largest
from maury.assess.quality import QualityCuts
from maury.assess.region import TrainingRegion
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import part_of
from maury.fit.inferrer import (
    FittedInferrer,
    ModelInferrer,
    inferrer_from_arrays,
    inferrer_to_arrays,
    own_labels,
    running_on,
    workers_of,
)
from maury.flags import ResultFlag
from maury.labels import LabelSet
from maury.prepare import Preparation
from maury.spectra import Spectra, empty_meta

if TYPE_CHECKING:
    from maury.read import ReadResult

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""


@dataclass(frozen=True, eq=False)
class Model:
    """A finished model. What :func:`maury.save_model` saves and :func:`maury.load_model` gives back.

    Parameters
    ----------
    preparation : steps from a raw spectrum to one the inferrer understands.
    inferrer : prepared spectra -> labels.
    region : label space filled by the training stars (sets OUTSIDE_TRAINING, THIN_TRAINING), or None.
    cuts : limits that set flags.
    error_model : calibration of errors, or None to leave them formal.
    provenance : recipe, data, versions, scores: plain values for people, not for the computation.
    gap : the training spectra, to tell how far others lie from them (sets SYNTHETIC_GAP and the meta column ``gap``); None
        where there are too few of them, and in model files of before.
    """

    preparation: Preparation
    inferrer: ModelInferrer
    region: TrainingRegion | None = None
    cuts: QualityCuts = field(default_factory=QualityCuts)
    error_model: ErrorModel | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    gap: SyntheticGap | None = None

    @property
    def labels(self) -> LabelSet:
        return self.inferrer.labels

    @property
    def model_id(self) -> str:
        """Twelve hexadecimal digits, the same for the same training (see :mod:`maury.store`)."""
        from maury.store import model_id_of

        return model_id_of(*self.to_arrays())

    def running_on(self, *, device: str = "cpu", workers: int = 1) -> Model:
        """The same model, at work elsewhere: "cuda" for the sums over pixels, several cores for blocks of spectra.

        Raises
        ------
        UsageError
            If the device is not there.
        """
        return replace(self, inferrer=running_on(self.inferrer, device, workers))

    def infer(
        self,
        spectra: Spectra | Sequence[Spectra],
        progress: Progress | None = None,
        on_prepared: Callable[[Spectra], object] | None = None,
    ) -> LabelEstimates:
        """Labels of raw spectra, one row for each, in the order given.

        Parameters
        ----------
        spectra : raw spectra as read, of any grids. A spectrum that can not be prepared keeps its row, with NaN labels,
            status NOT_FITTED, flag UNREADABLE and its reason.
        progress : called with ("prepare" or "fit", done, all).
        on_prepared : called with the spectra that could be prepared, in the order of their rows, if there are any.

        Raises
        ------
        UsageError
            If there is no spectrum at all.
        """
        batches = [spectra] if isinstance(spectra, Spectra) else list(spectra)
        if sum(len(batch) for batch in batches) == 0:
            raise UsageError("expected at least one spectrum, got none; read some files first")
        prepared = self.preparation.prepare_each(batches, _stage(progress, "prepare"), workers_of(self.inferrer))
        parts: list[LabelEstimates] = []
        origin: list[tuple[int, int]] = []
        if prepared.spectra is not None:
            if on_prepared is not None:
                on_prepared(prepared.spectra)
            parts.append(self.infer_prepared(prepared.spectra, progress))
            origin += [(source.batch, source.row) for source in prepared.sources]
        for failure in prepared.failures:
            meta = batches[failure.batch].meta[list(failure.rows)]
            reasons = [failure.reason] * len(failure.rows)
            parts.append(LabelEstimates.missing(self.labels, failure.ids, reasons, meta, int(ResultFlag.UNREADABLE)))
            origin += [(failure.batch, row) for row in failure.rows]
        order = sorted(range(len(origin)), key=origin.__getitem__)
        return LabelEstimates.concatenate(parts)[order]

    def infer_files(
        self,
        read: ReadResult,
        files: Sequence[str],
        progress: Progress | None = None,
        on_prepared: Callable[[Spectra], object] | None = None,
    ) -> LabelEstimates:
        """Labels of what :func:`maury.read_files` found; a file that could not be read keeps a row, with its reason.

        Parameters
        ----------
        read : spectra and failures of ``files``.
        files : as they were given to be read: the order of the rows.
        progress, on_prepared : as for :meth:`infer`.
        """
        parts: list[LabelEstimates] = []
        places: list[int] = []
        position = {file: i for i, file in enumerate(files)}
        if read.spectra:
            parts.append(self.infer(read.spectra, progress, on_prepared))
            places += [position[file] for file, batch in zip(read.files, read.spectra, strict=True) for _ in range(len(batch))]
        if read.failures:
            meta = empty_meta(len(read.failures))
            meta["file"] = [Path(failure.file).name for failure in read.failures]
            ids = [Path(failure.file).name.split(".")[0] for failure in read.failures]
            reasons = [failure.reason for failure in read.failures]
            parts.append(LabelEstimates.missing(self.labels, ids, reasons, meta, int(ResultFlag.UNREADABLE)))
            places += [position[failure.file] for failure in read.failures]
        return LabelEstimates.concatenate(parts)[np.argsort(places, kind="stable")]

    def infer_prepared(self, spectra: Spectra, progress: Progress | None = None) -> LabelEstimates:
        """Labels of spectra that this model's preparation has prepared.

        Raises
        ------
        UsageError
            If they carry another preparation's fingerprint.
        """
        if spectra.preparation != self.preparation.fingerprint:
            raise UsageError(
                f"expected spectra prepared by this model (fingerprint {self.preparation.fingerprint}), got "
                f"{spectra.preparation or 'raw ones'}; call model.infer on raw spectra"
            )
        estimates = self.inferrer.infer(spectra, _stage(progress, "fit"))
        return self._with_gap(self.judge(estimates), spectra)

    def gap_ratios(self, spectra: Spectra, estimates: LabelEstimates) -> FloatArray:
        """(n, W) distance of prepared spectra from the training spectra, in each window of :attr:`gap`; above 1 there is a gap.

        Parameters
        ----------
        spectra : that this model's preparation has prepared.
        estimates : of them; a velocity that was fitted along is taken out.

        Raises
        ------
        UsageError
            If the model has no gap.
        """
        gap = self.checked_gap()
        covariance = self.inferrer.emulator.model_covariance if isinstance(self.inferrer, FittedInferrer) else None
        return gap.ratios(spectra, covariance, self.left_velocity(estimates))

    def checked_gap(self) -> SyntheticGap:
        """:attr:`gap`, where something needs it.

        Raises
        ------
        UsageError
            If the model has none.
        """
        if self.gap is None:
            raise UsageError(
                "expected a model that knows its training spectra, got one without (trained by an older maury, or on fewer than "
                "100 spectra); train it again"
            )
        return self.gap

    def left_velocity(self, estimates: LabelEstimates) -> FloatArray | None:
        """(n,) km/s that were fitted along and so are still in the prepared spectra; None if this model fits none."""
        if "delta_rv" not in estimates.labels.names or "delta_rv" in own_labels(self.inferrer).names:
            return None
        return estimates.values[:, estimates.labels.index("delta_rv")]

    def _with_gap(self, estimates: LabelEstimates, spectra: Spectra) -> LabelEstimates:
        """Estimates of prepared spectra with SYNTHETIC_GAP and the column ``gap``, the largest ratio over the windows."""
        if self.gap is None:
            return estimates
        ratio = largest(self.gap_ratios(spectra, estimates))
        meta = estimates.meta.copy()
        meta["gap"] = ratio
        return estimates.with_(meta=meta).add_flag(ratio > 1.0, int(ResultFlag.SYNTHETIC_GAP))

    def judge(self, estimates: LabelEstimates) -> LabelEstimates:
        """Estimates with region, cuts, velocity flag and calibrated errors applied."""
        known = estimates.only(own_labels(self.inferrer).names)  # a fitted velocity has no region and no error model
        known = known if self.region is None else self.region.flag(known)
        out = self.cuts.apply(estimates.merged(known))
        if "no_velocity" in out.meta.colnames:
            missing = np.ma.filled(np.ma.asarray(out.meta["no_velocity"]), False).astype(bool)
            out = out.add_flag(missing, int(ResultFlag.NO_VELOCITY))
        if self.error_model is None:
            return out
        return out.merged(self.error_model.apply(out.only(known.labels.names)))

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and header for :func:`maury.store.write_model_file`."""
        arrays, inferrer_config = inferrer_to_arrays(self.inferrer)
        header: dict[str, Any] = {
            **inferrer_config,
            "preparation": self.preparation.to_config(),
            "cuts": self.cuts.to_config(),
            "error_model": None if self.error_model is None else self.error_model.to_config(),
            "region": None,
            "provenance": self.provenance,
        }
        if self.region is not None:
            region_arrays, header["region"] = self.region.to_arrays()
            arrays |= {f"training.{name}": array for name, array in region_arrays.items()}
        if self.gap is not None:  # no entry otherwise: models of before keep their ids
            gap_arrays, header["gap"] = self.gap.to_arrays()
            arrays |= {f"gap.{name}": array for name, array in gap_arrays.items()}
        return arrays, header

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], header: dict[str, Any]) -> Model:
        """Inverse of :meth:`to_arrays`."""
        region = None
        if header["region"] is not None:
            region = TrainingRegion.from_arrays(part_of(arrays, "training."), header["region"])
        gap = SyntheticGap.from_arrays(part_of(arrays, "gap."), header["gap"]) if "gap" in header else None
        error_config = header["error_model"]
        return cls(
            Preparation.from_config(header["preparation"]),
            inferrer_from_arrays(arrays, header),
            region,
            QualityCuts(**header["cuts"]),
            None if error_config is None else error_model_from_config(error_config),
            header["provenance"],
            gap,
        )


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)
