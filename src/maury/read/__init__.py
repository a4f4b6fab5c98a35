"""Files to Spectra: one small file per instrument or survey, and a registry that knows them by their content.

* :func:`read_file`: one file -> list of :class:`~maury.spectra.Spectra`, one per wavelength grid in it.
* :func:`read_files`: many files; a bad one becomes a :class:`ReadFailure` with its sentence and stops nothing.
* :func:`describe`: what was read, in plain numbers and words.
* :data:`FORMATS`: the formats known.
* :func:`~maury.read.library.read_library`: a synthetic library, whose form the caller describes.

Wavelengths are converted to Å here; medium (air or vacuum) and frame come from the file or from the survey's
documentation, never from the numbers. Velocities are measured in the frame of the wavelengths.
"""

from maury.read.describe import describe
from maury.read.files import ReadFailure, ReadResult, read_file, read_files
from maury.read.registry import FORMATS, Format

__all__ = ["FORMATS", "Format", "ReadFailure", "ReadResult", "describe", "read_file", "read_files"]
