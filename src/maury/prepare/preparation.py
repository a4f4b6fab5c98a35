"""Preparation: a tuple of steps, readable in the recipe, saved inside the model, known by its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from maury.errors import MauryError, RecipeError, UsageError
from maury.prepare.air import ToAir, ToVacuum
from maury.prepare.config import canonical, step_from_config
from maury.prepare.continuum import GaussianContinuum, RunningMedian, Scale
from maury.prepare.degrade import Degrade
from maury.prepare.gisic import Gisic
from maury.prepare.macroturbulence import Macroturbulence
from maury.prepare.masking import FillMasked, Mask, RejectSpikes
from maury.prepare.measure_rv import MeasureRv
from maury.prepare.polynomial import PolynomialContinuum
from maury.prepare.resample import Resample
from maury.prepare.rotation import Rotate
from maury.prepare.signal import CorrelatedNoise, Crop, MeasureSnr, NoiseFloor
from maury.prepare.slope import RejectSlope
from maury.protocols import Step
from maury.spectra import Spectra
from maury.threads import in_threads

STEPS: dict[str, type[Any]] = {
    step.name: step
    for step in (
        ToVacuum,
        ToAir,
        Mask,
        RejectSpikes,
        MeasureRv,
        Rotate,
        Macroturbulence,
        Degrade,
        Resample,
        RunningMedian,
        GaussianContinuum,
        PolynomialContinuum,
        Gisic,
        RejectSlope,
        Scale,
        Crop,
        NoiseFloor,
        CorrelatedNoise,
        MeasureSnr,
        FillMasked,
    )
}
"""Every step by the name it has in a recipe."""


class Failure(NamedTuple):
    """Spectra that could not be prepared, and why."""

    batch: int
    """Position of their batch in the input."""
    rows: tuple[int, ...]
    """Their rows in that batch."""
    ids: tuple[str, ...]
    reason: str


class Source(NamedTuple):
    """Where a prepared spectrum came from: the batch's position in the input, and the row in that batch."""

    batch: int
    row: int


class PreparedResult(NamedTuple):
    """What could be prepared (in input order; None if nothing), where each row came from, and what could not."""

    spectra: Spectra | None
    sources: tuple[Source, ...]
    failures: list[Failure]


