"""Recipes: one TOML file describes one training from files to model.

* :mod:`~maury.recipes.schema`: what a recipe may say; ``load_recipe`` for built-in names and files.
  (:mod:`~maury.recipes.data_schema`: its data section.)
* :mod:`~maury.recipes.dataset`: its data section -> prepared training set of one or several parts.
* :mod:`~maury.recipes.parts`: one part, from files to labelled spectra; :mod:`~maury.recipes.label_table` its table (units:
  :mod:`~maury.recipes.label_units`), :mod:`~maury.recipes.joins` rows to spectra, :mod:`~maury.recipes.stacking` visits to stars.
* :mod:`~maury.recipes.training`: its train section -> inferrer.
* :mod:`~maury.recipes.run`: all of it, with cross-validation and calibrated errors.
* :mod:`~maury.recipes.sweep`: many trainings of one recipe with a table [sweep]; its table :mod:`~maury.recipes.sweep_schema`,
  what is trained (:mod:`~maury.recipes.sweep_plan`), on which spectra (:mod:`~maury.recipes.sweep_data`), one training
  (:mod:`~maury.recipes.sweep_trial`), which are accepted (:mod:`~maury.recipes.sweep_screening`) and vote
  (:mod:`~maury.recipes.sweep_ensemble`).
* :mod:`~maury.recipes.compare`: several recipes judged by the same stars; their table :mod:`~maury.recipes.compare_schema`,
  test set, folds and who has seen which star (:mod:`~maury.recipes.compare_data`), tables (:mod:`~maury.recipes.compare_table`).
* ``builtin/``: the recipes that come with the package.
"""

from maury.recipes.run import TrainingRun, run_recipe, train_on
from maury.recipes.schema import Recipe, builtin_recipes, load_recipe, parse_recipe

__all__ = ["Recipe", "TrainingRun", "builtin_recipes", "load_recipe", "parse_recipe", "run_recipe", "train_on"]
