"""What a recipe of ``maury grid build`` may say: TOML checked by pydantic; a key that is not known is an error.

It describes the road from a model grid to a training set: which labels, how the grid is interpolated, rotation, instrument,
the steps to a normalised spectrum on the instrument's pixels, and what observing adds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from maury.errors import RecipeError
from maury.grids.augment import Augmentation, ContinuumWiggles, DroppedPixels, VelocityJitter, WhiteNoise
from maury.grids.constraints import AnalyticDwarfSequence, NearIsochrones
from maury.grids.isochrones import read_isochrones
from maury.grids.sampling import Constraint, Lattice, Sampler, Sobol, Uniform, steps
from maury.labels import KNOWN_LABELS
from maury.prepare import Preparation, Resample
from maury.prepare.instrument import check_profile
from maury.prepare.lsf import Table, lsf_from
from maury.prepare.profiles import RotationProfile
from maury.recipes.data_schema import LibraryRecipe, Strict
from maury.recipes.toml import parse, read_toml

BUILTIN_GRIDS = Path(__file__).with_name("builtin_grids")
Range = tuple[float, float]


class GridRecipe(Strict):
    """Where the model spectra are, and how they are interpolated."""

    file: str | None = Field(default=None, description="a grid below --data, as `maury grid` makes and reads it")
    library: LibraryRecipe | None = None
    wavelength: Range = Field(description="Å, in the grid's medium: what the steps get; margins for broadening are added")
    interpolation: Literal["linear", "cubic"] = "linear"
    outside: Literal["leave_out", "nearest"] = "leave_out"
    edges: Literal["require", "continue"] = Field(
        default="require", description="a grid that ends within the margins: an error, or it goes on with its end pixels' flux"
    )
    fixed: dict[str, float] = Field(default_factory=dict, description="labels of the grid that are not sampled")


class LatticeRecipe(Strict):
    """All combinations of the values along each label."""

    kind: Literal["lattice"]
    axes: dict[str, tuple[float, ...] | tuple[tuple[float, float, float], ...]]

    @field_validator("axes", mode="before")
    @classmethod
    def _values_or_segments(cls, axes: object) -> object:
        """One sentence for both forms; pydantic has one for each."""
        for name, values in axes.items() if isinstance(axes, dict) else ():
            if not (_are_numbers(values) or (isinstance(values, list | tuple) and all(map(_is_segment, values)))):
                raise RecipeError(
                    f"expected sample.axes.{name} as numbers, or as segments [first, last, step], got {values!r}; write one kind"
                )
        return axes

    def sampler(self, seed: int) -> Sampler:
        axes = {}
        for name, values in self.axes.items():
            segments = [value for value in values if isinstance(value, tuple)]
            axes[name] = steps(segments) if segments else tuple(v for v in values if not isinstance(v, tuple))
        return Lattice(axes)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _is_segment(value: object) -> bool:
    return _are_numbers(value) and len(value) == 3  # type: ignore[arg-type]


class BoxRecipe(Strict):
    """Ranges of labels, and how their values are spread (:class:`maury.grids.sampling.Uniform`)."""

    ranges: dict[str, Range]
    logarithmic: tuple[str, ...] = ()
    square_root: tuple[str, ...] = ()


class RandomRecipe(BoxRecipe):
    """Random points in a box."""

    kind: Literal["uniform", "sobol"]
    number: int = Field(ge=1)

    def sampler(self, seed: int) -> Sampler:
        kind = Uniform if self.kind == "uniform" else Sobol
        return kind(self.ranges, self.number, seed, self.logarithmic, self.square_root)


class NodesRecipe(BoxRecipe):
    """The grid's own label sets, each ``copies`` times with other values of the labels that the grid does not have."""

    kind: Literal["nodes"]
    copies: int = Field(default=1, ge=1)
    ranges: dict[str, Range] = Field(default_factory=dict)

    def sampler(self, number: int, seed: int) -> Sampler | None:
        """For the labels that the grid does not have; None where there are none."""
        if not (self.ranges or self.logarithmic or self.square_root):
            return None
        return Sobol(self.ranges, number, seed, self.logarithmic, self.square_root)