class _Piece(NamedTuple):
    """Spectra of one grid, on their way, with the place each row came from."""

    spectra: Spectra
    sources: tuple[Source, ...]

    def parts(self, number: int) -> list[_Piece]:
        """The same spectra in so many pieces, or fewer where there are too few."""
        n = len(self.sources)
        edges = sorted({n * i // number for i in range(number + 1)})
        if len(edges) == 2:
            return [self]
        return [_Piece(self.spectra[a:b], self.sources[a:b]) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Preparation:
    """Steps applied in order to every batch, which then become one batch.

    Examples
    --------
    >>> from maury.prepare import GaussianContinuum, Mask, Preparation, Resample
    >>> preparation = Preparation((Mask(), Resample(start=4500, stop=7500, spacing=1), GaussianContinuum()))
    >>> Preparation.from_config(preparation.to_config()) == preparation
    True
    """

    steps: tuple[Step, ...]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the configuration: equal if and only if the steps are."""
        text = json.dumps(canonical(self.to_config()), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_config(self) -> list[dict[str, Any]]:
        """One plain dictionary per step, with all its parameters."""
        return [step.to_config() for step in self.steps]

    @classmethod
    def from_config(cls, config: list[dict[str, Any]]) -> Preparation:
        """A preparation from its configuration (a recipe's ``[[prepare]]`` entries, a model's header).

        Raises
        ------
        RecipeError
            If a step or key is unknown, a value impossible or a file that a step names unreadable; the sentence says what is
            expected.
        """
        if not isinstance(config, list) or not all(isinstance(entry, dict) for entry in config):
            raise RecipeError(
                'expected preparation as a list of tables, each with step = "name", got something else; write [[prepare]]'
            )
        # a template's file becomes numbers here, so that what is saved needs no file
        entries = [MeasureRv.with_file_read(entry) if entry.get("step") == MeasureRv.name else entry for entry in config]
        return cls(tuple(step_from_config(entry, STEPS) for entry in entries))

    def __call__(self, batches: Spectra | Sequence[Spectra]) -> Spectra:
        """Prepare everything, or raise: for training, where a spectrum that cannot be prepared is a mistake.

        Spectra that carry this preparation's fingerprint already are returned unchanged.

        Raises
        ------
        UsageError
            If a step cannot be done, the results do not share a grid, or spectra were prepared otherwise before.
        """
        pieces, order = _grouped(_as_list(batches))
        return self._joined([self._prepared(piece) for piece in pieces], order)

    def prepare_each(
        self,
        batches: Spectra | Sequence[Spectra],
        progress: Callable[[int, int], None] | None = None,
        workers: int = 1,
    ) -> PreparedResult:
        """Prepare what can be prepared: for inference, where one spectrum must not stop the rest.

        A batch that fails as a whole is halved until the spectra that cannot be prepared stand alone.
        ``progress`` is called with (spectra done, spectra in all); ``workers`` is how many cores take part.
        """
        pieces, order = _grouped(_as_list(batches))
        done: list[_Piece] = []
        failures: list[Failure] = []
        n_done = 0
        pieces = [part for piece in pieces for part in piece.parts(workers)]
        for piece, (good, bad) in zip(pieces, in_threads(self._attempt, pieces, workers), strict=True):
            done += good
            failures += bad
            n_done += len(piece.sources)
            if progress is not None:
                progress(n_done, len(order))
        done = _alike(done, failures)
        failures.sort(key=lambda f: (f.batch, f.rows))
        if not done:
            return PreparedResult(None, (), failures)
        present = {source for piece in done for source in piece.sources}
        kept = [source for source in order if source in present]
        return PreparedResult(self._joined(done, kept), tuple(kept), failures)

    def _prepared(self, piece: _Piece) -> _Piece:
        spectra = piece.spectra
        if spectra.preparation == self.fingerprint:
            return piece
        if spectra.preparation is not None:
            raise UsageError(
                f"expected raw spectra, got some prepared already (preparation {spectra.preparation}, this one is "
                f"{self.fingerprint}); give the spectra as read, or the model they were prepared for"
            )
        for step in self.steps:
            spectra = step(spectra)
        return _Piece(spectra.with_pixels(preparation=self.fingerprint), piece.sources)

    def _attempt(self, piece: _Piece) -> tuple[list[_Piece], list[Failure]]:
        try:
            return [self._prepared(piece)], []
        except MauryError as error:
            n = len(piece.sources)
            if n <= 1:
                return [], _failures(piece, str(error))
            done: list[_Piece] = []
            failures: list[Failure] = []
            for part in piece.parts(2):
                good, bad = self._attempt(part)
                done += good
                failures += bad
            return done, failures

    @staticmethod
    def _joined(pieces: list[_Piece], order: Sequence[Source]) -> Spectra:
        whole = Spectra.stack([piece.spectra for piece in pieces])
        position = {source: i for i, source in enumerate(s for piece in pieces for s in piece.sources)}
        rows = np.array([position[source] for source in order], dtype=np.intp)
        return whole if (rows == np.arange(rows.size)).all() else whole[rows]


def _as_list(batches: Spectra | Sequence[Spectra]) -> list[Spectra]:
    found = [batches] if isinstance(batches, Spectra) else list(batches)
    if not found:
        raise UsageError("expected at least one batch of spectra, got none; read or select some first")
    return found


def _grouped(batches: Iterable[Spectra]) -> tuple[list[_Piece], list[Source]]:
    """Batches that agree in grid, medium, frame and preparation as one piece each, and the input's order of rows."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    batches = list(batches)
    for i, b in enumerate(batches):
        key = (b.wavelength.tobytes(), b.medium, b.frame, b.preparation, tuple(b.meta.colnames))
        groups.setdefault(key, []).append(i)
    pieces = []
    for members in groups.values():
        sources = tuple(Source(i, row) for i in members for row in range(len(batches[i])))
        pieces.append(_Piece(Spectra.stack([batches[i] for i in members]), sources))
    return pieces, [Source(i, row) for i, b in enumerate(batches) for row in range(len(b))]


def _alike(pieces: list[_Piece], failures: list[Failure]) -> list[_Piece]:
    """The pieces that share the most common grid, medium and frame; the others become failures."""
    votes: dict[tuple[Any, ...], int] = {}
    keys = [(p.spectra.wavelength.tobytes(), p.spectra.medium, p.spectra.frame) for p in pieces]
    for key, piece in zip(keys, pieces, strict=True):
        votes[key] = votes.get(key, 0) + len(piece.sources)
    if len(votes) < 2:
        return pieces
    common = max(votes, key=lambda k: votes[k])
    for key, piece in zip(keys, pieces, strict=True):
        if key != common:
            failures += _failures(
                piece,
                f"expected spectra on one grid, medium and frame after preparation, got {piece.spectra!r}, unlike the others; "
                "add to_vacuum (or to_air) and resample to the preparation",
            )
    return [piece for key, piece in zip(keys, pieces, strict=True) if key == common]


def _failures(piece: _Piece, reason: str) -> list[Failure]:
    rows: dict[int, list[int]] = {}
    for i, source in enumerate(piece.sources):
        rows.setdefault(source.batch, []).append(i)
    return [
        Failure(batch, tuple(piece.sources[i].row for i in members), tuple(str(piece.spectra.ids[i]) for i in members), reason)
        for batch, members in rows.items()
    ]
