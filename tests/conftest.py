"""Fixtures of all tests: where the real data are, and a guard on global state."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real spectra (environment variable MAURY_DATA, default ../shared/data); the test is skipped without it."""
    folder = Path(os.environ.get("MAURY_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MAURY_DATA")
    return folder.resolve()


@pytest.fixture(autouse=True)
def global_state_stays() -> Iterator[None]:
    """A test that changes numpy's error handling, numpy's or torch's global random state, or torch's global settings fails."""
    errors, state, networks = np.geterr(), np.random.get_state()[1][:4].tolist(), _torch_state()
    yield
    assert np.geterr() == errors
    assert np.random.get_state()[1][:4].tolist() == state
    assert networks is None or networks == _torch_state()


def _torch_state() -> tuple[object, ...] | None:
    """Threads, default type and global random state of torch, where a test has imported it already."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return torch.get_num_threads(), torch.get_default_dtype(), torch.random.get_rng_state().numpy().tobytes()


@pytest.fixture(autouse=True, scope="session")
def warnings_are_errors() -> None:
    """Warnings raised in threads and subprocesses count too."""
    warnings.simplefilter("error")
