"""maury: stellar spectra into stellar labels, and labels into spectra."""
__version__ = "0.1.0"
