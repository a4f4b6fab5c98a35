"""The errors users meet. Each carries one sentence: what was expected, what came, what to do.

Everything that a *user* can get wrong raises a :class:`MauryError`; the command line prints the sentence
and exits with code 2. Anything else that escapes is a defect of this package.
"""


class MauryError(Exception):
    """Base of all errors of this package; its text is one sentence that can be acted on."""


class UsageError(MauryError, ValueError):
    """A function was called with arguments that cannot be right (shape, unit, range)."""


class ReadError(MauryError):
    """A file could not be read as a spectrum or table."""


class RecipeError(MauryError):
    """A recipe (TOML) has an unknown key, a missing unit, a join that matches nothing, ..."""


class ModelFileError(MauryError):
    """A model file is truncated, foreign, or of a newer format."""


class CatalogueError(MauryError):
    """A catalogue cannot be written or is not one of ours."""
