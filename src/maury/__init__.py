"""maury: stellar spectra into stellar labels, with errors that are right and flags that are honest.

The map. Data walks down this list, and a room imports only from rooms above it (a test holds the code to that):

* vocabulary, what every room speaks
    ``errors constants flags labels spectra estimates protocols files threads``
* 1 read          files -> Spectra: a registry and one file per instrument or survey
    ``read``
* 2 synthesise    model grids: PHOENIX and any other, download, interpolation, samplers, augmentation, training sets on disk
    ``grids``
* 3 prepare       Spectra -> Spectra: medium, rest frame, masks, broadening, grid, continuum, velocity; ``Preparation`` = steps
    ``prepare``
* 4 learn         torch modules; splits, the training loop and its checkpoints; labels -> flux (The Cannon, The Payne,
                  covariance); flux -> labels (principal components and a network; convolutional networks and
                  autoencoders that vote)
    ``networks train emulate regress``
* 5 infer         chi-square, batched Levenberg-Marquardt, starts, velocity, regions: Emulator + Fitter -> LabelEstimates
    ``fit``
* 6 assess        metrics, cross-validation, error models, repeat visits, emulator accuracy, quality cuts, training region,
                  several systems on the same stars, the gap between training spectra and others
    ``assess``
* 7 publish       LabelEstimates -> catalogue files, generated spectra; figures
    ``catalogue report``
* across the flow
    ``model store`` what is saved; ``models`` those that ship; ``recipes`` one TOML file = one training, or one sweep; several =
    a comparison; ``demo``; ``cli`` the commands

One spectrum's way through the house: ``cli/infer.py`` -> ``read/`` -> ``store.load_model`` -> ``model.Model.infer``
(``prepare/``, ``fit/``, ``assess/``) -> ``catalogue/``.

Names below are imported when first used, so ``import maury`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maury.catalogue import build_catalogue, read_catalogue, write_catalogue
    from maury.emulate import CannonConfig, CannonEmulator, PayneConfig, PayneEmulator, train_cannon, train_payne
    from maury.errors import MauryError
    from maury.estimates import LabelEstimates
    from maury.fit import ChiSquareFitter, EmulatorInferrer
    from maury.labels import Label, LabelSet
    from maury.model import Model
    from maury.prepare import Preparation
    from maury.read import read_file, read_files
    from maury.recipes import load_recipe, run_recipe
    from maury.spectra import Spectra
    from maury.store import load_model, save_model

_HOME = {
    "CannonConfig": "maury.emulate",
    "CannonEmulator": "maury.emulate",
    "ChiSquareFitter": "maury.fit",
    "EmulatorInferrer": "maury.fit",
    "Label": "maury.labels",
    "LabelEstimates": "maury.estimates",
    "LabelSet": "maury.labels",
    "MauryError": "maury.errors",
    "Model": "maury.model",
    "PayneConfig": "maury.emulate",
    "PayneEmulator": "maury.emulate",
    "Preparation": "maury.prepare",
    "Spectra": "maury.spectra",
    "build_catalogue": "maury.catalogue",
    "load_model": "maury.store",
    "load_recipe": "maury.recipes",
    "read_catalogue": "maury.catalogue",
    "read_file": "maury.read",
    "read_files": "maury.read",
    "run_recipe": "maury.recipes",
    "save_model": "maury.store",
    "train_cannon": "maury.emulate",
    "train_payne": "maury.emulate",
    "write_catalogue": "maury.catalogue",
}

__all__ = [
    "CannonConfig",
    "CannonEmulator",
    "ChiSquareFitter",
    "EmulatorInferrer",
    "Label",
    "LabelEstimates",
    "LabelSet",
    "MauryError",
    "Model",
    "PayneConfig",
    "PayneEmulator",
    "Preparation",
    "Spectra",
    "__version__",
    "build_catalogue",
    "load_model",
    "load_recipe",
    "read_catalogue",
    "read_file",
    "read_files",
    "run_recipe",
    "save_model",
    "train_cannon",
    "train_payne",
    "write_catalogue",
]


def __getattr__(name: str) -> Any:
    """A public name from its room, imported now (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'maury' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
