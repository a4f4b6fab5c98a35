"""``maury sweep`` over processes: workers and sweeps that are killed change nothing in the end; its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from build_sample import alive, until
from distributed import Client
from sweep_sample import write_library, write_recipe
from typer.testing import CliRunner

from maury.cli import app, main
from maury.errors import RecipeError, UsageError
from maury.recipes import load_recipe
from maury.recipes.run import check_device
from maury.recipes.sweep import MODEL_FILE, SweepResult, SweepState, run_sweep
from maury.store import read_model_file
from maury.train.sweep import Failure, Sweep, Workers

N_NETWORKS = 6
DASK = [sys.executable, "-m", "dask"]
MAURY = [
    sys.executable,
    "-c",
    # a shell's background jobs, and what they start, do not hear Ctrl-C
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from maury.cli import main; main()",
    "sweep",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a recipe of six networks that take a moment each."""
    folder = write_library(tmp_path_factory.mktemp("data"))
    labels = [["teff"], ["logg"], ["teff", "logg"]]
    file = write_recipe(folder / "small.toml", architectures=["small"], joined=[], labels=labels, repeats=2)
    text = file.read_text().replace("max_epochs = 2", "max_epochs = 25\npatience = 0").replace("[64, 32]", "[64]")
    file.write_text(text.split("[[sweep.window]]\nstart = 5120")[0])
    return folder


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """The sweep in one process that nobody disturbs."""
    result = run_sweep(load_recipe(root / "small.toml"), root, tmp_path_factory.mktemp("alone") / "sweep")
    assert len(result.rows) == N_NETWORKS
    return result


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """All rows but for the time that they took."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))}
    return {name: row | {"seconds": 0} for name, row in found.items()}


def check_like(alone: SweepResult, folder: Path) -> None:
    rows = rows_of(folder)
    assert len(rows) == N_NETWORKS
    for row in alone.rows:
        assert rows[row.trial.name]["validation_loss"] == row.validation_loss
        assert {name: score["mae"] for name, score in rows[row.trial.name]["scores"].items()} == {
            name: score.mae for name, score in row.all_scores.items()
        }
    assert read_model_file(folder / MODEL_FILE)[1]["model_id"] == alone.model_id


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """The address of a scheduler and two workers as a user starts them."""
    file = folder / "scheduler.json"
    options = {"cwd": folder, "start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)], **options
    )
    started = [scheduler]
    try:
        until(lambda: file.exists() and file.read_text().endswith("}"))  # it is not written at once
        address = json.loads(file.read_text())["address"]
        two = ["--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / "scratch")]
        started.append(subprocess.Popen([*DASK, "worker", address, *two], **options))
        yield address
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_worker_of_a_dask_cluster_is_killed(root: Path, alone: SweepResult, tmp_path: Path) -> None:
    killed: list[int] = []
    with cluster(tmp_path) as address:

        def kill(state: SweepState) -> None:
            with Client(address, set_as_default=False) as client:
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                if busy and not killed:
                    killed.extend(client.run(os.getpid, workers=busy[:1]).values())
                    os.kill(killed[0], signal.SIGKILL)

        run_sweep(load_recipe(root / "small.toml"), root, tmp_path / "sweep", Workers(scheduler=address), watch=kill)
        assert len(killed) == 1
        with pytest.raises(UsageError, match="expected workers that see the folder /nowhere, got one that does not, tcp://"):
            deaths([], Workers(scheduler=address, folder=Path("/nowhere")))
        device = partial(check_device, load_recipe(root / "small.toml"), "cuda:99")
        with pytest.raises(RecipeError, match="expected a GPU for the device 'cuda:99', got none that PyTorch can use"):
            Workers(scheduler=address, folder=tmp_path, ready=device).check()
    check_like(alone, tmp_path / "sweep")


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_a_failure() -> None:
    """A signal that is ignored is a task, the one that can not be is the end of a worker."""
    done = deaths([signal.SIGURG, signal.SIGKILL, signal.SIGURG], Workers(2))
    assert done == {
        signal.SIGURG: [None, None],
        signal.SIGKILL: [Failure("its worker process died again and again; is there enough memory?")],
    }


def deaths(signals: list[signal.Signals], workers: Workers) -> dict[signal.Signals, list[object]]:
    """What comes out of workers that get these signals while they work."""
    found: dict[signal.Signals, list[object]] = {}
    tasks = iter(signals)
    sweep = Sweep(lambda: next(tasks, None), signal.raise_signal, lambda task, out: found.setdefault(task, []).append(out))
    sweep.run(workers)
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["kill", "ctrl_c"])
def test_a_sweep_that_is_ended_goes_on(end: signal.Signals, root: Path, alone: SweepResult, tmp_path: Path) -> None:
    command = [*MAURY, str(root / "small.toml"), "--data", str(root), "-o", str(tmp_path / "sweep")]
    process = subprocess.Popen([*command, "-j", "2"], start_new_session=True, stderr=subprocess.PIPE, text=True)
    runs = tmp_path / "sweep" / "runs"
    until(lambda: len(list(runs.glob("[!.]*.json"))) >= 1 or process.poll() is not None, 120)
    if end == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, end)  # as a terminal does
    _, error = process.communicate(timeout=60)
    until(lambda: not alive(process.pid), 60)  # no worker is left behind
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert error.startswith(f"maury: what is finished stays in {tmp_path / 'sweep'}; the same command goes on there\n")
        assert "Traceback" not in error
    run_sweep(load_recipe(root / "small.toml"), root, tmp_path / "sweep")
    check_like(alone, tmp_path / "sweep")


# -- the command line ---------------------------------------------------------------------------------------------------------


def test_tables_and_files(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "small.toml")
    command = ["sweep", str(recipe), "--data", str(root), "-o", str(tmp_path / "sweep"), "-j", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    for text in (
        "24 networks, 0 failed",
        "accepted networks (as Passegger+2020, Table 3; the ensemble takes the reading 'mean')",
        "mean errors by single or joint (A, B): median (lowest to highest)",
        "ensemble on the report spectra, which neither trained nor chose a network",
    ):
        assert text in done.output
    assert {path.name for path in (tmp_path / "sweep").iterdir()} >= {"runs.csv", "runs.ecsv", "runs.png", MODEL_FILE}
    again = CliRunner().invoke(app, ["sweep", str(recipe), "-o", str(tmp_path / "sweep"), "--table"])
    assert again.output == done.output


def test_nothing_is_accepted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "small.toml", thresholds={"teff": 1e-3, "logg": 1e-6}, architectures=["small"])
    words = [
        "maury",
        "sweep",
        str(recipe),
        "--data",
        str(root),
        "-o",
        str(tmp_path / "sweep"),
        "-j",
        "1",
        "--window",
        "5120-5200",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert "3 networks, 0 failed" in out
    assert error.startswith("maury: expected networks with errors below the thresholds, got none of 3; train more, or loosen")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--number", "5"], "expected no --number for sweep.sampler = 'all', which trains every combination"),
        (["--table", "--fresh"], "expected --table alone, got --fresh or --retry beside it"),
        (["--quick"], "expected a recipe with a table [quick], got 'small' without"),
        (["--device", "tpu"], "expected the device cpu or cuda"),
        (["--window", "1-2"], "expected windows among 5010-5090, 5120-5200, got '1-2'; correct --window"),
        (["--window", "1-2", "--table"], "expected windows among 5010-5090, 5120-5200, got '1-2'; correct --window"),
    ],
)
def test_wrong_options(options: list[str], sentence: str, root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "small.toml")
    ended = CliRunner().invoke(app, ["sweep", str(recipe), "--data", str(root), "-o", str(tmp_path / "sweep"), *options])
    assert sentence in str(ended.exception)


def test_ctrl_c_with_fresh_does_not_ask_to_delete_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maury.recipes.sweep.run_sweep", interrupted)
    ended = CliRunner().invoke(app, ["sweep", str(root / "small.toml"), "-o", str(tmp_path / "sweep"), "--fresh"])
    assert "the same command without --fresh goes on there" in ended.output


def test_no_scheduler_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maury.train.sweep._ANSWER_SECONDS", 1)
    recipe = write_recipe(tmp_path / "small.toml")
    command = ["sweep", str(recipe), "--data", str(root), "-o", str(tmp_path / "sweep"), "--scheduler", "tcp://127.0.0.1:9"]
    ended = CliRunner().invoke(app, command)
    assert str(ended.exception).startswith("expected a Dask scheduler at tcp://127.0.0.1:9, got ")
    assert list((tmp_path / "sweep" / "data").iterdir()) == []  # said before the spectra are prepared
