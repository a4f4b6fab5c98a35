"""``maury compare``: the same split for all, nobody judged by a model that saw it, failures and kills that cost nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from compare_sample import COPY, N_FOLDS, N_LABELLED, TEST, computed_content, make_data, own_content, write_recipe
from typer.testing import CliRunner

import maury.recipes.compare as module
from maury.cli import app, main
from maury.errors import RecipeError, UsageError
from maury.recipes.dataset import TrainingSet

TIMES = ("train_time", "infer_rate")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    for content in (own_content(), computed_content()):
        write_recipe(folder, content)
    return folder


def compare(root: Path, output: Path, *recipes: str) -> Any:
    words = [str(root / f"{name}.toml") for name in recipes or ("own", "computed")]
    return CliRunner().invoke(app, ["compare", *words, "--data", str(root), "-o", str(output)])


def table_of(output: Path, name: str = "comparison") -> Table:
    """A table of the folder; ECSV reads empty words as masked."""
    table = Table.read(output / f"{name}.ecsv", format="ascii.ecsv")
    for column in table.colnames:
        if table[column].dtype.kind == "U" and hasattr(table[column], "filled"):
            table[column] = table[column].filled("")
    return table


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done") / "comparison"
    result = compare(root, output)
    assert result.exit_code == 0, result.output
    return output


def counting(monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> list[TrainingSet]:
    """The training sets of all trainings from now on; Ctrl-C comes in the training of number ``stop``."""
    seen: list[TrainingSet] = []
    train = module.train_on

    def watched(recipe: Any, training: TrainingSet, *args: Any, **options: Any) -> Any:
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(training)
        return train(recipe, training, *args, **options)

    monkeypatch.setattr(module, "train_on", watched)
    return seen


def same_but_for_times(one: Path, other: Path) -> None:
    for name in ("comparison", "stars"):
        first, second = table_of(one, name), table_of(other, name)
        assert first.colnames == second.colnames
        for column in set(first.colnames) - set(TIMES):
            np.testing.assert_array_equal(first[column], second[column], err_msg=column)


def test_table_has_a_row_for_each_system_and_label(done: Path) -> None:
    table = table_of(done)
    assert list(zip(table["system"], table["label"], strict=True)) == [
        ("own", "teff"),
        ("own", "logg"),
        ("own", "fe_h"),
        ("computed", "teff"),
        ("computed", "logg"),
        ("computed", "m_h"),
    ]
    assert len(set(table["n"])) == 1
    assert (table["n"] <= table["n_own"]).all()
    assert table["n"][0] > N_LABELLED / 2
    assert list(table["n_models"]) == [N_FOLDS] * 3 + [1] * 3  # the library holds none of the survey's stars
    # noise-free lines of a closed form: both systems find the labels far better than stars scatter (about 700 K and 1.2 dex)
    assert (table["scatter"][table["label"] == "teff"] < 250).all()
    assert (table["bias_error"] > 0).all()
    assert (table["scatter_error"] > 0).all()
    assert (table["n_pairs"] > 0).all()
    assert np.isfinite(table["repeat_scatter"]).all()
    assert table["train_time"].unit == "s"
    assert np.isnan(table["gap"][0])  # 40 training spectra are too few to know a gap, 150 are not
    assert np.isfinite(table["gap"][3])
    assert 0 <= table["auc"][3] <= 1


def test_every_star_appears_with_labels_or_a_reason(done: Path, root: Path) -> None:
    stars = table_of(done, "stars")
    known = Table.read(root / "labels.csv", format="ascii.csv")
    for name in ("own", "computed"):
        mine = stars[stars["system"] == name]
        others = stars[stars["system"] == ""]
        assert set(mine["spectrum"]) | set(others["spectrum"]) == {path.name for path in (root / "spectra").glob("*.fits")}
        assert set(mine["spectrum"]) == set(known["file"][np.asarray(known["teff"]) >= 4300])
        assert all(reason for reason in others["reason"])
        assert all(np.isfinite(row["teff"]) or row["reason"] for row in mine)
    assert stars["e_teff"].unit == "K"


def test_no_star_is_judged_by_a_model_that_saw_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the same file, nor by another visit of the star under another name."""
    trained = counting(monkeypatch)
    assert compare(root, tmp_path / "out").exit_code == 0
    stars = table_of(tmp_path / "out", "stars")
    mine = stars[stars["system"] == "own"]
    first = str(Table.read(root / "labels.csv", format="ascii.csv")["file"][0])
    assert len(trained) == N_FOLDS + 1
    saw_the_copy = []
    for number, training in enumerate(trained[:N_FOLDS], start=1):
        files = {str(file) for file in training.spectra.meta["file"]}
        judged = set(mine["spectrum"][mine["model"] == number])
        assert judged
        assert not judged & files
        assert len(files) >= N_LABELLED - len(judged) - 1  # the others are all trained on
        saw_the_copy += [number] if COPY in files else []
    judge_of_first = int(mine["model"][mine["spectrum"] == first][0])
    assert sorted([*saw_the_copy, judge_of_first]) == list(range(1, N_FOLDS + 1))
    assert set(stars["model"][stars["system"] == "computed"]) == {1}


