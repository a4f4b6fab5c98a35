"""Learn: what all trainings share.

* :mod:`~maury.train.splits`: folds by star, and what each network of an ensemble holds back.
* :mod:`~maury.train.scaling`: labels as a network sees them.
* :mod:`~maury.train.loop`: the one training loop of every network (needs torch).
* :mod:`~maury.train.transfer`: what carries a network from synthetic to observed spectra (needs torch);
  :mod:`~maury.train.transfer_config` its settings, :mod:`~maury.train.population` synthetic stars drawn like the observed ones,
  :mod:`~maury.train.noise` noise anew in each epoch.
* :mod:`~maury.train.checkpoint`: what lets a killed training go on where it was.
* :mod:`~maury.train.sweep`: many tasks in processes or on a cluster, restartable; it knows neither data nor networks.
"""
