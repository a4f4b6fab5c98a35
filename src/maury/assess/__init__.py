"""Assess: may these labels be believed?

* :mod:`~maury.assess.metrics`: bias, robust scatter, RMSE, pulls, coverage.
* :mod:`~maury.assess.crossval`: k-fold cross-validation of a whole training.
* :mod:`~maury.assess.calibration`, :mod:`~maury.assess.learn_errors`: error models and how they are learned.
* :mod:`~maury.assess.quality`: named cuts that set flags.
* :mod:`~maury.assess.region`: hull and Mahalanobis distance of the training labels.
* :mod:`~maury.assess.mdwarf`: sequences of M dwarfs.
"""
