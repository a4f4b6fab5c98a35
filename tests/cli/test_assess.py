"""``maury assess`` and ``maury combine`` on a small made-up survey with repeat visits, and what users get wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from lamost_survey import make_survey, survey_recipe, write_lamost_files

from maury.assess.repeats import RepeatErrorModel
from maury.catalogue import read_catalogue
from maury.cli.assess import assess
from maury.cli.combine import combine
from maury.errors import CatalogueError, MauryError, ReadError, RecipeError, UsageError
from maury.grids import AnalyticSpectra
from maury.recipes import parse_recipe, run_recipe
from maury.store import load_model, save_model

LABELS = ("teff", "logg", "fe_h")
N_STARS = 30


def maury(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "maury", *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.safetensors``, ``visits/`` (two of each of 30 stars, one truncated), ``groups.csv`` and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("assess")
    make_survey(folder / "survey", n_stars=120)
    recipe = survey_recipe(validation={"folds": 0}, errors={"model": "formal"})
    save_model(run_recipe(parse_recipe(recipe, "test"), folder / "survey").model, folder / "model.safetensors")
    rng = np.random.default_rng(20)
    truth = np.column_stack([rng.uniform(4500, 6300, N_STARS), rng.uniform(4.0, 4.6, N_STARS), rng.uniform(-0.8, 0.2, N_STARS)])
    values, names = np.repeat(truth, 2, axis=0), [f"visit-{i:02d}-{v}.fits" for i in range(N_STARS) for v in "ab"]
    snr, velocity = rng.uniform(25.0, 90.0, len(names)), np.full(len(names), 10.0)
    (folder / "visits").mkdir()
    write_lamost_files(folder / "visits", names, AnalyticSpectra(LABELS), values, snr=snr, velocity=velocity, random=rng)
    broken = folder / "visits/visit-00-a.fits"
    broken.write_bytes(broken.read_bytes()[:20_000])
    stars = [name[6:8] for name in names]
    Table({"file": names, "group": stars}).write(folder / "groups.csv")
    Table({"spectrum": names, "teff": values[:, 0], "g": values[:, 1], "fe_h": values[:, 2]}).write(folder / "labels.csv")
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return sorted((folder / "visits").glob("*.fits"))


@pytest.fixture(scope="module")
def learned(folder: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """The whole command."""
    words = ["--groups", "groups.csv", "-o", "new.safetensors", "--plots", "plots", "--fwhm", "6"]
    return maury("assess", "model.safetensors", *map(str, files), *words, cwd=folder)


def test_repeat_visits_are_scored_before_and_after(learned: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert learned.returncode == 0, learned.stderr
    assert "not read: visit-00-a.fits" in learned.stdout
    assert "59 spectra, 29 pairs of visits of 29 stars" in learned.stdout
    rows = [line.split() for line in learned.stdout.splitlines() if line.startswith(LABELS) and "+-" in line]
    assert [row[0] for row in rows] == [name for name in LABELS for _ in range(3)]
    for row in rows:
        after = float(row[-5])
        assert 0.2 < after < 3.0  # 1 within what 15 pairs can tell
    assert (folder / "plots/repeats.png").stat().st_size > 10_000


def test_the_written_model_has_the_new_errors(learned: subprocess.CompletedProcess[str], folder: Path, files: list[Path]) -> None:
    assert learned.returncode == 0, learned.stderr
    old, new = load_model(folder / "model.safetensors"), load_model(folder / "new.safetensors")
    assert isinstance(new.error_model, RepeatErrorModel)
    assert new.error_model.inputs == LABELS
    assert old.error_model is None
    assert new.provenance["errors"]["n_stars"] == 29
    assert new.provenance["errors"]["before"] == old.model_id
    assert new.model_id in learned.stdout


def test_degraded_spectra_are_compared_with_themselves(learned: subprocess.CompletedProcess[str]) -> None:
    rows = [line.split() for line in learned.stdout.splitlines() if line.startswith("FWHM = 6 Å")]
    assert [row[4] for row in rows] == list(LABELS)
    assert float(rows[2][-3]) < 0.0  # shallower lines look metal-poor


def test_known_labels_and_generated_spectra(folder: Path, files: list[Path]) -> None:
    words = ["--labels", "labels.csv", "--file-column", "spectrum", "--label-column", "logg=g", "--plots", "known"]
    done = maury("assess", "model.safetensors", *map(str, files), *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("teff   K     all") for line in done.stdout.splitlines())
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("all ") and "%" in line)
    assert int(row[1]) == 59
    shares = [float(word) for word in row[3::2]]
    assert shares == sorted(shares)
    assert shares[2] > 80.0  # S/N 25 to 90: noise of 1 to 4 %
    assert (folder / "known/emulator.png").stat().st_size > 10_000


def test_combine(folder: Path, files: list[Path], learned: subprocess.CompletedProcess[str]) -> None:
    assert learned.returncode == 0, learned.stderr
    assert maury("infer", "new.safetensors", *map(str, files), "-o", "visits.ecsv", cwd=folder).returncode == 0
    done = maury(
        "combine", "visits.ecsv", "--groups", "groups.csv", "--method", "inverse_variance", "-o", "stars.fits", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "60 visits of 30 stars, 29 of them with more than one usable visit" in done.stdout
    visits, stars = read_catalogue(folder / "visits.ecsv"), read_catalogue(folder / "stars.fits")
    assert list(stars["n_visits"][:2]) == [1, 2]
    assert stars["e_teff"][1] == pytest.approx(np.sum(np.asarray(visits["e_teff"][2:4]) ** -2.0) ** -0.5)
    assert stars["teff"][0] == pytest.approx(visits["teff"][1])
    assert str(stars["e_teff"].unit) == "K"
    combine(folder / "visits.ecsv", folder / "alone.fits", by="id")
    np.testing.assert_allclose(read_catalogue(folder / "alone.fits")["e_logg"], visits["e_logg"])


# -- what users get wrong -----------------------------------------------------------------------------------------------


def refused(error: type[MauryError], text: str, folder: Path, spectra: list[Path], **options: object) -> None:
    with pytest.raises(error, match=text):
        assess(folder / "model.safetensors", spectra, **options)  # type: ignore[arg-type]


def test_nothing_to_compare_with(folder: Path, files: list[Path]) -> None:
    refused(UsageError, "expected --groups, --labels, --resolving-power, --fwhm or --gap, got none", folder, files)
    refused(UsageError, "expected --groups together with --output", folder, files, fwhm=[5.0], output=folder / "x.safetensors")
    refused(UsageError, "above 0, got -5", folder, files, fwhm=[-5.0])
    refused(UsageError, "expected variant 'debiased' or 'as_published'", folder, files, fwhm=[5.0], variant="mine")


def test_tables_that_do_not_fit(folder: Path, files: list[Path], tmp_path: Path) -> None:
    groups = folder / "groups.csv"
    refused(
        ReadError, r"expected column 'star' in .*groups.csv, got file, group", folder, files, groups=groups, group_column="star"
    )
    refused(RecipeError, "got no such file", folder, files, groups=folder / "absent.csv")
    Table({"file": ["other.fits", "another.fits"], "group": [1, 1]}).write(tmp_path / "foreign.csv")
    refused(ReadError, "to name the spectra, got no match", folder, files[2:4], groups=tmp_path / "foreign.csv")
    Table({"file": [files[2].name] * 2, "group": [1, 2]}).write(tmp_path / "twice.csv")
    refused(ReadError, "expected one star for visit-01-a.fits", folder, files, groups=tmp_path / "twice.csv")
    refused(ReadError, r"expected columns teff, logg, fe_h .*--label-column logg=COLUMN", folder, files[2:4],
            labels=folder / "labels.csv", file_column="spectrum")  # fmt: skip
    refused(UsageError, "expected LABEL=COLUMN", folder, files[2:4], labels=folder / "labels.csv", label_column=["mass=m"])


def test_no_pairs_and_too_few(folder: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = folder / "groups.csv"
    refused(UsageError, "expected at least two usable visits of some star, got no pair", folder, files[1:7:2], groups=groups)
    refused(UsageError, r"repeat visits of at least 22 stars to learn errors, got 3", folder, files[2:8], groups=groups,
            output=tmp_path / "x.safetensors")  # fmt: skip
    assess(folder / "model.safetensors", files[2:8], groups=groups)
    printed = capsys.readouterr().out
    assert "too few stars to learn errors from" in printed
    assert "formal errors" in printed


def test_spectra_that_are_no_spectra(folder: Path, files: list[Path], tmp_path: Path) -> None:
    groups = folder / "groups.csv"
    refused(ReadError, "expected spectra that can be read, got none of 1", folder, [tmp_path / "absent.fits"], groups=groups)
    refused(ReadError, "expected spectra that can be read, got none of 1", folder, files[:1], groups=groups)


def test_combine_needs_to_know_what_a_star_is(folder: Path, files: list[Path], tmp_path: Path) -> None:
    assert maury("infer", "model.safetensors", *map(str, files[2:6]), "-o", str(tmp_path / "v.fits"), cwd=folder).returncode == 0
    visits = tmp_path / "v.fits"
    with pytest.raises(UsageError, match="expected --by or --groups, got both or none"):
        combine(visits, tmp_path / "s.fits")
    with pytest.raises(CatalogueError, match="expected column 'star' in the catalogue"):
        combine(visits, tmp_path / "s.fits", by="star")
    with pytest.raises(UsageError, match="expected method imig2022 or inverse_variance"):
        combine(visits, tmp_path / "s.fits", by="id", method="mean")
    shutil.copy(folder / "groups.csv", tmp_path / "g.fits")
    with pytest.raises(CatalogueError):
        combine(tmp_path / "g.fits", tmp_path / "s.fits", by="id")
