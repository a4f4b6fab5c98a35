"""Sweeps: which networks are trained, in which pixels; how they are screened; restarts; the ensemble of the accepted ones."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from astropy.table import Table
from sweep_sample import LIBRARY, N_DRAWS, N_STARS, RECIPE, SWEEP, sweep_recipe, write_library, write_recipe

from maury.errors import MauryError, RecipeError, UsageError
from maury.labels import make_label
from maury.networks.topology import PASSEGGER2020
from maury.prepare import Resample
from maury.prepare.grid import windows_of
from maury.read.library import read_library
from maury.recipes import load_recipe
from maury.recipes.grid_schema import builtin_grid_recipes
from maury.recipes.sweep import MODEL_FILE, SweepOptions, SweepResult, SweepState, run_sweep, sweep_of
from maury.recipes.sweep_data import REPORT, SCREENING, TRAIN, SweepFolder, WindowData, purposes, sweep_folder
from maury.recipes.sweep_plan import OptunaPlanner, Planned, Trial, fixed_plan, stacked
from maury.recipes.sweep_schema import SweepRecipe, WindowRecipe
from maury.recipes.sweep_screening import acceptance, accepted, failures, findings, runs_table
from maury.recipes.sweep_trial import LabelScore, Row, Training, read_network, read_row, read_rows, trial_data, write_failure
from maury.regress.cnn_training import train_cnn
from maury.report.sweep_figure import sweep_figure
from maury.store import load_model
from maury.train.sweep import Failure, Sweep, Workers, _Crew

TEFF, LOGG = make_label("teff", "K"), make_label("logg", "dex")
FIRST, SECOND = "5010-5090", "5120-5200"


def windows(*edges: tuple[float, float, float, float]) -> SweepRecipe:
    return SweepRecipe(window=tuple(WindowRecipe(start=a, stop=b, spacing=s, margin=m) for a, b, s, m in edges))


class TestPlan:
    def test_all_combinations_by_turns(self) -> None:
        recipe = sweep_recipe()
        plan = fixed_plan(recipe, recipe.sweep)
        assert len(plan) == 3 * (2 + 1 + 1) * 2  # labels x (chunks of two windows and the joined ones) x architectures
        assert len({one.trial.name for one in plan}) == len(plan)
        assert [one.trial.labels for one in plan[:4]] == [("teff",), ("logg",), ("teff", "logg"), ("teff",)]
        assert {one.trial.approach for one in plan} == {"A", "B", "C"}

    def test_repeats_have_other_seeds(self) -> None:
        recipe = sweep_recipe({"repeats": 3, "seed": 5})
        assert {one.trial.seed for one in fixed_plan(recipe, recipe.sweep)} == {5, 6, 7}

    def test_a_longer_random_sweep_begins_with_the_shorter_one_and_labels_are_balanced(self) -> None:
        short, long = (sweep_recipe({"sampler": "random", "number": number}) for number in (7, 40))
        few, many = fixed_plan(short, short.sweep), fixed_plan(long, long.sweep)
        assert (len(few), len(many)) == (7, 40)
        assert many[:6] == few[:6]
        assert {one.trial for one in few} <= {one.trial for one in many}
        assert len({one.trial.name for one in many}) == 40  # 24 combinations, then others with another seed
        counts = [sum(one.trial.labels == labels for one in many) for labels in (("teff",), ("logg",), ("teff", "logg"))]
        assert counts == [14, 13, 13]

    def test_one_window(self) -> None:
        recipe = sweep_recipe()
        plan = fixed_plan(recipe, recipe.sweep, [SECOND])
        assert {one.trial.windows for one in plan} == {(SECOND,)}
        with pytest.raises(RecipeError, match=f"expected windows among {FIRST}, {SECOND}, got '1-2'; correct --window"):
            fixed_plan(recipe, recipe.sweep, ["1-2"])

    def test_families_of_architectures(self) -> None:
        assert SweepRecipe().topologies == tuple(PASSEGGER2020)
        assert len(PASSEGGER2020) == 36
        assert set(SweepRecipe(architectures=("all",)).topologies) > set(PASSEGGER2020)

    def test_networks_of_one_topology_on_the_same_pixels_are_stacked(self) -> None:
        recipe = sweep_recipe({"repeats": 2, "architectures": ["small"]})
        tasks = stacked(fixed_plan(recipe, recipe.sweep))
        assert sum(map(len, tasks)) == 3 * 4 * 2
        alone, together = (sorted(len(t) for t in tasks if (len(t[0].trial.labels) > 1) is joint) for joint in (False, True))
        assert alone == [4, 4, 4, 4]  # two labels and two seeds in each of four places
        assert together == [2, 2, 2, 2]


class TestWindows:
    def test_margins_of_neighbours_meet_in_the_middle(self) -> None:
        """Windows of Passegger+2020 (METHODS 1) that are 6 and 5 Å apart, with margins of 5 Å."""
        sweep = windows((7050, 7075, 0.01, 5), (7081, 7115, 0.01, 5), (8800, 8835, 0.01, 5))
        assert sweep.spans() == ((7045, 7077.98, 0.01), (7078.02, 7120, 0.01), (8795, 8840, 0.01))
        grid = Resample(windows=sweep.spans()).grid()
        assert [(round(grid[i][0], 6), round(grid[i][-1], 6)) for i in windows_of(grid)] == [
            (7045, 7077.97),
            (7078.02, 7119.99),
            (8795, 8839.99),
        ]

    def test_a_wide_margin_gives_way_to_a_narrow_one(self) -> None:
        assert windows((5000, 5010, 1, 50), (5020, 5030, 1, 1)).spans() == ((4950, 5013, 1), (5019, 5031, 1))

    @pytest.mark.parametrize(("chunk", "first", "n"), [(0, 8800.0, 3500), (2048, 8807.26, 2048), (4000, 8797.5, 4000)])
    def test_chunks_are_centred_and_may_take_the_margins(self, chunk: int, first: float, n: int) -> None:
        window = windows((8800, 8835, 0.01, 5)).window[0]
        grid = Resample(windows=windows((8800, 8835, 0.01, 5)).spans()).grid()
        pixels = window.pixels(grid, chunk)
        assert grid[pixels].size == n
        assert grid[pixels][0] == pytest.approx(first, abs=0.006)

    def test_purpose_is_the_stars_own(self) -> None:
        sweep = SweepRecipe(screening=0.2, report=0.1)
        stars = np.array([f"star{i // 2}" for i in range(4000)])
        purpose = purposes(stars, sweep)
        assert (purpose[::2] == purpose[1::2]).all()
        assert np.array_equal(purposes(stars[100:120], sweep), purpose[100:120])  # whoever else is there
        share = np.bincount(purpose) / 4000
        assert share == pytest.approx([0.7, 0.2, 0.1], abs=0.03)  # 3 sigma of 2000 stars: sqrt(0.21 / 2000) is 0.01


class TestRefusals:
    @pytest.mark.parametrize(
        ("sweep", "sentence"),
        [
            ({"labels": [["vsini"]]}, r"expected different labels of the recipe in sweep.labels, got \['vsini'\]; correct"),
            ({"labels": [["teff", "teff"]]}, "expected different labels"),
            ({"thresholds": {"mass": 1}}, "expected labels of the recipe in sweep.thresholds, got 'mass'; correct the name"),
            (
                {"thresholds": {"teff": 0}},
                "expected a positive threshold for each label in sweep.thresholds, got one that is not",
            ),
            ({"architectures": ["huge"]}, "expected architectures among all, passegger2020, starnet, .*, got 'huge'; correct"),
            ({"joined": [["5010-5090"]]}, r"expected two or more of the windows 5010-5090, 5120-5200 in sweep.joined, got \["),
            ({"joined": [["5010-5090", "1-2"]]}, "expected two or more of the windows"),
            ({"window": [SWEEP["window"][0] | {"chunks": [91]}]}, "expected chunks of at most 90 pixels in the window 5010-5090"),
            ({"window": [SWEEP["window"][0] | {"chunks": [0]}]}, "expected chunks of at least one pixel"),
            ({"window": SWEEP["window"][::-1]}, "expected windows in increasing order, at least 4 Å apart, got 5120-5200 and"),
            (
                {"window": [{"start": 5, "stop": 5, "spacing": 1}]},
                "expected start < stop of a window with several pixels, got 5-5",
            ),
            ({"colour": "red"}, r"expected a known key in \[sweep\], got 'colour'; known are architectures, labels, joined, "),
        ],
    )
    def test_sweeps(self, sweep: dict[str, Any], sentence: str) -> None:
        if "window" in sweep:
            sweep = {"joined": [], **sweep}
        with pytest.raises(RecipeError, match=sentence):
            sweep_recipe(sweep)

    def test_recipes(self) -> None:
        with pytest.raises(RecipeError, match=r"treat each window by itself, as gisic, got polynomial; put it before resample"):
            sweep_recipe(prepare=[{"step": "resample"}, {"step": "polynomial"}])
        assert sweep_recipe(prepare=[{"step": "resample"}, {"step": "polynomial", "each_window": True}])
        with pytest.raises(
            RecipeError, match=r"expected a step resample in \[\[prepare\]\], which makes the sweep's windows, got"
        ):
            sweep_recipe(prepare=[{"step": "gisic"}])
        with pytest.raises(RecipeError, match=r"expected train.method = 'cnn' for \[sweep\], got 'cannon'; correct it or"):
            sweep_recipe(train={"method": "cannon"})
        for step in ({"step": "reject_spikes"}, {"step": "macroturbulence", "v_macro": 3}, {"step": "mask", "grow": 2}):
            with pytest.raises(RecipeError, match=f"treat each window by itself, as gisic, got {step['step']}; put it"):
                sweep_recipe(prepare=[{"step": "resample"}, step])
        assert sweep_recipe(prepare=[{"step": "resample"}, {"step": "mask"}, {"step": "noise_floor"}])
        part = {"name": "one", **RECIPE["data"], "prepare": [{"step": "resample"}, {"step": "scale"}]}
        with pytest.raises(RecipeError, match="treat each window by itself, as gisic, got scale; put it"):
            sweep_of(sweep_recipe(data={"parts": [part]}))
        label = [{"name": "xi", "column": "xi", "unit": "dex"}]
        with pytest.raises(
            RecipeError, match=r"expected a positive threshold for each label in sweep.thresholds, got none for xi"
        ):
            sweep_recipe({"labels": [], "thresholds": {}}, label=label)


# -- screening, on made-up numbers --------------------------------------------------------------------------------------------


def made_up(name: str, mae: float, worst: float, *, labels: tuple[str, ...] = ("teff",), **trial: Any) -> Row:
    own = Trial(**({"windows": (FIRST,), "chunk": 0, "architecture": name, "labels": labels, "seed": 0} | trial))
    return Row(0, own, "", 1e-4, {label: LabelScore(mae, worst, 0.0, mae) for label in labels}, 1.0, 10, 5, 100, 50)


ROWS = [
    made_up("3-rising-max-3", 10.0, 20.0),
    made_up("3-falling-max-3", 20.0, 40.0),
    made_up("8-rising-none-5", 30.0, 60.0, windows=(SECOND,)),
    made_up("8-rising-none-5", 15.0, 24.0, windows=(FIRST, SECOND)),
    made_up("5-rising-max-3", 22.0, 24.0, labels=("teff", "logg")),
    Row(9, Trial((FIRST,), 0, ("teff",), "starnet", 1), "MemoryError: too large"),
]
SCREEN = SweepRecipe(thresholds={"teff": 25.0, "logg": 0.05})


class TestScreening:
    def test_errors_of_a_network_in_closed_form(self) -> None:
        """True labels 0 ... 99; the last ten are 10 too high, the others 1 too low."""
        true = np.arange(100.0)
        found = np.where(true < 90, true - 1, true + 10)
        order = np.random.default_rng(1).permutation(100)
        score = LabelScore.of(true[order], found[order])
        assert score == LabelScore(pytest.approx(1.9), pytest.approx(10.0), pytest.approx(-1.0), 0.0)
        with pytest.raises(UsageError, match="expected finite labels from the network, got others"):
            LabelScore.of(true, np.full(100, np.nan))

    def test_both_readings_of_table_3(self) -> None:
        lines = {(line.label, line.reading): line for line in acceptance(ROWS, [TEFF, LOGG], SCREEN)}
        mean, worst = lines["teff", "mean"], lines["teff", "worst_tenth"]
        assert (mean.trained, mean.models, mean.architectures, mean.windows) == (6, 4, 4, 2)
        assert (worst.models, worst.architectures, worst.windows) == (3, 3, 2)
        assert lines["logg", "mean"].models == 0  # 22 dex
        best = [row.trial.architecture for row in accepted(ROWS, "teff", SCREEN)]
        assert best == ["3-rising-max-3", "8-rising-none-5", "3-falling-max-3", "5-rising-max-3"]

    def test_findings_compare_what_the_paper_compares(self) -> None:
        found = {(f.question, f.group): f for f in findings(ROWS, [TEFF])}
        rising, falling = found["filters", "rising"], found["filters", "falling"]
        assert (rising.n, rising.median, rising.lowest, rising.highest) == (4, 18.5, 10.0, 30.0)
        assert (falling.n, falling.median) == (1, 20.0)
        assert found["single or joint (A, B)", "B: several labels"].median == 22.0
        assert found["single or joined (A, C)", "C: several windows"].median == 15.0
        assert found["convolutions", "8"].n == 2
        assert not [question for question, _ in found if question == "window and chunk"]  # there are no chunks

    def test_failures_are_counted(self) -> None:
        assert failures(ROWS) == {"MemoryError: too large": 1}

    def test_table_and_figure(self) -> None:
        table = runs_table(ROWS, [TEFF, LOGG], SCREEN)
        assert str(table["mae_teff"].unit) == "K"
        assert table["status"].tolist() == ["done"] * 5 + ["failed"]
        assert np.isnan(table["mae_teff"][5])
        assert table["accepted_teff"].tolist() == [True, True, False, True, True, False]
        figure = sweep_figure(table, [TEFF, LOGG], {"teff": 25.0, "logg": 0.05})
        assert len(figure.axes) == 2
        drawn = sum(len(points.get_offsets()) for points in figure.axes[0].collections)
        assert drawn == 5


# -- real ones, tiny ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def swept(root: Path) -> tuple[Path, SweepResult]:
    """A whole sweep; StarNet's pooling leaves nothing of two pixels."""
    window = SWEEP["window"][0] | {"chunks": [64, 2]}
    output = root / "sweep"
    return output, run_sweep(sweep_recipe({"window": [window, SWEEP["window"][1]]}), root, output)