SampleRecipe = Annotated[LatticeRecipe | RandomRecipe | NodesRecipe, Field(discriminator="kind")]


class NearIsochronesRecipe(Strict):
    """Settings of :class:`maury.grids.constraints.NearIsochrones`."""

    kind: Literal["near_isochrones"]
    files: str = Field(description="glob below --data")
    teff: float = 50.0
    logg: float = 0.1
    m_h: float = 0.1
    log_age: Range = (0.0, 11.0)
    stages: tuple[int, ...] = ()

    def constraint(self, root: Path) -> Constraint:
        try:
            files = sorted(root.glob(self.files))
        except (NotImplementedError, ValueError):  # pathlib: an absolute pattern; an empty one
            raise RecipeError(
                f"expected constraint.files as a glob below --data, got {self.files!r}; write it relative to that folder"
            ) from None
        if not files:
            raise RecipeError(f"expected isochrones matching {self.files} in {root}, got no file; check --data and the glob")
        return NearIsochrones(read_isochrones(files), self.teff, self.logg, self.m_h, self.log_age, self.stages)


class AnalyticDwarfsRecipe(Strict):
    """:class:`maury.grids.constraints.AnalyticDwarfSequence`."""

    kind: Literal["analytic_dwarf_sequence"]

    def constraint(self, root: Path) -> Constraint:
        return AnalyticDwarfSequence()


ConstraintRecipe = Annotated[NearIsochronesRecipe | AnalyticDwarfsRecipe, Field(discriminator="kind")]


class RotationRecipe(Strict):
    """Rotation by the label ``vsini``."""

    limb_darkening: float = 0.6


class InstrumentRecipe(Strict):
    """The line-spread function, as in :class:`maury.prepare.Degrade`."""

    resolving_power: float | None = None
    fwhm: float | None = None
    table: Table | None = None
    profile: Literal["gaussian", "voigt"] = "gaussian"
    eta: float = 0.6

    def check(self, sampled: bool) -> None:
        """Raise UsageError unless exactly one resolution is given, or none where it is ``sampled``, and all is possible."""
        check_profile(self.profile, self.eta)
        given = lsf_from("instrument", self.resolving_power, self.fwhm, self.table)
        if given is None and not sampled:
            raise RecipeError("expected a resolution in [instrument], got none; give resolving_power, fwhm (Å) or table")
        if sampled and given is not None:
            raise RecipeError(
                "expected no resolution in [instrument] beside the label resolving_power, which gives each spectrum its own, got "
                "one; remove one of the two"
            )
        if sampled and self.profile != "gaussian":
            raise RecipeError(
                f"expected a gaussian profile in [instrument] beside the label resolving_power, got {self.profile!r}; remove it"
            )


class AugmentRecipe(Strict):
    """Augmentations (:mod:`maury.grids.augment`), applied in the order of these keys; none is the default."""

    velocity_jitter: float | None = Field(default=None, description="standard deviation, km/s")
    wiggles: float | None = Field(default=None, description="rms amplitude; 0.01 is one per cent")
    wiggles_degree: int = 3
    snr: Range | None = Field(default=None, description="S/N per pixel, uniform in the logarithm")
    dropped: float | None = Field(default=None, description="fraction of the pixels")
    dropped_run: int = 4

    def check(self) -> None:
        """Raise UsageError if a value is impossible: the classes know."""
        _ = self.steps, self.jitter

    @property
    def jitter(self) -> VelocityJitter | None:
        return None if self.velocity_jitter is None else VelocityJitter(self.velocity_jitter)

    @property
    def steps(self) -> tuple[Augmentation, ...]:
        made: list[Augmentation] = []
        if self.wiggles is not None:
            made.append(ContinuumWiggles(self.wiggles, self.wiggles_degree))
        if self.snr is not None:
            made.append(WhiteNoise(self.snr))
        if self.dropped is not None:
            made.append(DroppedPixels(self.dropped, self.dropped_run))
        return tuple(made)


