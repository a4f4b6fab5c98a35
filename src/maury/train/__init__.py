"""Learn: what all trainings share.

* :mod:`~maury.train.splits`: folds by star.
* :mod:`~maury.train.loop`: the one training loop of every network (needs torch).
* :mod:`~maury.train.checkpoint`: what lets a killed training go on where it was.
"""
