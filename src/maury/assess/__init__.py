"""Assess: may these labels be believed?

* :mod:`~maury.assess.metrics`: bias, robust scatter, RMSE, pulls, coverage.
* :mod:`~maury.assess.crossmatch`: which rows of two catalogues are the same star.
* :mod:`~maury.assess.crossval`: k-fold cross-validation of a whole training.
* :mod:`~maury.assess.calibration`, :mod:`~maury.assess.learn_errors`, :mod:`~maury.assess.inflation_along`: error models and how
  they are learned.
* :mod:`~maury.assess.visits`, :mod:`~maury.assess.repeats`, :mod:`~maury.assess.learn_repeats`: visits of a star, and errors
  from what they differ by.
* :mod:`~maury.assess.emulation`: how well spectra are generated. :mod:`~maury.assess.resolution`: what line widths do to labels.
* :mod:`~maury.assess.quality`: named cuts that set flags.
* :mod:`~maury.assess.region`: hull, Mahalanobis distance and local density of the training labels.
* :mod:`~maury.assess.gap`, :mod:`~maury.assess.gap_window`, :mod:`~maury.assess.domain`: how far spectra lie from those that a
  model was trained on; :mod:`~maury.assess.gap_transfer`: before and after a transfer, in flux and in latent numbers.
* :mod:`~maury.assess.comparison`: several systems judged by the same stars.
* :mod:`~maury.assess.mdwarf`: sequences of M dwarfs.
"""
