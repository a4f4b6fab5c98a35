"""The test set of a comparison: noise that depends on nobody else, and whose stars are known in other data sets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_sample import LIBRARY, computed_content, make_data, own_content, recipe_of

from maury.assess.comparison import bootstrap_errors, system_scores, with_excess, with_repeats
from maury.assess.visits import VisitPairs
from maury.errors import RecipeError
from maury.labels import LabelSet, make_label
from maury.recipes import Recipe
from maury.recipes.compare_data import (
    TestSet,
    load_repeats,
    load_test_set,
    pairs_of,
    rows_of,
    shared_labels,
    shared_test,
    unseen_rows,
    without_scores,
)
from maury.recipes.dataset import load_training_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    with np.load(folder / "library.npz") as found:
        arrays = {name: found[name] for name in found.files}
    # the same atmospheres from the last to the first, each with two rotations, in single precision, as another build may be
    order = np.repeat(np.arange(len(arrays["labels"]))[::-1], 2)
    vsini = np.tile([5.0, 50.0], len(order) // 2)
    labels = np.column_stack([arrays["labels"][order].astype(np.float32), vsini])
    names = np.array(["teff", "logg", "m_h", "vsini"])
    np.savez(
        folder / "rotated.npz",
        wavelength=arrays["wavelength"],
        flux=arrays["flux"][order],
        labels=labels,
        label_names=names,
        base=order,
    )
    return folder


def library_recipe(**test: Any) -> Recipe:
    """Trains on the library, and is judged by the same atmospheres in the other file."""
    data = {"library": {**LIBRARY, "file": "rotated.npz"}, "assumed_snr": 1000, "star_column": "base"}
    return recipe_of(computed_content(test={**data, "folds": 10, "judged": 1, "snr": [20, 100], **test}))


def judges_of(recipe: Recipe, root: Path, work: Path) -> TestSet:
    return load_test_set([recipe], shared_labels([recipe]), root, None, work)


def test_atmospheres_are_known_in_another_build(root: Path, tmp_path: Path) -> None:
    recipe = library_recipe()
    test, training = judges_of(recipe, root, tmp_path), load_training_set(recipe, root)
    pairs = pairs_of(training, test.sources, test.spectra)
    assert len(pairs[0]) == len(test) == 300
    np.testing.assert_array_equal(pairs[0][np.argsort(pairs[1])], np.repeat(np.arange(150)[::-1], 2))
    fold = test.folds[0]
    assert len(fold) == 30
    assert len({test.stars[i] for i in fold}) == 15  # both rotations of a star are in one fold
    rows = unseen_rows(training, pairs, fold)
    assert len(rows) == 150 - 15
    held = {f"{teff:.1f}" for teff in test.truth["teff"][fold]}
    assert not held & {f"{teff:.1f}" for teff in training.values[rows, 0]}


def test_noise_is_that_of_the_star_whoever_is_beside_it(root: Path, tmp_path: Path) -> None:
    everything = judges_of(library_recipe(), root, tmp_path)
    few = judges_of(library_recipe(limits={"teff": [5000, 6000]}), root, tmp_path)
    place = {name: i for i, name in enumerate(everything.names)}
    for name, own in zip(few.names, range(len(few)), strict=True):
        np.testing.assert_array_equal(few.spectra[0].flux[own], everything.spectra[0].flux[place[name]])
    clean = judges_of(library_recipe(snr=None), root, tmp_path).spectra[0]
    noisy = everything.spectra[0]
    pulls = (noisy.flux - clean.flux) * np.sqrt(noisy.ivar)
    assert abs(np.std(pulls) - 1) < 0.01  # 150,000 pixels: 0.002
    ratio = np.asarray(noisy.meta["snr"])
    assert ratio.min() >= 20
    assert ratio.max() <= 100
    assert not np.array_equal(noisy.flux, judges_of(library_recipe(seed=1), root, tmp_path).spectra[0].flux)


def test_stars_outside_the_report_do_not_count(root: Path, tmp_path: Path) -> None:
    test = judges_of(library_recipe(report={"teff": [5000, 6000]}), root, tmp_path)
    np.testing.assert_array_equal(test.counted, (test.truth["teff"] >= 5000) & (test.truth["teff"] <= 6000))
    assert 0 < test.counted.sum() < len(test)


def test_labels_in_common() -> None:
    own, computed = recipe_of(own_content()), recipe_of(computed_content())
    found = shared_labels([own, computed])
    assert [(label.name, label.own) for label in found] == [
        ("teff", ("teff", "teff")),
        ("logg", ("logg", "logg")),
        ("fe_h", ("fe_h", "m_h")),
    ]
    assert shared_test([own, computed]).columns == {"m_h": "fe_h"}
    age = {"name": "age", "column": "age", "unit": "Gyr"}
    first, second = ({**own_content(name=name), "label": [{**age, "unit": unit}]} for name, unit in (("a", "Gyr"), ("b", "Myr")))
    for content in (first, second):
        content["test"] = {key: value for key, value in content["test"].items() if key != "limits"}
    with pytest.raises(RecipeError, match="expected age in one unit, got Gyr in a and Myr in b"):
        shared_labels([recipe_of(first), recipe_of(second)])


def test_columns_that_contradict_each_other() -> None:
    own = own_content()
    other = copy.deepcopy(own_content(name="other"))
    own["test"] = {**own["test"], "columns": {"teff": "teff"}}
    other["test"] = {**other["test"], "columns": {"teff": "T"}}
    with pytest.raises(RecipeError, match=r"expected one entry for teff in test.columns, got 'teff' and 'T' \(other\)"):
        shared_test([recipe_of(own), recipe_of(other)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spectra": "none/*.fits"}, "expected repeat visits matching none"),
        ({"group_column": "star"}, "expected column 'star' in groups.csv, got file, group"),
        ({"table": "lost.csv"}, "expected the label table"),
        ({"file_column": "group"}, "to name the files of spectra"),
    ],
)
def test_wrong_repeats(root: Path, change: dict[str, str], sentence: str) -> None:
    content = own_content()
    content["test"] = {**content["test"], "repeats": {**content["test"]["repeats"], **change}}
    with pytest.raises(RecipeError, match=sentence):
        load_repeats(recipe_of(content), root, None)


def test_scores_alone_are_not_worth_a_training() -> None:
    assert without_scores(recipe_of(own_content())).validation.folds == 3
    assert without_scores(recipe_of(own_content(errors={"model": "formal"}))).validation.folds == 0


def test_rows_of_batches(root: Path, tmp_path: Path) -> None:
    recipe = recipe_of(own_content())
    test = judges_of(recipe, root, tmp_path)
    chosen = np.array([7, 2, 5])
    files = [str(batch.meta["file"][0]) for batch in rows_of(test.spectra, chosen)]
    assert files == [test.names[i] for i in np.sort(chosen)]


def test_scores_of_known_residuals() -> None:
    """Residuals ±2 about 1 with errors of 2.5: the median is 1, and so on."""
    labels = LabelSet.from_training((make_label("logg", "dex"),), np.array([[0.0], [5.0]]))
    truth = np.zeros((6, 1))
    values = np.array([[3.0], [-1.0], [1.0], [3.0], [-1.0], [np.nan]])
    errors = np.full((6, 1), 2.5)
    counted = np.ones(6, dtype=bool)
    common = np.array([True, True, True, True, True, False])
    (row,) = system_scores(labels, truth, values, errors, counted=counted, common=common, stars=list("abcdef"))
    assert (row.n, row.n_own, row.bias) == (5, 5, 1.0)
    assert row.scatter == pytest.approx(1.4826 * 2, rel=1e-4)
    assert row.rmse == pytest.approx(np.sqrt(21 / 5))
    assert row.inside == 0.6
    assert with_repeats([row], None, VisitPairs(*(np.zeros(0, np.int64),) * 3, np.zeros(0))) == [row]  # type: ignore[arg-type]


def test_excess_knows_that_the_stars_are_the_same() -> None:
    """Residuals half as large everywhere: the difference is half of the scatter, and so is its error."""
    labels = LabelSet.from_training((make_label("logg", "dex"),), np.array([[0.0], [5.0]]))
    residuals = np.random.default_rng(4).standard_normal((200, 1))
    everyone, names = np.ones(200, dtype=bool), [str(i) for i in range(200)]
    both = [residuals, 0.5 * residuals]
    rows = [
        system_scores(labels, 0 * x, x, np.ones_like(x), counted=everyone, common=everyone, stars=names, n_bootstrap=100)
        for x in both
    ]
    ((worse,), (best,)) = with_excess(rows, both, names, n_bootstrap=100)
    assert (best.excess, best.excess_error) == (0.0, 0.0)
    assert worse.excess == pytest.approx(0.5 * worse.scatter)
    assert worse.excess_error == pytest.approx(0.5 * worse.scatter_error)


def test_bootstrap_counts_stars_not_spectra() -> None:
    """Each star four times tells no more than once; the median of n Gaussians has an error of 1.2533/sqrt(n)."""
    residuals = np.random.default_rng(2).standard_normal((400, 1))
    names = [f"s{i}" for i in range(400)]
    once = bootstrap_errors(residuals, names, 400, 0)
    often = bootstrap_errors(np.repeat(residuals, 4, axis=0), np.repeat(names, 4).tolist(), 400, 0)
    assert once[0, 0] == pytest.approx(1.2533 / 20, rel=0.35)  # a median's, of one sample, is known to n^(-1/4)
    assert once[1, 0] == pytest.approx(1.17 / 20, rel=0.35)  # 1.4826 MAD: efficiency 0.37
    np.testing.assert_allclose(often, once, rtol=0.25)
    assert np.isnan(bootstrap_errors(residuals, ["one"] * 400, 400, 0)).all()
