"""Chi-square of networks with many basis vectors: steps on an approximation of few, the end exact, as in :mod:`maury.fit.moving`.

A network trained on pixels keeps something of its random first weights in hundreds of directions. The matrices of
:class:`~maury.fit.chi2.TermProblem` grow with their square, though all but some tens hardly change a spectrum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.emulate.payne import PayneEmulator
from maury.fit.chi2 import Evaluation, PixelProblem, TermProblem, joined
from maury.fit.moved_basis import rough_emulator
from maury.fit.products import Products
from maury.protocols import TermEmulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STAR_BLOCK = 256  # bounds the (stars, pixels) temporaries
_JACOBIAN_BLOCK = 32  # the same for (stars, pixels, labels)


class RoughTermProblem(TermProblem):
    """Term space of a shorter basis, and the network itself over the pixels."""

    def __init__(self, spectra: Spectra, emulator: PayneEmulator, where: Products | None = None) -> None:
        rough = rough_emulator(emulator)
        assert isinstance(rough, TermEmulator)
        super().__init__(spectra, rough, where)
        self._network, self._pixels = emulator, PixelProblem(spectra, emulator)

    def exact(self, star: IntArray, scaled: FloatArray, hessian: FloatArray | None = None) -> Evaluation:
        """Chi-square and gradient from the pixels, and the Hessian where none is given."""
        if hessian is None:
            return joined(
                [
                    self._pixels.evaluate(star[i : i + _JACOBIAN_BLOCK], scaled[i : i + _JACOBIAN_BLOCK])
                    for i in range(0, len(star), _JACOBIAN_BLOCK)
                ]
            )
        chi2, gradient = np.empty(len(star)), np.empty(scaled.shape)
        for i in range(0, len(star), _STAR_BLOCK):
            rows = slice(i, i + _STAR_BLOCK)
            chi2[rows], pull = self._pixels.with_gradient(star[rows], scaled[rows])
            terms = np.column_stack([np.zeros(len(pull)), pull @ self._network.basis.T])
            gradient[rows] = self._network.terms_gradient(scaled[rows], terms)
        return Evaluation(chi2, gradient, hessian)
