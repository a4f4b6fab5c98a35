"""``maury grid build``: neither processes, nor chunks, nor kills, nor other builds, nor a full disk change what it ends with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import LIBRARY, RECIPE, build, contents, driver, recipe, write_library

from maury.errors import UsageError
from maury.grids.lock import alone_in
from maury.recipes.grid_build import build_training_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("grid"))


def test_processes_do_not_matter(root: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        build_training_set(recipe(), root, tmp_path / f"{number}.npz", processes=number, rows_per_chunk=7)
    assert contents(tmp_path / "1.npz") == contents(tmp_path / "2.npz")


def test_chunks_do_not_matter_but_for_rounding(root: Path, tmp_path: Path) -> None:
    """Batches of another size round differently: by less than 1e-5, where noise is 1e-2."""
    one = build(root, tmp_path / "1.npz", rows_per_chunk=48)
    two = build(root, tmp_path / "2.npz", rows_per_chunk=5)
    assert np.allclose(one["flux"], two["flux"], atol=1e-5)
    assert np.array_equal(one["labels"], two["labels"])


def test_work_of_another_build_or_process_is_not_touched(root: Path, tmp_path: Path) -> None:
    from maury.grids.chunks import chunk_folder

    output = tmp_path / "t.npz"
    labels = np.zeros((3, 1))
    first, second = ({"seed": 1}, {"seed": 2})
    with (
        chunk_folder(output, first, labels, 2),
        pytest.raises(UsageError, match="got another build at work in it; wait for its end"),
        chunk_folder(output, first, labels, 2),
    ):
        pass
    with chunk_folder(output, second, labels, 2) as folder:  # nothing was made of the first: nothing is lost
        folder.make(0, lambda row, values: {"row": values})
    with (
        pytest.raises(UsageError, match="to belong to this build, got one that differs in seed; delete the folder"),
        chunk_folder(output, first, labels, 2),
    ):
        pass
    with chunk_folder(output, second, labels, 2) as folder:
        assert folder.missing() == [1]
        (folder.path / "plan.json").unlink()
    with chunk_folder(output, first, labels, 2) as folder:  # chunks that nobody can say what they are of are made again
        assert folder.missing() == [0, 1]


def test_a_recipe_changed_between_kill_and_restart_is_named_by_its_keys(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "t.npz"
    with monkeypatch.context() as patched:
        patched.setattr("maury.recipes.grid_build.write_training_set", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_training_set(recipe(), root, output)
    with pytest.raises(UsageError, match=r"one that differs in augment\.dropped, seed; delete the folder, or repeat the command"):
        build_training_set(recipe(seed=8, augment=RECIPE["augment"] | {"dropped": 0.1}), root, output)
    fresh = recipe(grid=RECIPE["grid"] | {"library": LIBRARY | {"resolving_power": 70_000}})
    with pytest.raises(UsageError, match=r"one that differs in grid\.library\.resolving_power; delete"):
        build_training_set(fresh, root, output)
    build_training_set(recipe(), root, output)
    build_training_set(recipe(), root, tmp_path / "whole.npz")
    assert contents(output) == contents(tmp_path / "whole.npz")


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_lock_that_its_owner_deleted_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before the first build deleted it, locked after that: a third build would find another file, and lock it too."""
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock

    def late(*words: Any) -> None:
        (tmp_path / "lock").unlink()
        lock(*words)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UsageError, match="got another build at work in it; wait for its end"), alone_in(tmp_path, "build"):
        pass


def test_two_builds_of_one_output_at_the_same_time(root: Path, tmp_path: Path) -> None:
    """One does the work, others are told so or come late and do it again; nothing is mixed and nothing is left over."""
    output = tmp_path / "t.npz"
    words = driver(tmp_path, root, output)
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in running]
    assert any(code == 0 for _, code in ends)
    for said, code in ends:
        assert code == 0 or (code == 2 and said.count("\n") == 1 and "got another build at work in it" in said)
    build_training_set(recipe(), root, tmp_path / "whole.npz", rows_per_chunk=1)
    assert contents(output) == contents(tmp_path / "whole.npz")
    assert not list(tmp_path.glob("*.building"))


def test_a_full_disk_is_a_sentence_and_the_build_goes_on_after_it(root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: 20 kB hold the plan, not a chunk; 60 kB a chunk, not the whole."""
    resource = pytest.importorskip("resource")
    output, before = tmp_path / "t.npz", resource.getrlimit(resource.RLIMIT_FSIZE)
    for size, where in ((20_000, "000000.npz"), (60_000, "t.npz")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(UsageError, match=f"expected to write .*{where}, got File too large; check space and permissions"):
                build_training_set(recipe(), root, output, rows_per_chunk=16)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not output.exists()
        assert not [file for file in tmp_path.rglob(".*") if file.is_file()]
    build_training_set(recipe(), root, output, rows_per_chunk=16)
    assert output.exists()
