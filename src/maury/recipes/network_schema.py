"""What a recipe may say about networks: a preset of each kind and what is changed of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, Literal, TypeVar

from pydantic import Field

from maury.emulate.generator_config import PRESETS as GENERATOR
from maury.emulate.generator_config import GeneratorConfig
from maury.emulate.payne_config import PRESETS as PAYNE
from maury.emulate.payne_config import PayneConfig
from maury.errors import UsageError
from maury.networks.topology import PRESETS as TOPOLOGIES
from maury.networks.topology import Topology
from maury.recipes.data_schema import Strict
from maury.regress.cnn_config import PRESETS as CNN
from maury.regress.cnn_config import CnnConfig
from maury.regress.latent_config import PRESETS as LATENT
from maury.regress.latent_config import LatentConfig, SearchConfig
from maury.regress.pca_mlp_config import PRESETS as PCA_MLP
from maury.regress.pca_mlp_config import PcaMlpConfig
from maury.train.config import LoopConfig, Optimiser
from maury.train.transfer_config import JOINT, Transfer, TransferConfig

Activation = Literal["silu", "tanh", "sigmoid", "relu", "leaky_relu"]


Noise = tuple[float, float] | Literal["none"]
"""S/N of the noise in training, lowest and highest; or the spectra as they are."""


class PresetRecipe(Strict):
    """The preset of which the other keys change something."""

    preset: str = "maury"


class LoopRecipe(Strict):
    """How something is trained (:class:`maury.train.config.LoopConfig`); what is not given is the preset's."""

    optimiser: Optimiser | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: Literal["constant", "cosine"] | None = None
    batch_size: int | None = None
    max_epochs: int | None = None
    check_every: int | None = None
    patience: int | None = None
    seed: int | None = None


class NetworkRecipe(LoopRecipe, PresetRecipe):
    """A preset and how it is trained; what is not given is the preset's."""


class ComponentsRecipe(NetworkRecipe):
    """What the networks on principal components have in common; what is not given is the preset's."""

    hidden: tuple[int, ...] | None = None
    activation: Activation | None = None
    components: int | None = None
    members: int | None = None
    scaling: Literal["range", "percentile"] | None = None


class PayneRecipe(ComponentsRecipe):
    """Settings of :class:`maury.emulate.PayneConfig` and its loop; what is not given is the preset's."""

    preset: Literal["maury", "ting2019", "imig2022"] = "maury"
    validation_fraction: float | None = None
    loss: Literal["mse", "l1", "huber"] | None = None
    power: float | None = None

    def to_config(self) -> PayneConfig:
        """The preset with what the recipe changes.

        Raises
        ------
        UsageError
            If a value is impossible.
        """
        return _changed(PAYNE[self.preset], self)


class PcaMlpRecipe(ComponentsRecipe):
    """Settings of :class:`maury.regress.PcaMlpConfig` and its loop; what is not given is the preset's."""

    preset: Literal["maury", "gebran2024"] = "maury"
    joint: bool | None = None
    snr: Noise | None = Field(default=None, description="'none': the spectra as they are")

    def to_config(self) -> PcaMlpConfig:
        """The preset with what the recipe changes.

        Raises
        ------
        UsageError
            If a value is impossible.
        """
        config = _changed(PCA_MLP[self.preset], self, leave=("snr",))
        return config if self.snr is None else replace(config, snr=None if self.snr == "none" else self.snr)


class CnnRecipe(NetworkRecipe):
    """Settings of :class:`maury.regress.CnnConfig` and its loop; what is not given is the preset's."""

    preset: Literal["maury", "passegger2020", "starnet"] = "maury"
    topology: str | None = Field(default=None, description="a name of maury.networks.topology.PRESETS, as in 5-rising-max-3")
    joint: bool | None = None
    members: int | None = None
    validation_fraction: float | None = None
    snr: Noise | None = Field(default=None, description="'none': the spectra as they are")
    min_pixels: int | None = None

    def to_config(self) -> CnnConfig:
        """The preset with what the recipe changes.

        Raises
        ------
        UsageError
            If a value is impossible or there is no such topology.
        """
        config = _changed(CNN[self.preset], self, leave=("snr", "topology"))
        if self.topology is not None:
            config = replace(config, topology=topology_of(self.topology))
        return config if self.snr is None else replace(config, snr=None if self.snr == "none" else self.snr)


