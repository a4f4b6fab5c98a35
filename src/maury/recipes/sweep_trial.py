"""One network of a sweep: trained, judged on the screening spectra, written down. What the workers do."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.metrics import robust_std
from maury.errors import UsageError
from maury.files import canonical_json, replacing
from maury.recipes.network_schema import topology_of
from maury.recipes.schema import Recipe
from maury.recipes.sweep_data import SCREENING, TRAIN, SweepFolder, WindowData
from maury.recipes.sweep_plan import Planned, Task, Trial
from maury.recipes.sweep_schema import WHOLE, SweepRecipe
from maury.regress.cnn import CnnNetworks
from maury.regress.cnn_config import CnnConfig
from maury.store import read_model_file, write_model_file
from maury.train.sweep import reason_of

if TYPE_CHECKING:
    from maury.train.loop import History

FloatArray = NDArray[np.float64]

_TENTHS = 10
_FEWEST = 2  # stars of a tenth


@dataclass(frozen=True)
class LabelScore:
    """How far a network's labels are from those of the screening spectra, label units.

    Parameters
    ----------
    mae : mean absolute error.
    worst_tenth : the same in that tenth of the label's values where it is largest.
    bias, scatter : median error, and 1.4826 MAD.
    """

    mae: float
    worst_tenth: float
    bias: float
    scatter: float

    @classmethod
    def of(cls, true: ArrayLike, found: ArrayLike) -> LabelScore:
        """Of n stars.

        Raises
        ------
        UsageError
            If a label that was found is not finite.
        """
        truth = np.asarray(true, dtype=np.float64)
        error = np.asarray(found, dtype=np.float64) - truth
        if not np.isfinite(error).all():
            raise UsageError("expected finite labels from the network, got others; lower the learning rate")
        tenths = np.array_split(np.argsort(truth, kind="stable"), max(1, min(_TENTHS, truth.size // _FEWEST)))
        absolute = np.abs(error)
        worst = max(float(absolute[rows].mean()) for rows in tenths)
        return cls(float(absolute.mean()), worst, float(np.median(error)), robust_std(error))


@dataclass(frozen=True)
class Row:
    """What came out of one network.

    Parameters
    ----------
    number : its place in the order of the sweep.
    trial : which it is.
    reason : why it failed; empty if it did not.
    validation_loss : mean square error of labels in units of their range, at the best epoch; None of one that failed.
    scores : by label, on the screening spectra.
    seconds : that it took; its share where several were trained together.
    epochs, best_epoch : of the training, and the one whose weights were kept.
    n_parameters, n_pixels : of the network, and that it sees.
    """

    number: int
    trial: Trial
    reason: str = ""
    validation_loss: float | None = None
    scores: dict[str, LabelScore] | None = None
    seconds: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    n_parameters: int = 0
    n_pixels: int = 0

    @property
    def is_done(self) -> bool:
        return not self.reason

    @property
    def all_scores(self) -> dict[str, LabelScore]:
        """By label; none of one that failed."""
        return self.scores or {}


# -- rows in files ------------------------------------------------------------------------------------------------------------


def write_row(folder: SweepFolder, row: Row) -> None:
    """Put a row in its place.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    text = canonical_json({"status": "done" if row.is_done else "failed", **asdict(row)}, "the row of a network")
    with replacing(folder.runs / f"{row.trial.name}.json", UsageError) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_failure(folder: SweepFolder, one: Planned, reason: str) -> Row:
    """The row of a network whose training failed; that of one which somebody else has finished meanwhile stays.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    there = read_row(folder, one.trial)
    if there is not None and there.is_done:
        return there
    row = Row(one.number, one.trial, reason)
    write_row(folder, row)
    return row


def read_row(folder: SweepFolder, trial: Trial) -> Row | None:
    """The row of a network; None if there is none that is whole, or its network is missing."""
    file = folder.runs / f"{trial.name}.json"
    row = _parsed(file)
    return row if row is not None and row.trial == trial else None


def read_rows(folder: SweepFolder) -> list[Row]:
    """All rows, in the order of the sweep."""
    rows = [row for file in folder.runs.glob("[!.]*.json") if (row := _parsed(file)) is not None]
    return sorted(rows, key=lambda row: (row.number, row.trial.name))


def _parsed(file: Path) -> Row | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        content.pop("status")
        own: dict[str, Any] = content.pop("trial")
        trial = Trial(**(own | {key: tuple(own[key]) for key in ("windows", "labels")}))
        scores = content.pop("scores")
        row = Row(trial=trial, scores=None if scores is None else {k: LabelScore(**v) for k, v in scores.items()}, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return row if not row.is_done or network_file(file.parent, trial).is_file() else None


def network_file(runs: Path, trial: Trial) -> Path:
    """Where a network is kept."""
    return runs / f"{trial.name}.safetensors"


def read_network(folder: SweepFolder, trial: Trial) -> CnnNetworks:
    """The network of a row.

    Raises
    ------
    ModelFileError
        If its file is damaged.
    """
    return CnnNetworks.from_arrays(*read_model_file(network_file(folder.runs, trial)))


# -- spectra ------------------------------------------------------------------------------------------------------------------


def trial_data(folder: SweepFolder, sweep: SweepRecipe, trial: Trial) -> WindowData:
    """All spectra, with the pixels that a network sees."""
    parts = []
    for name in trial.windows:
        data = folder.window(name)
        window = next((window for window in sweep.window if window.name == name), None)
        if window is None:
            if name != WHOLE:
                raise UsageError(f"expected windows of the recipe, got {name!r} of a network of before; add it again")
            parts.append(data)
        else:
            parts.append(data.cut(window.pixels(data.wavelength, trial.chunk)))
    return WindowData.joined(parts)


# -- the work -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Trains the networks of a task; pickled to the workers.

    Parameters
    ----------
    recipe : of the sweep.
    folder : of the sweep.
    device : where networks are trained, "cpu" or "cuda".
    """

    recipe: Recipe
    folder: SweepFolder
    device: str = "cpu"

    def __call__(self, task: Task) -> tuple[Row, ...]:
        """Rows of all networks of the task, written down; a training that fails gives a row with its reason."""
        there = [read_row(self.folder, one.trial) for one in task]
        if all(row is not None for row in there):  # by a worker that died just after
            return tuple(row for row in there if row is not None)
        state = self.folder.state(task[0].trial.name)
        with _one_thread():
            try:
                rows = self._trained(task, state)
            except Exception as failure:  # of the library, the memory, the disk: the others go on
                rows, reason = (), reason_of(failure)
        for row in rows:
            write_row(self.folder, row)
        shutil.rmtree(state, ignore_errors=True)
        if rows:
            return rows
        if len(task) > 1:  # one of them may be what is wrong
            return tuple(row for one in task for row in self((one,)))
        return (write_failure(self.folder, task[0], reason),)

    def _trained(self, task: Task, state: Path) -> tuple[Row, ...]:
        from maury.regress.cnn_training import train_cnn

        sweep = self.recipe.sweep
        assert sweep is not None  # the caller has looked
        begin = time.monotonic()
        data = trial_data(self.folder, sweep, task[0].trial)
        labels = tuple(dict.fromkeys(name for one in task for name in one.trial.labels))
        columns = [label_names(self.recipe).index(name) for name in labels]
        rows, config = data.rows(TRAIN), trial_config(self.recipe, task)
        training = train_cnn(
            data.spectra(rows),
            tuple(self.recipe.labels[k] for k in columns),
            data.values[rows][:, columns],
            config,
            groups=tuple(data.stars[rows].tolist()),
            device=self.device,
            checkpoints=state,
        )
        held = data.held_out(SCREENING, config.snr, sweep.seed)
        found = training.networks.predict(held.flux, held.ivar > 0)  # (n, members, K)
        truth = data.values[data.rows(SCREENING)]
        seconds = (time.monotonic() - begin) / len(task)
        out = []
        for one, (network, member) in zip(task, _networks(training.networks, task), strict=True):
            index = [labels.index(name) for name in one.trial.labels]
            true = truth[:, [columns[k] for k in index]]
            score = {
                n: LabelScore.of(true[:, i], found[:, member, k])
                for i, (n, k) in enumerate(zip(one.trial.labels, index, strict=True))
            }
            place = member if training.networks.is_joint else index[0] * training.networks.n_members + member
            write_network(self.folder, one.trial, network)
            out.append(_row(one, training.history, place, network, score, seconds))
        return tuple(out)


