"""Every bit and status of the package, each with its meaning.

* :class:`PixelFlag`: why a pixel of a spectrum is doubtful. Readers translate each survey's own mask bits into
  these, bit by bit and by name, so one recipe's ``bits = ["BRIGHT_SKY", ...]`` holds for every survey.
* :class:`ResultFlag`: why the labels of a star are doubtful (columns ``flag`` and ``flag_<label>``).
* :class:`FitStatus`: how the fit of a star ended (column ``status``).
"""

from __future__ import annotations

from enum import Enum, IntFlag
from typing import TypeVar


class PixelFlag(IntFlag):
    """Reasons to doubt a pixel; stored as uint32 in ``Spectra.mask``."""

    NO_DATA = 1 << 0
    BAD_PIXEL = 1 << 1
    NEAR_BAD_PIXEL = 1 << 2
    LOW_FLAT = 1 << 3
    FULL_REJECT = 1 << 4
    PARTIAL_REJECT = 1 << 5
    SCATTERED_LIGHT = 1 << 6
    CROSSTALK = 1 << 7
    NO_SKY = 1 << 8
    BRIGHT_SKY = 1 << 9
    COMBINE_REJECT = 1 << 10
    BAD_FLUX_FACTOR = 1 << 11
    BAD_SKY_CHI = 1 << 12
    RED_MONSTER = 1 << 13
    FIBER = 1 << 14
    COSMIC_RAY = 1 << 15
    SATURATED = 1 << 16
    PERSISTENCE = 1 << 17
    GHOST = 1 << 18
    SKY_LINE = 1 << 19
    TELLURIC = 1 << 20
    ARM_JOIN = 1 << 21
    BAD_ERROR = 1 << 22
    BAD_FLAT = 1 << 23
    BAD_DARK = 1 << 24
    WAVELENGTH = 1 << 25
    SURVEY_OTHER = 1 << 26


PIXEL_FLAG_MEANING: dict[PixelFlag, str] = {
    PixelFlag.NO_DATA: "no data, or flux not finite",
    PixelFlag.BAD_PIXEL: "bad, dead or hot detector pixel",
    PixelFlag.NEAR_BAD_PIXEL: "bad pixel within the extraction neighbourhood",
    PixelFlag.LOW_FLAT: "flat field below threshold",
    PixelFlag.FULL_REJECT: "fully rejected in extraction",
    PixelFlag.PARTIAL_REJECT: "partly rejected in extraction",
    PixelFlag.SCATTERED_LIGHT: "scattered light significant",
    PixelFlag.CROSSTALK: "cross-talk from a neighbouring fibre significant",
    PixelFlag.NO_SKY: "sky level unknown at this wavelength",
    PixelFlag.BRIGHT_SKY: "sky level above flux plus ten times its error",
    PixelFlag.COMBINE_REJECT: "rejected when exposures were combined",
    PixelFlag.BAD_FLUX_FACTOR: "low flux calibration or flux correction factor",
    PixelFlag.BAD_SKY_CHI: "sky residuals poor (chi-square)",
    PixelFlag.RED_MONSTER: "contiguous region of poor sky chi-square",
    PixelFlag.FIBER: "a problem of the whole fibre, trace or wavelength solution",
    PixelFlag.COSMIC_RAY: "cosmic ray hit",
    PixelFlag.SATURATED: "saturated",
    PixelFlag.PERSISTENCE: "detector persistence",
    PixelFlag.GHOST: "optical ghost",
    PixelFlag.SKY_LINE: "on a strong sky emission line",
    PixelFlag.TELLURIC: "in a telluric absorption band",
    PixelFlag.ARM_JOIN: "where the arms of the spectrograph join",
    PixelFlag.BAD_ERROR: "error missing, zero, negative or not finite",
    PixelFlag.BAD_FLAT: "bad flat-field pixel",
    PixelFlag.BAD_DARK: "bad dark pixel",
    PixelFlag.WAVELENGTH: "outside the wavelength solution or the range asked for",
    PixelFlag.SURVEY_OTHER: "a bit of the survey's mask for which there is no other name here",
}


