"""Learn: what all trainings share. For now the splits (:mod:`~maury.train.splits`)."""
