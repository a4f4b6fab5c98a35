"""Physical and house constants, each with its source."""

SPEED_OF_LIGHT_KM_S = 299_792.458
"""CODATA, exact."""

FWHM_PER_SIGMA = 2.354_820_045_030_949_3
"""Full width at half maximum of a Gaussian in units of its standard deviation, 2 sqrt(2 ln 2)."""

ROBUST_SIGMA_PER_MAD = 1.482_602_218_505_602
"""Standard deviation of a Gaussian in units of its median absolute deviation."""

TEFF_SUN_K = 5772.0
"""IAU 2015 Resolution B3 nominal solar effective temperature."""
