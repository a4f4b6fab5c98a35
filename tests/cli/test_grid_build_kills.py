"""``maury grid build`` killed with SIGKILL goes on where it was and ends with the same bytes as an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
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


ROWS, CHUNKS = 4, 12  # 48 spectra
WRITING = 900  # events: np.savez of a chunk has more


class Kill:
    """SIGKILL at the n-th call or return of a function, Python's or C's, in any thread; counting the same events in every run."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen = at, 0

    def __call__(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def counted_build(root: Path, output: Path, at: int | None, counted: Any) -> None:
    """A build that dies at an event, or tells how many there are up to the end of each chunk, and in all."""
    kill = Kill(at)

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "build" and done:
            counted[done // ROWS - 1] = kill.seen

    threading.setprofile(kill)  # zarr writes in threads of its own
    sys.setprofile(kill)
    build_training_set(recipe(), root, output, rows_per_chunk=ROWS, progress=progress)
    sys.setprofile(None)
    threading.setprofile(None)  # type: ignore[arg-type]
    counted[CHUNKS] = kill.seen


@pytest.mark.parametrize("suffix", [".npz", ".zarr"])
def test_killed_at_random_moments_and_restarted_gives_the_same_bytes(fresh: Any, root: Path, tmp_path: Path, suffix: str) -> None:
    """Ten tries each, killed anywhere from start to end: in chunks, between them, and while the set is put together.

    Moments are counted in function calls, so that every kill comes before the end on any machine: four at random until all chunks
    are made, three among the last calls of random chunks, which write their files, and three while the set is put together.
    """
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    random, counted = np.random.default_rng(3), fresh.Array("q", CHUNKS + 1, lock=False)

    def run(output: Path, at: int | None = None) -> int:
        process = fresh.Process(target=counted_build, args=(root, output, at, counted))
        process.start()
        process.join()
        assert process.exitcode is not None
        return int(process.exitcode)

    undisturbed = tmp_path / f"undisturbed{suffix}"
    assert run(undisturbed) == 0
    (*chunk_ends, end), expected, left = counted, contents(undisturbed), []
    anywhere = (np.arange(4) + random.random(4)) / 4 * chunk_ends[-1]
    writing = random.choice(chunk_ends, 3, replace=False) - random.integers(50, WRITING, 3)
    # the last hundredth of the end is spared: counts of two runs may differ by a few events
    assembling = chunk_ends[-1] + 0.99 * (np.arange(3) + random.random(3)) / 3 * (end - chunk_ends[-1])
    moments = np.concatenate([anywhere, writing, assembling])
    for attempt, moment in enumerate(moments.astype(int).tolist()):
        output = tmp_path / f"{attempt}{suffix}"
        assert run(output, 1 + moment) == -signal.SIGKILL
        assert not output.exists() or contents(output) == expected  # whole or absent
        left.append(len(list(tmp_path.glob("*.building/chunks/[0-9]*.npz"))))
        assert run(output) == 0
        assert contents(output) == expected
        assert not list(tmp_path.glob("*.building"))
    assert min(left) == 0 < len(set(left) - {0, CHUNKS})
    assert left[7] == CHUNKS  # before, among and after the chunks


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
