"""Mask bits that several surveys share."""

from __future__ import annotations

from maury.flags import PixelFlag

SPPIXMASK: dict[int, PixelFlag] = {
    **dict.fromkeys((0, 1), PixelFlag.FIBER),  # NOPLUG, BADTRACE
    2: PixelFlag.BAD_FLAT,  # BADFLAT
    **dict.fromkeys((3, 4, 5, 6, 7, 8, 9), PixelFlag.FIBER),  # BADARC ... NEARWHOPPER, WHOPPER: of the whole fibre
    **dict.fromkeys((10, 11, 12), PixelFlag.SURVEY_OTHER),  # SMEARIMAGE, SMEARHIGHSN, SMEARMEDSN: how it was calibrated
    16: PixelFlag.NEAR_BAD_PIXEL,
    17: PixelFlag.LOW_FLAT,
    18: PixelFlag.FULL_REJECT,
    19: PixelFlag.PARTIAL_REJECT,
    20: PixelFlag.SCATTERED_LIGHT,
    21: PixelFlag.CROSSTALK,
    22: PixelFlag.NO_SKY,
    23: PixelFlag.BRIGHT_SKY,
    24: PixelFlag.NO_DATA,
    25: PixelFlag.COMBINE_REJECT,
    26: PixelFlag.BAD_FLUX_FACTOR,
    27: PixelFlag.BAD_SKY_CHI,
    28: PixelFlag.RED_MONSTER,
}
"""SDSS spectro-2D pixel mask, https://www.sdss4.org/dr17/algorithms/bitmasks/#SPPIXMASK."""