class BuildRecipe(Strict):
    """A whole recipe."""

    name: str
    description: str = ""
    source: str = Field(default="", description="paper and section")
    seed: int = Field(default=0, ge=0)
    only: int | None = Field(default=None, ge=1, description="so many of the label sets, spread evenly over all: to try")
    grid: GridRecipe
    sample: SampleRecipe
    constraint: ConstraintRecipe | None = None
    rotation: RotationRecipe = RotationRecipe()
    instrument: InstrumentRecipe | None = None
    prepare: tuple[dict[str, Any], ...] = ()
    augment: AugmentRecipe = AugmentRecipe()

    @property
    def preparation(self) -> Preparation:
        return Preparation.from_config([dict(step) for step in self.prepare])

    @property
    def sampled(self) -> tuple[str, ...]:
        """The labels that the sampler gives values to; of nodes, those the grid does not have."""
        return tuple(self.sample.axes if isinstance(self.sample, LatticeRecipe) else self.sample.ranges)

    @property
    def has_own_resolutions(self) -> bool:
        """Whether ``resolving_power`` is a label, so that each spectrum has its own instrument."""
        return "resolving_power" in (*self.sampled, *self.grid.fixed)

    def check(self) -> None:
        """Raise MauryError where parts contradict each other or a value is impossible."""
        if (self.grid.file is None) == (self.grid.library is None):
            raise RecipeError("expected one of file and library in [grid], got both or none; say where the model spectra are")
        if self.grid.library is not None and self.grid.library.ivar is not None:
            raise RecipeError("expected model spectra, which have no errors, in [grid.library], got ivar; remove it")
        if not 0 < self.grid.wavelength[0] < self.grid.wavelength[1]:
            raise RecipeError(f"expected grid.wavelength as [start, stop] in Å, got {list(self.grid.wavelength)}; correct it")
        unknown = [name for name in (*self.sampled, *self.grid.fixed) if name not in KNOWN_LABELS]
        if unknown:
            raise RecipeError(f"expected labels among {', '.join(KNOWN_LABELS)}, got {unknown[0]!r}; correct the name")
        if isinstance(self.sample, NodesRecipe):
            self.sample.sampler(1, self.seed)
        else:
            self.sample.sampler(self.seed)
        RotationProfile(self.rotation.limb_darkening)
        if self.instrument is not None:
            self.instrument.check(self.has_own_resolutions)
        rest = any(isinstance(step, Resample) and step.frame == "rest" for step in self.preparation.steps)
        if self.augment.jitter is not None and not rest:
            raise RecipeError(
                'expected a resample step with frame "rest", where augment.velocity_jitter is applied, got none; add one'
            )
        self.augment.check()


def builtin_grid_recipes() -> dict[str, Path]:
    """Names and files of the recipes that come with the package."""
    return {path.stem: path for path in sorted(BUILTIN_GRIDS.glob("*.toml"))}


def load_build_recipe(name_or_path: str | Path) -> BuildRecipe:
    """A built-in recipe by name, or one from a TOML file.

    Raises
    ------
    RecipeError
        No such recipe, no TOML, an unknown key, an impossible value; each in one sentence.
    """
    content, origin = read_toml(name_or_path, builtin_grid_recipes())
    return parse_build_recipe(content, origin)


def parse_build_recipe(content: dict[str, Any], origin: str) -> BuildRecipe:
    """A recipe from its parsed TOML; ``origin`` names it in errors.

    Raises
    ------
    RecipeError
        See :func:`load_build_recipe`.
    """
    return parse(content, origin, BuildRecipe, BuildRecipe.check, _TABLES)


_TABLES: dict[str, type[BaseModel]] = {
    "": BuildRecipe,
    "grid": GridRecipe,
    "grid.library": LibraryRecipe,
    "sample.lattice": LatticeRecipe,
    "sample.uniform": RandomRecipe,
    "sample.sobol": RandomRecipe,
    "sample.nodes": NodesRecipe,
    "constraint.near_isochrones": NearIsochronesRecipe,
    "constraint.analytic_dwarf_sequence": AnalyticDwarfsRecipe,
    "rotation": RotationRecipe,
    "instrument": InstrumentRecipe,
    "augment": AugmentRecipe,
}