def test_the_page_holds_all_and_asks_nobody(done: Path) -> None:
    page = (done / "index.html").read_text(encoding="utf-8")
    assert "2 systems on" in page
    assert 'src="data:image/png;base64,' in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "Versions" in page
    assert "not in labels.csv" in page


def test_the_same_command_gives_the_same(root: Path, done: Path, tmp_path: Path) -> None:
    assert compare(root, tmp_path / "again").exit_code == 0
    same_but_for_times(done, tmp_path / "again")


def test_after_ctrl_c_it_goes_on(
    root: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["maury", "compare", str(root / "own.toml"), str(root / "computed.toml"), "--data", str(root), "-o", str(output)]
    with monkeypatch.context() as patched:
        counting(patched, stop=3)
        patched.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 130
    assert "the same command goes on there" in capsys.readouterr().err
    assert not (output / "index.html").exists()
    (output / "models" / "own.2.safetensors").write_bytes(b"damaged")
    trained = counting(monkeypatch)
    assert compare(root, output).exit_code == 0
    assert len(trained) == 1 + (N_FOLDS - 3) + 1  # the damaged one, the fourth fold, and the other recipe
    same_but_for_times(done, output)
    assert not (output / ".training").exists()


def test_models_of_other_settings_are_trained_again(
    root: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert compare(root, output, "computed").exit_code == 0
    before = table_of(output)
    write_recipe(tmp_path, computed_content(train={"order": 2}))
    trained = counting(monkeypatch)
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "computed.toml"), "--data", str(root), "-o", str(output)])
    assert result.exit_code == 0
    assert len(trained) == 1
    assert table_of(output)["scatter"][0] != before["scatter"][0]


def test_a_system_that_fails_stops_no_other(root: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(root, computed_content(name="lost", data={"library": {**_library(), "file": "lost.npz"}, "assumed_snr": 100}))
    result = compare(root, tmp_path / "out", "own", "lost", "computed")
    assert result.exit_code == 1
    assert "lost failed: " in result.output
    table = table_of(tmp_path / "out")
    assert [name for name, reason in zip(table["system"], table["reason"], strict=True) if reason] == ["lost"] * 3
    wanted = table_of(done)
    for name in ("own", "computed"):
        np.testing.assert_array_equal(table["scatter"][table["system"] == name], wanted["scatter"][wanted["system"] == name])
    assert "lost failed: " in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    stars = table_of(tmp_path / "out", "stars")
    assert all(stars["reason"][stars["system"] == "lost"])

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(module, "train_on", broken)
    result = compare(root, tmp_path / "all", "own", "computed")
    assert result.exit_code == 1
    assert "own failed: ZeroDivisionError: a defect" in result.output
    assert not (tmp_path / "all" / "comparison.png").exists()


def _library() -> dict[str, Any]:
    return dict(computed_content()["data"]["library"])


def _test(**changes: Any) -> dict[str, Any]:
    return {**TEST, "columns": {"m_h": "fe_h"}, **changes}


WRONG: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no test": (lambda: {k: v for k, v in computed_content().items() if k != "test"}, "expected a table [test] in each recipe"),
    "folds": (lambda: computed_content(test=_test(folds=5)), "expected one test set, got folds = 4 in [test] of own and 5"),
    "column": (lambda: computed_content(test=_test(columns={"m_h": "fe_h", "teff": "T"})), "expected column 'T' in"),
    "name": (lambda: computed_content(name="own"), "expected recipes of different names, got 'own' twice"),
    "weight": (lambda: computed_content(test=_test(weight="equal")), "expected no weight in [test]"),
    "noise": (lambda: computed_content(test=_test(snr=[20, 100])), "expected snr in [test] for a build or a library alone"),
    "report": (lambda: computed_content(test=_test(report={"mass": [0, 1]})), "expected labels of the recipe in test.report"),
    "key": (lambda: computed_content(test=_test(fold=5)), "expected a known key in [test], got 'fold'"),
    "label": (
        lambda: computed_content(
            label=[{"name": "v_micro", "column": "teff", "unit": "km/s"}], test={k: v for k, v in TEST.items() if k != "limits"}
        ),
        "expected a label that all recipes have, got none in common",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes_are_one_sentence(root: Path, tmp_path: Path, case: str) -> None:
    content, sentence = WRONG[case]
    other = write_recipe(tmp_path, content())
    words = ["compare", str(root / "own.toml"), str(other), "--data", str(root), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, RecipeError | UsageError), result.exception
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out" / "index.html").exists()


def test_wrong_places_are_one_sentence(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for output, data, sentence in (
        (tmp_path / "file", root, "expected a folder for the comparison, got the file"),
        (tmp_path / "no" / "folder", root, "expected to write"),
        (tmp_path / "out", tmp_path, "expected spectra matching"),
    ):
        words = ["compare", str(root / "own.toml"), "--data", str(data), "-o", str(output)]
        result = CliRunner().invoke(app, words)
        assert sentence in str(result.exception)
        assert not (output / ".training").exists()


def test_too_few_stars_for_the_folds(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, own_content(test={**TEST, "folds": 50}))
    result = CliRunner().invoke(app, ["compare", str(recipe), "--data", str(root), "-o", str(tmp_path / "out")])
    assert re.match(r"expected at least 50 test stars, one a fold, got \d+; change folds or limits", str(result.exception))