def recipe_of_swept() -> Any:
    return sweep_recipe({"window": [SWEEP["window"][0] | {"chunks": [64, 2]}, SWEEP["window"][1]]})


@pytest.fixture
def copy(swept: tuple[Path, SweepResult], tmp_path: Path) -> Path:
    """A folder of the same sweep that a test may change."""
    shutil.copytree(swept[0], tmp_path / "sweep")
    return tmp_path / "sweep"


def states(path: Path, root: Path, **options: Any) -> tuple[list[SweepState], SweepResult]:
    seen: list[SweepState] = []
    result = run_sweep(recipe_of_swept(), root, path, options=SweepOptions(**options), watch=seen.append)
    return seen, result


class TestRun:
    def test_a_training_that_fails_is_a_row(self, swept: tuple[Path, SweepResult]) -> None:
        output, result = swept
        assert len(result.rows) == 24
        failed = [row for row in result.rows if not row.is_done]
        assert {(row.trial.architecture, row.trial.chunk) for row in failed} == {("starnet", 2)}
        assert all(row.reason.startswith("expected more than 2 pixels for Topology") for row in failed)
        stored = json.loads((output / "runs" / f"{failed[0].trial.name}.json").read_text())
        assert stored["status"] == "failed"
        assert [path.name for path in (output / "state").iterdir()] == []

    def test_files_for_people(self, swept: tuple[Path, SweepResult]) -> None:
        output, result = swept
        read = Table.read(output / "runs.ecsv")
        assert read.colnames == result.table.colnames
        assert str(read["scatter_logg"].unit) == "dex"
        assert (output / "runs.csv").read_text().count("\n") == 25

    def test_scores_are_those_of_the_kept_networks(self, swept: tuple[Path, SweepResult]) -> None:
        output, result = swept
        check_scores(SweepFolder(output), result.rows)

    def test_stars_are_for_one_thing_alone(self, swept: tuple[Path, SweepResult]) -> None:
        one, other = (SweepFolder(swept[0]).window(name) for name in (FIRST, SECOND))
        assert np.array_equal(one.stars, other.stars)
        assert np.array_equal(one.purpose, other.purpose)
        assert len(one.stars) == N_STARS * N_DRAWS
        by_purpose = [set(one.stars[one.rows(purpose)].tolist()) for purpose in (TRAIN, SCREENING, REPORT)]
        assert not by_purpose[0] & by_purpose[1]
        assert not by_purpose[2] & (by_purpose[0] | by_purpose[1])

    def test_the_ensemble_judges_raw_spectra_as_it_was_judged(self, swept: tuple[Path, SweepResult], root: Path) -> None:
        """Windows are prepared one by one for training, and together for inference."""
        output, result = swept
        assert result.ensemble is not None
        model = load_model(output / MODEL_FILE)
        assert model.model_id == result.model_id
        raw = read_library(root / LIBRARY["file"], **{k: v for k, v in LIBRARY.items() if k != "file"}, snr=100).spectra
        data = [SweepFolder(output).window(name) for name in (FIRST, SECOND)]
        flux = np.concatenate([one.flux for one in data], axis=1)
        assert model.preparation(raw).flux == pytest.approx(flux, abs=1e-6)  # float32
        labels = result.ensemble.model.labels.names
        assert model.infer(raw[:5]).values.shape == (5, len(labels))

    def test_accepted_labels_of_joint_networks_vote_alone(self, copy: Path, root: Path) -> None:
        """With a threshold that no log g reaches, joint networks vote on Teff."""
        recipe = sweep_recipe(recipe_of_swept().sweep.model_dump(mode="json") | {"thresholds": {"teff": 1e9, "logg": 1e-9}})
        result = run_sweep(recipe, None, copy)
        assert result.ensemble is not None
        assert result.ensemble.members == {"teff": sum("teff" in row.all_scores for row in result.rows)}
        names = [name for stack in result.ensemble.model.inferrer.names for name in stack]
        assert sorted(names) == sorted(row.trial.name for row in result.rows if "teff" in row.all_scores)
        assert any("teff+logg" in name for name in names)

    def test_only_the_best_vote_if_so_many_are_wanted(self, copy: Path) -> None:
        changed = recipe_of_swept().sweep.model_dump(mode="json") | {"members": 3}
        result = run_sweep(sweep_recipe(changed), None, copy)
        assert result.ensemble is not None
        assert set(result.ensemble.members.values()) == {3}

    def test_none_accepted(self, copy: Path) -> None:
        changed = recipe_of_swept().sweep.model_dump(mode="json") | {"thresholds": {"teff": 1e-9, "logg": 1e-9}}
        result = run_sweep(sweep_recipe(changed), None, copy)
        assert result.ensemble is None
        assert not (copy / MODEL_FILE).exists()


