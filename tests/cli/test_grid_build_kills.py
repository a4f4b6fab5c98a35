"""``maury grid build`` killed with SIGKILL goes on where it was and ends with the same bytes as an undisturbed run."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import alive, contents, driver, recipe, until, write_library

from maury.recipes.grid_build import build_training_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def fresh() -> Any:
    """Processes that have imported everything already, so that a kill falls into the work and not into the imports."""
    context = multiprocessing.get_context("forkserver")
    rooms = ["maury.recipes.grid_build", "maury.prepare"]
    lazy = ["astropy.table", "pydantic.type_adapter", "scipy.interpolate", "scipy.ndimage", "scipy.stats", "zarr"]
    context.set_forkserver_preload([*rooms, *lazy, "pytest"])
    return context


@pytest.mark.parametrize("suffix", [".npz", ".zarr"])
def test_killed_at_random_moments_and_restarted_gives_the_same_bytes(fresh: Any, root: Path, tmp_path: Path, suffix: str) -> None:
    """Ten tries each, killed at any time from start to end: in chunks, between them, and while the set is put together."""
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    random = np.random.default_rng(3)

    def started(output: Path) -> Any:
        process = fresh.Process(target=build_training_set, args=(recipe(), root, output), kwargs={"rows_per_chunk": 4})
        process.start()
        return process

    undisturbed = tmp_path / f"undisturbed{suffix}"
    started(undisturbed).join()  # starts the server
    begin = time.monotonic()
    process = started(undisturbed)
    process.join()
    assert process.exitcode == 0
    duration = time.monotonic() - begin
    expected, stopped = contents(undisturbed), 0
    for attempt in range(10):
        output = tmp_path / f"{attempt}{suffix}"
        process = started(output)
        process.join(random.uniform(0.0, duration))
        process.kill()
        process.join()
        stopped += process.exitcode == -signal.SIGKILL
        assert not output.exists() or contents(output) == expected  # whole or absent
        process = started(output)
        process.join()
        assert process.exitcode == 0
        assert contents(output) == expected
        assert not list(tmp_path.glob("*.building"))
    assert stopped >= 5  # most kills came before the end


def test_a_killed_build_leaves_no_worker_and_goes_on_with_its_chunks(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.npz"
    process = subprocess.Popen(driver(tmp_path, root, output), start_new_session=True)
    chunks = tmp_path / "t.npz.building/chunks"
    until(lambda: len(list(chunks.glob("[0-9]*.npz"))) >= 3)
    process.kill()
    process.wait()
    until(lambda: not alive(process.pid))
    made = len(list(chunks.glob("[0-9]*.npz")))
    done: list[int] = []
    build_training_set(recipe(), root, output, rows_per_chunk=1, progress=lambda _, n, __: done.append(n))
    assert done[0] == made  # what was finished was not made again
    build_training_set(recipe(), root, tmp_path / "whole.npz", rows_per_chunk=1)
    assert contents(output) == contents(tmp_path / "whole.npz")
