"""Publish: estimates into a table that explains itself, and the table into FITS, VOTable, Parquet, ECSV or CSV.

* :mod:`~maury.catalogue.columns` : what every column means, its unit and UCD
* :mod:`~maury.catalogue.build` : LabelEstimates -> astropy Table
* :mod:`~maury.catalogue.provenance` : which command, versions and time made it
* :mod:`~maury.catalogue.write`, :mod:`~maury.catalogue.read` : files, by extension
* :mod:`~maury.catalogue.spectra_file` : spectra made from labels, and their file
"""

from maury.catalogue.build import build_catalogue
from maury.catalogue.provenance import run_provenance
from maury.catalogue.read import describe_catalogue, read_catalogue
from maury.catalogue.write import write_catalogue

__all__ = ["build_catalogue", "describe_catalogue", "read_catalogue", "run_provenance", "write_catalogue"]