def check_scores(folder: SweepFolder, rows: list[Row]) -> None:
    """The scores of rows follow from the networks in their files."""
    recipe = recipe_of_swept()
    for row in rows:
        if row.is_done:
            data = trial_data(folder, recipe.sweep, row.trial)
            held = data.rows(SCREENING)
            found = read_network(folder, row.trial).predict(data.flux[held], data.ivar[held] > 0)
            for k, name in enumerate(row.trial.labels):
                true = data.values[held, ["teff", "logg"].index(name)]
                assert row.all_scores[name].mae == pytest.approx(np.abs(found[:, 0, k] - true).mean(), rel=1e-5)


class TestRestart:
    def test_only_what_is_missing_is_trained(self, swept: tuple[Path, SweepResult], copy: Path, root: Path) -> None:
        lost = swept[1].rows[3].trial
        (copy / "runs" / f"{lost.name}.json").unlink()
        seen, result = states(copy, root)
        assert [(state.done, state.total) for state in seen] == [(23, 24), (24, 24)]
        assert result.model_id == swept[1].model_id
        assert without_time(result.rows) == without_time(swept[1].rows)

    def test_failed_ones_are_left_unless_wanted(self, copy: Path, root: Path) -> None:
        seen, _ = states(copy, root)
        assert seen == []
        seen, _ = states(copy, root, retry=True)
        assert [state.done for state in seen] == [21, 22, 23, 24]
        assert seen[-1].failed == 3

    def test_a_row_without_its_network_is_none(self, swept: tuple[Path, SweepResult], copy: Path) -> None:
        trial = swept[1].rows[0].trial
        assert read_row(SweepFolder(copy), trial) is not None
        (copy / "runs" / f"{trial.name}.safetensors").unlink()
        assert read_row(SweepFolder(copy), trial) is None

    def test_what_a_kill_left_of_writing_is_no_row(self, swept: tuple[Path, SweepResult], copy: Path) -> None:
        """A row whose move into place did not happen any more, beside that of the second try."""
        row = next((copy / "runs").glob("*.json"))
        left = row.with_name(f".{row.stem}.0123456789ab.json")
        shutil.copy(row, left)
        assert len(read_rows(SweepFolder(copy))) == len(swept[1].rows)
        (copy / ".state.old" / "some").mkdir(parents=True)
        run_sweep(recipe_of_swept(), None, copy)
        assert not left.exists()
        assert not (copy / ".state.old").exists()

    def test_a_done_row_is_never_replaced_by_a_failure(self, swept: tuple[Path, SweepResult], copy: Path) -> None:
        done = next(row for row in swept[1].rows if row.is_done)
        assert write_failure(SweepFolder(copy), Planned(done.number, done.trial), "its worker died") == done
        assert read_row(SweepFolder(copy), done.trial) == done

    def test_more_combinations_join_what_is_there(self, copy: Path, root: Path) -> None:
        changed = recipe_of_swept().sweep.model_dump(mode="json") | {"repeats": 2, "labels": [["teff"]]}
        seen: list[SweepState] = []
        run_sweep(sweep_recipe(changed), root, copy, watch=seen.append)
        assert (seen[0].done, seen[-1].done) == (24, 32)

    def test_another_recipe_or_other_data_are_refused(self, copy: Path, root: Path, tmp_path: Path) -> None:
        other = recipe_of_swept().sweep.model_dump(mode="json") | {"screening": 0.3}
        with pytest.raises(UsageError, match="to be of this recipe and data, got a sweep that differs in sweep; choose another"):
            run_sweep(sweep_recipe(other), root, copy)
        train = RECIPE["train"] | {"cnn": RECIPE["train"]["cnn"] | {"max_epochs": 3}}
        with pytest.raises(UsageError, match="differs in train; choose another output, or --fresh to delete it"):
            run_sweep(sweep_recipe(recipe_of_swept().sweep.model_dump(mode="json"), train=train), root, copy)
        with pytest.raises(UsageError, match="differs in files; choose another output"):
            run_sweep(recipe_of_swept(), write_library(tmp_path, seed=4), copy)

    def test_fresh_begins_again(self, copy: Path, root: Path) -> None:
        recipe = sweep_recipe({"architectures": ["small"], "labels": [["teff"]], "screening": 0.3})
        result = run_sweep(recipe, root, copy, options=SweepOptions(fresh=True, windows=(SECOND,)))
        assert len(result.rows) == 1
        assert [path.name for path in (copy / "data").iterdir()] == [SECOND]  # no other window was read

    def test_fresh_that_is_killed_midway_goes_on(self, copy: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The plan is there as long as something of it, and no room is there in part."""
        delete, deleted = shutil.rmtree, []

        def killed(path: Path, **options: Any) -> None:
            if len(deleted) == 1:
                raise KeyboardInterrupt
            deleted.append(path)
            delete(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr("maury.recipes.sweep_data.shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                run_sweep(recipe_of_swept(), root, copy, options=SweepOptions(fresh=True))
        assert (copy / "sweep.json").is_file()
        rooms = {name for name in ("data", "runs", "state") if (copy / name).exists()}
        assert rooms == {"state"}
        assert run_sweep(recipe_of_swept(), None, copy).rows == []
        assert [path.name for path in copy.iterdir() if path.name.endswith(".old")] == []

    def test_fresh_that_may_not_delete_says_so(self, copy: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(path: Path, **options: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("maury.recipes.sweep_data.shutil.rmtree", refused)
        with pytest.raises(UsageError, match=r"expected to write .*, got Permission denied; check space and permissions"):
            run_sweep(recipe_of_swept(), root, copy, options=SweepOptions(fresh=True))
        assert (copy / "sweep.json").is_file()

    def test_data_that_were_wrong_do_not_lock_the_folder(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        recipe = sweep_recipe({"architectures": ["small"], "labels": [["teff"]], "joined": []})
        with pytest.raises(MauryError, match=r"library\.npz"):
            run_sweep(recipe, tmp_path / "empty", tmp_path / "sweep")
        result = run_sweep(recipe, root, tmp_path / "sweep", options=SweepOptions(windows=(SECOND,)))
        assert len(result.rows) == 1

    def test_a_build_that_changed_is_refused(self, tmp_path: Path) -> None:
        build = tmp_path / "build.toml"
        text = next(iter(builtin_grid_recipes().values())).read_text()
        build.write_text(text)
        recipe = sweep_recipe(data={"parts": [{"name": "built", "build": str(build)}]})
        with sweep_folder(tmp_path / "sweep", recipe, sweep_of(recipe), tmp_path) as folder:
            (folder.runs / "one.json").touch()
        with sweep_folder(tmp_path / "sweep", recipe, sweep_of(recipe), tmp_path):
            pass
        build.write_text("seed = 17\n" + text.replace("\nseed = ", "\n# seed = "))
        with (
            pytest.raises(UsageError, match="got a sweep that differs in builds; choose another output"),
            sweep_folder(tmp_path / "sweep", recipe, sweep_of(recipe), tmp_path),
        ):
            pass

    def test_missing_dask_is_said_before_the_data_are_prepared(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(UsageError, match="expected Dask for several processes, got none"):
            run_sweep(recipe_of_swept(), root, tmp_path / "sweep", Workers(2))
        assert list((tmp_path / "sweep" / "data").iterdir()) == []

    def test_foreign_folders(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").touch()
        with pytest.raises(UsageError, match=r"expected a folder of a sweep, got .*mine with 'thesis.tex' in it; choose another"):
            run_sweep(recipe_of_swept(), root, tmp_path / "mine")
        with pytest.raises(UsageError, match=r"expected a sweep in .*none, got none; run it without --table first"):
            run_sweep(recipe_of_swept(), None, tmp_path / "none")
        with pytest.raises(RecipeError, match=r"expected a recipe with a table \[sweep\], got 'small' without"):
            run_sweep(recipe_of_swept().model_copy(update={"sweep": None}), root, tmp_path / "none")


def without_time(rows: list[Row]) -> list[Row]:
    return [replace(row, seconds=0.0) for row in rows]


def test_stacked_networks_have_their_own_rows(copy: Path) -> None:
    """As on a GPU: labels and seeds of one place together; each score is that of the network in the row's file."""
    folder, recipe = SweepFolder(copy), recipe_of_swept()
    places = [Trial((FIRST,), 64, (label,), "small", seed) for label in ("logg", "teff") for seed in (7, 8)]
    places += [Trial((FIRST,), 64, ("teff", "logg"), "small", seed) for seed in (7, 8)]
    tasks = stacked(Planned(i, trial) for i, trial in enumerate(places))
    assert [len(task) for task in tasks] == [4, 2]
    rows = [row for task in tasks for row in Training(recipe, folder)(task)]
    assert [row.trial for row in rows] == places
    assert len({row.validation_loss for row in rows}) == 6
    check_scores(folder, rows)


def test_one_bad_member_of_a_stack_is_one_row(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of log g fail, with whom ever they are trained."""

    def train(spectra: Any, labels: tuple[Any, ...], *rest: Any, **options: Any) -> Any:
        if any(label.name == "logg" for label in labels):
            raise MemoryError("too large")
        return train_cnn(spectra, labels, *rest, **options)

    monkeypatch.setattr("maury.regress.cnn_training.train_cnn", train)
    folder, recipe = SweepFolder(copy), recipe_of_swept()
    places = [Trial((FIRST,), 64, (label,), "small", seed) for label in ("logg", "teff") for seed in (7, 8)]
    (task,) = stacked(Planned(i, trial) for i, trial in enumerate(places))
    rows = Training(recipe, folder)(task)
    assert [row.reason for row in rows] == ["MemoryError: too large"] * 2 + [""] * 2
    assert [read_row(folder, trial) for trial in places] == list(rows)
    assert list((copy / "state").iterdir()) == []
    check_scores(folder, list(rows))


def test_networks_trained_with_noise_are_judged_with_noise(copy: Path) -> None:
    """Each pixel of the spectra that judge a network of S/N 5 has an error of a fifth; the same each time."""
    cnn = RECIPE["train"]["cnn"] | {"snr": [5, 5]}
    recipe = sweep_recipe(recipe_of_swept().sweep.model_dump(mode="json"), train=RECIPE["train"] | {"cnn": cnn})
    folder, trial = SweepFolder(copy), Trial((FIRST,), 64, ("teff",), "small", 9)
    (row,) = Training(recipe, folder)((Planned(0, trial),))
    data = trial_data(folder, sweep_of(recipe), trial)
    held = data.held_out(SCREENING, (5.0, 5.0), sweep_of(recipe).seed)
    noise = held.flux - data.flux[data.rows(SCREENING)]
    assert noise.std() == pytest.approx(0.2, rel=4 / np.sqrt(2 * noise.size))  # 4 sigma of a standard deviation
    assert held.ivar == pytest.approx(25.0)
    assert not np.array_equal(noise[:5], data.held_out(REPORT, (5.0, 5.0), 0).flux[:5] - data.flux[data.rows(REPORT)][:5])
    found = read_network(folder, trial).predict(held.flux, held.ivar > 0)[:, 0, 0]
    assert row.all_scores["teff"].mae == pytest.approx(np.abs(found - data.values[data.rows(SCREENING), 0]).mean(), rel=1e-5)


def test_some_spectra_of_joined_windows(swept: tuple[Path, SweepResult]) -> None:
    parts = [SweepFolder(swept[0]).window(name) for name in (FIRST, SECOND)]
    keep = np.array([3, 70, 71])
    whole, some = WindowData.joined(parts), WindowData.joined(parts, keep)
    assert np.array_equal(some.flux, whole.flux[keep])
    assert np.array_equal(some.values, whole.values[keep])
    assert np.array_equal(some.wavelength, whole.wavelength)
    assert np.array_equal(WindowData.joined(parts[:1], keep).flux, parts[0].flux[keep])


def test_without_windows_the_preparation_is_the_window(root: Path, tmp_path: Path) -> None:
    prepare = [{"step": "resample", "start": 5010, "stop": 5110, "spacing": 1}]
    recipe = sweep_recipe({"window": [], "joined": [], "labels": [["teff"]], "architectures": ["small"]}, prepare=prepare)
    result = run_sweep(recipe, root, tmp_path / "sweep")
    assert [row.trial.name for row in result.rows] == ["all_teff_small_s0"]
    assert result.rows[0].n_pixels == 100
    assert result.ensemble is not None
    assert result.ensemble.model.preparation == recipe.preparation


class TestOptuna:
    RECIPE = staticmethod(lambda number: sweep_recipe({"sampler": "optuna", "number": number, "joined": []}))

    def test_a_sweep_that_goes_on_asks_what_one_at_once_would(self, root: Path, tmp_path: Path) -> None:
        run_sweep(self.RECIPE(4), root, tmp_path / "parts")
        parts = run_sweep(self.RECIPE(7), root, tmp_path / "parts")
        whole = run_sweep(self.RECIPE(7), root, tmp_path / "whole")
        assert without_time(parts.rows) == without_time(whole.rows)
        assert [row.trial.labels for row in whole.rows[:3]] == [("teff",), ("logg",), ("teff", "logg")]

    def test_it_comes_to_prefer_what_is_good_and_never_repeats_a_network(self) -> None:
        """Of three places and two architectures one is a hundred times better: after ten at random, most are of it."""
        recipe = sweep_recipe({"sampler": "optuna", "number": 40, "joined": [], "labels": [["teff"]]})
        assert recipe.sweep is not None
        planner, asked = OptunaPlanner(recipe, recipe.sweep, []), []
        while (task := planner.next_task()) is not None:
            trial = task[0].trial
            asked.append(trial)
            good = trial.place == f"{FIRST}_32" and trial.architecture == "small"
            planner.tell(Row(task[0].number, trial, "", 1e-4 if good else 1e-2, {}))
        assert len({trial.name for trial in asked}) == 40
        assert sum(t.place == f"{FIRST}_32" and t.architecture == "small" for t in asked[10:]) > 15  # 5 at random


# -- the engine ---------------------------------------------------------------------------------------------------------------


def _root_of(number: int) -> float:
    if number < 0:
        raise UsageError(f"expected a positive number, got {number}")
    return 10.0 / number


def test_the_engine_asks_after_each_result() -> None:
    order: list[object] = []
    numbers = iter([5, 0, -1, 2])

    def ask() -> int | None:
        found = next(numbers, None)
        order.append(found)
        return found

    Sweep(ask, _root_of, lambda task, result: order.append((task, result))).run(Workers())
    expected = [5, (5, 2.0), 0, (0, Failure("ZeroDivisionError: float division by zero")), -1]
    assert order[:5] == expected
    assert order[5] == (-1, Failure("expected a positive number, got -1"))
    assert order[6:] == [2, (2, 5.0), None]


def test_a_sweep_whose_workers_are_gone_ends() -> None:
    """Of remote ones, which nobody replaces; those that come in time go on."""

    class Fake:
        threads: ClassVar[dict[str, int]] = {"tcp://one": 2}

        def nthreads(self) -> dict[str, int]:
            return self.threads

    client, now = Fake(), iter([0.0, 100.0, 150.0, 159.0, 161.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maury.train.sweep.time.monotonic", lambda: next(now))
        crew = _Crew(client)  # type: ignore[arg-type]
        assert crew.count() == 2
        client.threads = {}  # type: ignore[misc]
        assert [crew.count(), crew.count()] == [0, 0]
        with pytest.raises(UsageError, match="expected workers of the sweep, got none any more for 60 s; start some and repeat"):
            crew.count()


def test_a_recipe_file(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path / "small.toml")).sweep == sweep_recipe().sweep
