"""Models that come with the package: one file and one card each, usable by name wherever a model file is asked for.

How a model is named. A bare word that is the name of a shipped model (``gaia-rvs``) means that model, always, whatever lies in
the folder at hand: the same command does the same everywhere. Everything else is a path. So a file of one's own is reached by
any path with a suffix or a separator (``gaia-rvs.safetensors``, ``./gaia-rvs``), and never mistaken for what ships.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ShippedModel:
    """A model of the package.

    Parameters
    ----------
    name : what users write; also the name of its file and its card.
    purpose : one line: which spectra, which labels.
    """

    name: str
    purpose: str

    @property
    def file(self) -> Path:
        return _FOLDER / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """Markdown: what it does, from which data, ranges, errors, limits, and the command that remakes it."""
        return _FOLDER / f"{self.name}.md"


SHIPPED: dict[str, ShippedModel] = {
    model.name: model
    for model in (
        ShippedModel("gaia-rvs", "Gaia RVS mean spectra: Teff, log g, [M/H], v_micro, v sin i and velocity; and such spectra"),
    )
}
"""Name -> shipped model."""


def is_shipped(model: str | os.PathLike[str]) -> bool:
    """Whether this names a shipped model rather than a file (see the module's docstring)."""
    return os.fspath(model) in SHIPPED


def model_path(model: str | os.PathLike[str]) -> Path:
    """The file of a model, from the name of a shipped one or from its path; whether a path exists is not looked at."""
    name = os.fspath(model)
    return SHIPPED[name].file if name in SHIPPED else Path(name)
