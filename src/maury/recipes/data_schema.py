"""What a recipe may say about its data: one part, or several that become one training set.

``[data]`` is itself a part (:class:`PartRecipe`); with ``[[data.parts]]`` it only holds the list of them. Everything behind this
file sees parts alone (:attr:`DataRecipe.all_parts`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from maury.errors import RecipeError

ON_SKY = "sky"
"""The word for ``join`` that joins by position instead of by a column."""


class Strict(BaseModel):
    """Every table of a recipe: an unknown key is an error, numbers are finite, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LibraryRecipe(Strict):
    """A synthetic library in one file (see :func:`maury.read.library.read_library` for what each name stands for)."""

    file: str
    wavelength: str
    wavelength_unit: str
    medium: Literal["air", "vacuum"]
    flux: str
    flux_scale: str | None = None
    ivar: str | None = Field(default=None, description="instead of assumed_snr; training sets with noise have it")
    labels: str | None = None
    label_names: str | tuple[str, ...] | None = None
    resolving_power: float | None = Field(default=None, gt=0)
    fwhm: float | None = Field(default=None, gt=0, description="Å")

    @model_validator(mode="after")
    def _one_resolution(self) -> LibraryRecipe:
        if (self.resolving_power is None) == (self.fwhm is None):
            raise RecipeError(
                f"expected one of resolving_power and fwhm (Å) for the library {self.file}, got both or none; say the resolution "
                "of its spectra, very high (1e6) if they were never broadened"
            )
        return self


class PartRecipe(Strict):
    """Labelled spectra of one origin: files and a table joined to them, a synthetic library, or what a grid recipe builds."""

    spectra: str | None = None
    table: str | None = None
    join: str = Field(default="file", description=f"column of the table that names the spectra, or '{ON_SKY}'")
    join_meta: str | None = Field(default=None, description="meta column that ``join`` names; none: the file's name")
    ra_column: str = Field(default="ra", description="of the table, degrees, for a join on the sky")
    dec_column: str = Field(default="dec", description="of the table, degrees, for a join on the sky")
    radius_arcsec: float = Field(default=1.0, gt=0, le=3600, description="of a join on the sky")
    format: str | None = None
    medium: Literal["air", "vacuum"] | None = None
    assumed_snr: float | None = Field(default=None, gt=0, description="per pixel of the file")
    library: LibraryRecipe | None = None
    build: str | None = Field(default=None, description="recipe of `maury grid build` whose training set this part is")
    only: int | None = Field(default=None, ge=1, description="so many of the label sets of ``build``, spread evenly over all")
    build_window: tuple[float, float, float] | None = Field(
        default=None, description="[start, stop, spacing] in Å of the pixels that ``build`` makes, instead of its own"
    )
    columns: dict[str, str] = Field(default_factory=dict, description="label -> column of this part's table")
    error_columns: dict[str, str] = Field(default_factory=dict, description="label -> column of its errors in this table")
    units: dict[str, str] = Field(default_factory=dict, description="label -> unit of this part's column")
    limits: dict[str, tuple[float, float]] = Field(default_factory=dict, description="label or table column -> (low, high)")
    snr_column: Literal["snr", "snr_sum"] = "snr"
    min_snr: float | None = None
    rv_column: str | None = Field(default=None, description="table column with the radial velocity, km/s")
    star_column: str | None = Field(default=None, description="table column that names the star: folds never split a star")
    stack_visits: bool = False
    prepare: tuple[dict[str, Any], ...] = ()
    weight: Annotated[float, Field(gt=0)] | Literal["equal"] | None = None
    validated: bool | None = Field(default=None, description="whether its stars are scored in cross-validation")
    name: str = "data"

    @model_validator(mode="after")
    def _one_source(self) -> PartRecipe:
        self.check()
        return self

    def check(self) -> None:
        """Raise RecipeError unless this is spectra with a table, a library, or a build."""
        if self.join == ON_SKY and self.join_meta is not None:
            raise RecipeError(
                f"expected no join_meta for part {self.name!r}, which is joined on the sky, got {self.join_meta!r}; choose one"
            )
        if self.only is not None and self.build is None:
            raise RecipeError(f"expected build beside only = {self.only} in part {self.name!r}, got none; name the grid recipe")
        if self.build_window is not None and self.build is None:
            raise RecipeError(f"expected build beside build_window in part {self.name!r}, got none; name the grid recipe")
        if self.library is None and self.build is None:
            for key in ("spectra", "table"):
                if getattr(self, key) is None:
                    raise RecipeError(f"expected {key} for part {self.name!r} of the data, got none; name spectra and table")
            return
        if self.library is not None and self.build is not None:
            raise RecipeError(f"expected one of library and build for part {self.name!r}, got both; make two parts of them")
        origin = "library" if self.build is None else "build"
        unused = [
            key for key in ("spectra", "table", "join_meta", "medium", "format", "rv_column") if getattr(self, key) is not None
        ]
        if unused:
            raise RecipeError(
                f"expected no {unused[0]} beside the {origin} of part {self.name!r}, got {getattr(self, unused[0])!r}; "
                "make two parts of them"
            )
        if self.library is not None:
            self._check_errors(self.library)

    def _check_errors(self, library: LibraryRecipe) -> None:
        if self.assumed_snr is not None and library.ivar is not None:
            raise RecipeError(
                f"expected one of assumed_snr and library.ivar for part {self.name!r}, got both; keep the one that is meant"
            )
        if self.assumed_snr is None and library.ivar is None:
            raise RecipeError(
                f"expected assumed_snr for the library of part {self.name!r}, got none; synthetic spectra have no errors, unless "
                "library.ivar names them"
            )

    @property
    def is_validated(self) -> bool:
        """Whether its stars are scored in cross-validation: observed ones are, synthetic ones are not, unless said."""
        return self.spectra is not None if self.validated is None else self.validated


class ObservedRecipe(Strict):
    """Observed spectra without labels, which a transfer learns from: files below the data folder."""

    name: str = "observed"
    spectra: str
    format: str | None = None
    medium: Literal["air", "vacuum"] | None = None
    assumed_snr: float | None = Field(default=None, gt=0, description="per pixel of the file")
    min_snr: float | None = None
    velocities: str | None = Field(default=None, description="table of columns file and rv (km/s), instead of the headers'")


class DataRecipe(PartRecipe):
    """Labelled spectra of one part, or of several, and observed ones without labels."""

    parts: tuple[PartRecipe, ...] = ()
    observed: tuple[ObservedRecipe, ...] = ()

    def check(self) -> None:
        """Raise RecipeError unless this is one part, or several with different names and weights of one kind."""
        names = [part.name for part in self.all_parts] + [some.name for some in self.observed]
        if len(set(names)) != len(names):
            raise RecipeError(f"expected a name of its own for every part of the data, got {', '.join(names)}; rename one")
        if not self.parts:
            super().check()
            return
        defaults = PartRecipe.model_construct()
        own = [name for name in PartRecipe.model_fields if getattr(self, name) != getattr(defaults, name)]
        if own:
            raise RecipeError(f"expected only [[data.parts]] in [data], got {own[0]!r} too; give it to the parts it is meant for")
        kinds = {type(part.weight) for part in self.parts}
        if len(kinds) > 1:
            raise RecipeError(
                "expected weights of the data's parts all as numbers, or all 'equal', or none, got a mixture; say it alike"
            )

    @property
    def all_parts(self) -> tuple[PartRecipe, ...]:
        """The parts; a recipe without ``[[data.parts]]`` is one part."""
        return self.parts or (self,)
