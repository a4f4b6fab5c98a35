"""Labels as a network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.train.config import Scaling


def scaled_labels(
    labels: Sequence[Label], values: ArrayLike, scaling: Scaling, n_spectra: int
) -> tuple[LabelSet, NDArray[np.float64]]:
    """The label set of a training with its scaling, and its (n_spectra, K) values in scaled labels.

    Raises
    ------
    UsageError
        If values are not finite, or of another number than the spectra.
    """
    label_set = LabelSet.from_training(labels, values)
    label_set = label_set.scaled_to_range() if scaling == "range" else label_set
    scaled = label_set.scale(values)
    if len(scaled) != n_spectra:
        raise UsageError(f"expected labels for {n_spectra} spectra, got {len(scaled)} rows; join them first")
    return label_set, scaled
