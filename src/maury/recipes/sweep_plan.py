"""Which networks a sweep trains, and in which order: all combinations, some at random, or what Optuna asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any, Protocol

import numpy as np

from maury.errors import RecipeError
from maury.recipes.schema import Recipe
from maury.recipes.sweep_schema import SweepRecipe

_MOST_STACKED = 64  # networks that are trained side by side


@dataclass(frozen=True)
class Trial:
    """One network.

    Parameters
    ----------
    windows : names of those that it sees.
    chunk : pixels of the window that it sees; 0: the whole window, or windows.
    labels : that it finds.
    architecture : name of its topology.
    seed : of its first weights, of the order of batches and of the spectra that choose the epoch.
    """

    windows: tuple[str, ...]
    chunk: int
    labels: tuple[str, ...]
    architecture: str
    seed: int

    @property
    def place(self) -> str:
        """What it sees of the spectrum, as in ``8800-8835_512``."""
        return "+".join(self.windows) + (f"_{self.chunk}" if self.chunk else "")

    @property
    def name(self) -> str:
        """Its own name, fit for a file."""
        return f"{self.place}_{'+'.join(self.labels)}_{self.architecture}_s{self.seed}"

    @property
    def approach(self) -> str:
        """As Passegger+2020 call it: A one window and label, B several labels, C several windows."""
        if len(self.windows) > 1:
            return "C"
        return "B" if len(self.labels) > 1 else "A"


@dataclass(frozen=True)
class Planned:
    """A network that is to be trained, and its place in the order of the sweep."""

    number: int
    trial: Trial


Task = tuple[Planned, ...]
"""Networks that are trained together, side by side: of one topology, on the same pixels."""


class Known(Protocol):
    """What a planner has to know of a network that is finished."""

    @property
    def number(self) -> int: ...
    @property
    def trial(self) -> Trial: ...
    @property
    def validation_loss(self) -> float | None: ...


def places(sweep: SweepRecipe, only: Sequence[str] = ()) -> list[tuple[tuple[str, ...], int]]:
    """Windows and chunk of everything that a network may see; ``only`` in these windows, if any are given.

    Raises
    ------
    RecipeError
        If there is no such window.
    """
    strange = [name for name in only if name not in sweep.window_names]
    if strange:
        raise RecipeError(f"expected windows among {', '.join(sweep.window_names)}, got {strange[0]!r}; correct --window")
    found: list[tuple[tuple[str, ...], int]] = [((name,), 0) for name in sweep.window_names if not sweep.window]
    for window in sweep.window:
        found += [((window.name,), chunk) for chunk in window.chunks or (0,)]
    found += [(names, 0) for names in dict.fromkeys(sweep.joined)]
    return [place for place in found if not only or set(place[0]) <= set(only)]


def fixed_plan(recipe: Recipe, sweep: SweepRecipe, only: Sequence[str] = ()) -> list[Planned]:
    """The networks of the samplers "all" and "random", the kinds of labels by turns; more of them never change the first.

    Parameters
    ----------
    only : names of windows, or none for all.
    """
    kinds = sweep.label_sets([label.name for label in recipe.label])
    of_kind = [_of_kind(sweep, labels, kind, len(kinds), only) for kind, labels in enumerate(kinds)]
    by_turns = (trial for turn in zip_longest(*of_kind) for trial in turn if trial is not None)
    return [Planned(number, trial) for number, trial in enumerate(by_turns)]


def _of_kind(sweep: SweepRecipe, labels: tuple[str, ...], kind: int, n_kinds: int, only: Sequence[str]) -> list[Trial]:
    first = [
        Trial(windows, chunk, labels, architecture, sweep.seed)
        for windows, chunk in places(sweep, only)
        for architecture in sweep.topologies
    ]
    if sweep.sampler == "all":
        return [replace(trial, seed=sweep.seed + repeat) for repeat in range(sweep.repeats) for trial in first]
    share = sweep.number // n_kinds + (kind < sweep.number % n_kinds)
    random = np.random.default_rng([sweep.seed, kind])
    rounds = (
        replace(first[i], seed=sweep.seed + repeat)
        for repeat in range(math.ceil(share / len(first)))
        for i in random.permutation(len(first)).tolist()
    )
    return list(islice(rounds, share))


def stacked(planned: Iterable[Planned]) -> list[Task]:
    """Networks as tasks: those of one topology on the same pixels together, if they have one label each or the same labels."""
    groups: dict[tuple[Any, ...], dict[tuple[str, ...], list[Planned]]] = {}
    for one in planned:
        t = one.trial
        key = (t.windows, t.chunk, t.architecture, t.labels if len(t.labels) > 1 else None)
        groups.setdefault(key, {}).setdefault(t.labels, []).append(one)
    tasks: list[Task] = []
    for by_labels in groups.values():
        while any(by_labels.values()):
            there = [queue for queue in by_labels.values() if queue]
            depth = min(*map(len, there), max(1, _MOST_STACKED // len(there)))
            tasks.append(tuple(one for queue in there for one in queue[:depth]))
            for queue in there:
                del queue[:depth]
    return tasks


@dataclass
class FixedPlanner:
    """Gives the tasks of a plan one after another."""

    tasks: list[Task]

    def next_task(self) -> Task | None:
        return self.tasks.pop(0) if self.tasks else None

    def tell(self, row: Known) -> None:
        """Nothing depends on it."""

    @property
    def n_left(self) -> int:
        return sum(map(len, self.tasks))


class OptunaPlanner:
    """Asks Optuna's tree of Parzen estimators for what promises a low validation loss, a study for each kind of labels.

    A study is told every finished network in the order in which they were asked for, and asked with a seed that its number of
    networks gives: one that is stopped and started again asks the same, as far as the same networks are finished.

    Parameters
    ----------
    finished : networks of before.
    only : names of windows, or none for all.

    Raises
    ------
    RecipeError
        If Optuna is not installed.
    """

    def __init__(self, recipe: Recipe, sweep: SweepRecipe, finished: Sequence[Known], only: Sequence[str] = ()) -> None:
        try:
            import optuna
        except ImportError:
            raise RecipeError(
                "expected Optuna for sweep.sampler = 'optuna', got none installed; run: python3 -m pip install 'maury[sweep]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._sweep = optuna, sweep
        self._places = {Trial(windows, chunk, (), "", 0).place: (windows, chunk) for windows, chunk in places(sweep, only)}
        choices = {"place": tuple(self._places), "architecture": sweep.topologies}
        self._space = {name: optuna.distributions.CategoricalDistribution(values) for name, values in choices.items()}
        self._kinds = sweep.label_sets([label.name for label in recipe.label])
        self._studies = {labels: optuna.create_study() for labels in self._kinds}
        self._asked = dict.fromkeys(self._kinds, 0)
        self._names: set[str] = set()
        for row in sorted(finished, key=lambda row: row.number):
            self._names.add(row.trial.name)
            if row.trial.labels in self._studies:
                self._asked[row.trial.labels] += 1
                self.tell(row)

    @property
    def n_left(self) -> int:
        return max(self._sweep.number - sum(self._asked.values()), 0)

    def next_task(self) -> Task | None:
        if not self.n_left:
            return None
        labels = min(self._kinds, key=self._asked.__getitem__)
        number, kind = self._asked[labels], self._kinds.index(labels)
        seed = int(np.random.SeedSequence([self._sweep.seed, kind, number]).generate_state(1)[0])
        study = self._studies[labels]
        study.sampler = self._optuna.samplers.TPESampler(seed=seed)
        asked = study.ask(self._space)
        study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # its result comes in the order of the plan, by tell
        windows, chunk = self._places[asked.params["place"]]
        trial = Trial(windows, chunk, labels, asked.params["architecture"], self._sweep.seed)
        while trial.name in self._names:  # good ones are asked for again: another network of the kind
            trial = replace(trial, seed=trial.seed + 1)
        self._names.add(trial.name)
        self._asked[labels] += 1
        return (Planned(number * len(self._kinds) + kind, trial),)

    def tell(self, row: Known) -> None:
        """Let the study know of a finished network; one that failed is the worst there is."""
        params = {"place": row.trial.place, "architecture": row.trial.architecture}
        if any(value not in self._space[name].choices for name, value in params.items()):
            return  # the recipe has changed since
        value = math.inf if row.validation_loss is None else row.validation_loss
        trial = self._optuna.trial.create_trial(params=params, distributions=self._space, value=value)
        self._studies[row.trial.labels].add_trial(trial)


Planner = FixedPlanner | OptunaPlanner