def topology_of(name: str) -> Topology:
    """A topology by its name.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name not in TOPOLOGIES:
        raise UsageError(f"expected a topology among {', '.join(TOPOLOGIES)}, got {name!r}; correct the name")
    return TOPOLOGIES[name]


class GeneratorRecipe(Strict):
    """Settings of :class:`maury.emulate.generator_config.GeneratorConfig`; what is not given is the preset's.

    ``max_epochs`` and ``batch_size`` are those of every stage.
    """

    preset: Literal["gebran2024", "gebran2024-tuned", "leaky_relu", "silu"] = "silu"
    encoder: tuple[int, ...] | None = Field(default=None, description="hidden neurons; the decoder mirrors them")
    latent: int | None = None
    label_network: tuple[int, ...] | None = Field(default=None, description="hidden neurons")
    validation_fraction: float | None = None
    max_epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None

    def to_config(self) -> GeneratorConfig:
        """The preset with what the recipe changes.

        Raises
        ------
        UsageError
            If a value is impossible.
        """
        preset = GENERATOR[self.preset]
        loop = _given(max_epochs=self.max_epochs, batch_size=self.batch_size)
        autoencoder = replace(
            preset.autoencoder,
            loop=replace(preset.autoencoder.loop, **loop),
            **_given(hidden=self.encoder, latent=self.latent),
        )
        network = replace(
            preset.label_network, loop=replace(preset.label_network.loop, **loop), **_given(hidden=self.label_network)
        )
        tuning = None if preset.fine_tune is None else replace(preset.fine_tune, **loop)
        given = _given(validation_fraction=self.validation_fraction, seed=self.seed)
        return replace(preset, autoencoder=autoencoder, label_network=network, fine_tune=tuning, **given)


class SearchRecipe(Strict):
    """Settings of :class:`maury.regress.latent_config.SearchConfig`; what is not given is its default."""

    widths: tuple[int, ...] | None = Field(default=None, description="neurons of the first layer; 3/4, 1/2, 1/4, 1/8 follow")
    penalties: tuple[float, ...] | None = None
    fraction: float | None = None
    folds: int | None = None
    epochs: int | None = None
    keep: int | None = None


class TransferRecipe(LoopRecipe):
    """Settings of :class:`maury.train.transfer_config.TransferConfig` and its loop; what is not given is the preset's."""

    method: Transfer | None = None
    weight: float | None = None
    reconstruction: float | None = None
    frozen: tuple[str, ...] | None = Field(default=None, description="patterns, as in weights.[0-3]")
    population: int | None = None
    held_back: float | None = None


class HeadRecipe(LoopRecipe):
    """The regressors on latent numbers, of :class:`maury.regress.CnnConfig`; what is not given is the preset's."""

    topology: str | None = None
    joint: bool | None = None
    members: int | None = None
    validation_fraction: float | None = Field(default=None, description="of the synthetic spectra, where the encoder rests")


class LatentRecipe(NetworkRecipe):
    """Settings of :class:`maury.regress.latent_config.LatentConfig`; what is not given is the preset's.

    Those of the loop are the autoencoder's on synthetic spectra.
    """

    preset: Literal["maury", "masbuitrago2024"] = "maury"
    hidden: tuple[int, ...] | None = Field(default=None, description="neurons of the encoder; the decoder mirrors them")
    latent: int | None = None
    activation: Activation | None = None
    output: Literal["linear", "sigmoid"] | None = None
    activity: float | None = None
    contraction: float | None = None
    contraction_form: Literal["correct", "as_released"] | None = None
    autoencoders: int | None = None
    noise: Noise | Literal["observed", "residuals"] | None = Field(default=None, description="see LatentConfig")
    weighted: bool | None = None
    validation_fraction: float | None = None
    latents: Literal["reencoded", "pretrained"] | None = None
    min_pixels: int | None = None
    search: SearchRecipe | Literal["none"] | None = Field(default=None, description="'none': of hidden and activity alone")
    transfer: TransferRecipe = TransferRecipe()
    head: HeadRecipe = HeadRecipe()

    def to_config(self) -> LatentConfig:
        """The preset with what the recipe changes.

        Raises
        ------
        UsageError
            If a value is impossible or there is no such topology.
        """
        preset, seed = LATENT[self.preset], _given(seed=self.seed)
        head = _changed(preset.head, self.head.model_copy(update=seed if self.head.seed is None else {}), leave=("topology",))
        if self.head.topology is not None:
            head = replace(head, topology=topology_of(self.head.topology))
        transfer = self.transfer.model_copy(update=seed if self.transfer.seed is None else {})
        if transfer.frozen is None and transfer.method in JOINT:  # layers rest in the preset's own method alone
            transfer = transfer.model_copy(update={"frozen": ()})
        changes: dict[str, Any] = {"head": head, "transfer": _changed(preset.transfer, transfer)}
        if self.noise is not None:
            changes["noise"] = None if self.noise == "none" else self.noise
        if self.search is not None:
            given = None if self.search == "none" else _given(**self.search.model_dump())
            changes["search"] = None if given is None else replace(preset.search or SearchConfig(), **given)
        return _changed(replace(preset, **changes), self, leave=("noise", "search", "transfer", "head"))


_Config = TypeVar("_Config", PayneConfig, PcaMlpConfig, CnnConfig, TransferConfig, LatentConfig)


def _changed(preset: _Config, recipe: Strict, leave: Collection[str] = ()) -> _Config:
    """A preset with what a recipe gives, its loop included, but for the keys to ``leave``."""
    given = _given(**recipe.model_dump(exclude={"preset", *leave}))
    of_loop = {field.name for field in fields(LoopConfig)}
    loop = replace(preset.loop, **{k: v for k, v in given.items() if k in of_loop})
    return replace(preset, loop=loop, **{k: v for k, v in given.items() if k not in of_loop})


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