def _row(one: Planned, history: History, place: int, network: CnnNetworks, scores: dict[str, LabelScore], seconds: float) -> Row:
    """Of a network that is at this ``place`` in the history."""
    return Row(
        one.number,
        one.trial,
        "",
        float(history.validation[:, place].min()),
        scores,
        seconds,
        int(history.epoch[-1]),
        int(history.best_epoch[place]),
        network.topology.n_parameters(network.wavelength.size, len(network.labels)),
        int(network.wavelength.size),
    )


def label_names(recipe: Recipe) -> list[str]:
    """Of the recipe's labels, in their order."""
    return [label.name for label in recipe.label]


def trial_config(recipe: Recipe, task: Sequence[Planned]) -> CnnConfig:
    """The recipe's settings of networks, with what these networks differ in from it."""
    first, config = task[0].trial, recipe.train.cnn.to_config()
    members = sum(one.trial.labels == first.labels for one in task)
    return replace(
        config,
        topology=topology_of(first.architecture),
        joint=len(first.labels) > 1,
        members=members,
        loop=replace(config.loop, seed=first.seed),
    )


def write_network(folder: SweepFolder, trial: Trial, network: CnnNetworks) -> None:
    """Keep a network.

    Raises
    ------
    ModelFileError
        If it cannot be written.
    """
    arrays, config = network.to_arrays()
    write_model_file(network_file(folder.runs, trial), arrays, {"kind": "cnn_networks", **config})


def _networks(trained: CnnNetworks, task: Task) -> Iterator[tuple[CnnNetworks, int]]:
    """Each network of a task by itself, and which of its labels' members it is."""
    count: dict[tuple[str, ...], int] = {}
    for one in task:
        names = one.trial.labels
        member = count.get(names, 0)
        count[names] = member + 1
        own = trained if trained.is_joint else trained.only(names[0])
        row = slice(member, member + 1)
        yield replace(own, layers=tuple((weight[row], offset[row]) for weight, offset in own.layers)), member


@contextmanager
def _one_thread() -> Iterator[None]:
    """Of torch and of the matrix libraries: workers share the cores, and sums do not depend on who does them."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