class ResultFlag(IntFlag):
    """Reasons to doubt a star's labels; 0 means none is known."""

    UNREADABLE = 1 << 0
    FAILED = 1 << 1
    NOT_CONVERGED = 1 << 2
    FEW_PIXELS = 1 << 3
    LOW_SNR = 1 << 4
    POOR_CHI2 = 1 << 5
    OUT_OF_RANGE = 1 << 6
    AT_BOUND = 1 << 7
    OUTSIDE_TRAINING = 1 << 8
    SEVERAL_MINIMA = 1 << 9
    NO_VELOCITY = 1 << 10
    NEGATIVE_LABEL = 1 << 11
    UNCONSTRAINED = 1 << 12
    ERROR_EXTRAPOLATED = 1 << 13
    WRONG_DOMAIN = 1 << 14
    THIN_TRAINING = 1 << 15
    UPPER_LIMIT = 1 << 16
    DEGENERATE_VOTES = 1 << 17
    SYNTHETIC_GAP = 1 << 18


RESULT_FLAG_MEANING: dict[ResultFlag, str] = {
    ResultFlag.UNREADABLE: "no spectrum could be read or prepared; see the column reason",
    ResultFlag.FAILED: "the fit failed; labels are NaN",
    ResultFlag.NOT_CONVERGED: "the fit stopped before it converged",
    ResultFlag.FEW_PIXELS: "fewer usable pixels than the model asks for",
    ResultFlag.LOW_SNR: "signal-to-noise below the limit set for the model",
    ResultFlag.POOR_CHI2: "the model does not describe the spectrum (reduced chi-square above its limit)",
    ResultFlag.OUT_OF_RANGE: "a label lies outside the range of the training labels",
    ResultFlag.AT_BOUND: "a label stopped at the bound of the fit; its error means little",
    ResultFlag.OUTSIDE_TRAINING: "the labels together lie outside the region that the training stars fill",
    ResultFlag.SEVERAL_MINIMA: "another solution with different labels fits nearly as well",
    ResultFlag.NO_VELOCITY: "no radial velocity was given; the spectrum was taken as it is",
    ResultFlag.NEGATIVE_LABEL: "a label that must be positive came out negative",
    ResultFlag.UNCONSTRAINED: "the spectrum hardly constrains this label (error comparable to the training range)",
    ResultFlag.ERROR_EXTRAPOLATED: "the error model was calibrated at other labels or signal-to-noise ratios",
    ResultFlag.WRONG_DOMAIN: "the spectrum covers too little of the model's wavelength range",
    ResultFlag.THIN_TRAINING: "few training stars near these labels",
    ResultFlag.UPPER_LIMIT: "broadening too small to be seen: zero, with an upper limit as error (in the label's own flag alone)",
    ResultFlag.DEGENERATE_VOTES: "fewer than two networks vote on this label, or all agree: its interval means nothing",
    ResultFlag.SYNTHETIC_GAP: "farther from the training spectra than noise and the model's own error explain",
}


class FitStatus(Enum):
    """How the fit of one star ended (catalogue column ``status``)."""

    CONVERGED = "converged"
    MAX_ITERATIONS = "max_iterations"
    FAILED = "failed"
    NOT_FITTED = "not_fitted"


FlagT = TypeVar("FlagT", bound=IntFlag)


def names_of(flag_type: type[FlagT], value: int) -> list[str]:
    """Names of the bits that are set in ``value``, lowest bit first."""
    return [bit.name or "" for bit in flag_type if value & bit]


def combine(flag_type: type[FlagT], names: list[str] | tuple[str, ...]) -> FlagT:
    """One flag from bit names.

    Raises
    ------
    UsageError
        If a name is no bit of ``flag_type``; the sentence lists those there are.
    """
    from maury.errors import UsageError

    known = {bit.name: bit for bit in flag_type}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"expected names among {', '.join(str(n) for n in known)}, got {', '.join(unknown)}; correct the name")
    total = flag_type(0)
    for name in names:
        total |= known[name]
    return total
