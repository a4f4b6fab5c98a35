"""Polynomial terms of scaled labels: the design of The Cannon (Ness+2015), of any order or with terms of one's own choice.

For K labels and order 2 the terms are 1, l_i, l_i l_j (i <= j): 1 + K + K(K+1)/2 of them (METHODS 0.5). A product of two
terms is again a monomial, so the normal matrices of all pixels need one matrix product over the *distinct* monomials (70
instead of 120 for K = 4), not over pairs of terms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PolynomialTerms:
    """Monomials of scaled labels; the first is the constant.

    Parameters
    ----------
    powers : for each term the exponent of each label.

    Raises
    ------
    UsageError
        If the first term is not the constant, a term is repeated or has another number of labels.
    """

    powers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.powers or not self.powers[0] or any(self.powers[0]):
            raise UsageError(f"expected the constant as the first term of the polynomial, got {self.powers[:1]}")
        if len(set(self.powers)) != len(self.powers) or len({len(p) for p in self.powers}) != 1:
            raise UsageError("expected different terms, each with one exponent per label, got repeated or ragged ones")

    @classmethod
    def of_order(cls, n_labels: int, order: int = 2) -> PolynomialTerms:
        """All monomials up to total degree ``order``: 1, l_1, l_2, ..., l_1 l_1, l_1 l_2, ...

        Raises
        ------
        UsageError
            If there is no label, or the order is not 1, 2, 3 or 4.
        """
        if n_labels < 1:
            raise UsageError("expected at least one label, got none; name the labels")
        if order not in (1, 2, 3, 4):
            raise UsageError(f"expected order 1, 2, 3 or 4 of the label polynomial, got {order}; 2 is The Cannon's")
        chosen = (f for degree in range(order + 1) for f in combinations_with_replacement(range(n_labels), degree))
        return cls(tuple(tuple(f.count(k) for k in range(n_labels)) for f in chosen))

    @classmethod
    def from_names(cls, names: Sequence[str], labels: tuple[str, ...]) -> PolynomialTerms:
        """Terms written as ``"1", "teff", "teff^2", "teff*logg"``; the constant is added in front if it is missing.

        Raises
        ------
        UsageError
            If a name is not such a product of the labels.
        """
        powers = [_parse_term(name, labels) for name in names]
        constant = (0,) * len(labels)
        return cls((constant, *(p for p in powers if p != constant)))

    @property
    def n_labels(self) -> int:
        return len(self.powers[0])

    @property
    def n_terms(self) -> int:
        return len(self.powers)

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Names in the form that :meth:`from_names` reads."""
        written = []
        for powers in self.powers:
            factors = [label if p == 1 else f"{label}^{p}" for label, p in zip(labels, powers, strict=True) if p]
            written.append("*".join(factors) or "1")
        return tuple(written)

    def evaluate(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., n_terms)."""
        return _monomials(_power_table(scaled, self._highest), self.powers)

    def jacobian(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., n_terms, K), d term / d scaled label."""
        table = _power_table(scaled, self._highest)
        out = np.zeros((*scaled.shape[:-1], self.n_terms, self.n_labels))
        for term, label, power, rest in self._derivatives:
            out[..., term, label] = power * _monomials(table, (rest,))[..., 0]
        return out

    @cached_property
    def products(self) -> tuple[PolynomialTerms, NDArray[np.int64]]:
        """The distinct monomials among products of two terms, and (n_terms, n_terms) the position of each product."""
        position: dict[tuple[int, ...], int] = {}
        index = np.empty((self.n_terms, self.n_terms), dtype=np.int64)
        for i, a in enumerate(self.powers):
            for j, b in enumerate(self.powers):
                index[i, j] = position.setdefault(tuple(x + y for x, y in zip(a, b, strict=True)), len(position))
        return PolynomialTerms(tuple(position)), index

    @cached_property
    def _highest(self) -> int:
        return max(max(powers) for powers in self.powers)

    @cached_property
    def _derivatives(self) -> tuple[tuple[int, int, int, tuple[int, ...]], ...]:
        """(term, label, the label's power, powers of what is left when one factor is taken off)."""
        rows = []
        for t, powers in enumerate(self.powers):
            for k, power in enumerate(powers):
                if power:
                    rows.append((t, k, power, tuple(p - (i == k) for i, p in enumerate(powers))))
        return tuple(rows)


def _power_table(scaled: FloatArray, highest: int) -> list[FloatArray]:
    """[x, x^2, ...], each (..., K)."""
    table = [np.asarray(scaled, dtype=np.float64)]
    for _ in range(1, highest):
        table.append(table[-1] * scaled)
    return table


def _monomials(table: list[FloatArray], powers: tuple[tuple[int, ...], ...]) -> FloatArray:
    out = np.empty((*table[0].shape[:-1], len(powers)))
    for t, term in enumerate(powers):
        factors = [table[p - 1][..., k] for k, p in enumerate(term) if p]
        out[..., t] = factors[0] if factors else 1.0
        for factor in factors[1:]:
            out[..., t] *= factor
    return out


def _parse_term(name: str, labels: tuple[str, ...]) -> tuple[int, ...]:
    powers = [0] * len(labels)
    for factor in [] if name.strip() == "1" else name.split("*"):
        match = re.fullmatch(r"\s*(\w+?)\s*(?:\^\s*([1-9]))?\s*", factor)
        if match is None or match[1] not in labels:
            raise UsageError(
                f"expected a term such as '{labels[0]}^2' or a product of {', '.join(labels)} with '*', got {name!r}; correct it"
            )
        powers[labels.index(match[1])] += int(match[2] or 1)
    return tuple(powers)
