"""Many trainings at once, over processes of this machine or of a Dask cluster; knows neither data nor networks.

A task that raises is a failure with its reason, never the end of the others. A worker process that dies (a kill, no memory left)
is replaced and its task done by another; a task during which workers die again and again becomes a failure, too. Tasks are asked
for one after another, when there is a worker for them, so that what is done next may depend on what came out so far.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from maury.errors import MauryError, UsageError
from maury.files import one_line

if TYPE_CHECKING:
    from distributed import Client, Future

_MOST_DEATHS = 3  # of worker processes during one task
_ANSWER_SECONDS = 30  # that a scheduler and its first worker have to answer
_LOOK_SECONDS = 2  # between two looks whether workers have come
_CLOSE_SECONDS = 5  # that workers have to end by themselves; they are killed then

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, in one line."""

    reason: str


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Parameters
    ----------
    processes : of this machine; 1: this process itself.
    scheduler : address of a Dask scheduler whose workers do it instead, such as "tcp://10.0.0.1:8786".
    folder : that all workers must see; of a scheduler on other machines too.
    """

    processes: int = 1
    scheduler: str | None = None
    folder: Path = Path()


@dataclass(frozen=True)
class Sweep(Generic[Task, Result]):
    """What is to be done.

    Parameters
    ----------
    next_task : gives the next task; None: there is none, or none before a task that is under way has ended.
    function : task -> result; both, and itself, are pickled to the worker.
    done : called here with each task and its result, or why there is none; before the next task is asked for.
    """

    next_task: Callable[[], Task | None]
    function: Callable[[Task], Result]
    done: Callable[[Task, Result | Failure], None]

    def run(self, workers: Workers) -> None:
        """Do all tasks.

        Raises
        ------
        UsageError
            If Dask is not installed, or the scheduler does not answer, has no workers, or these do not see package and folder.
        """
        if workers.processes > 1 or workers.scheduler is not None:
            self._on_cluster(workers)
            return
        while (task := self.next_task()) is not None:
            self.done(task, self._try(task))

    def _try(self, task: Task) -> Result | Failure:
        try:
            return self.function(task)
        except Exception as failure:
            return Failure(reason_of(failure))

    def _on_cluster(self, workers: Workers) -> None:
        finished: SimpleQueue[Future[Result]] = SimpleQueue()
        running: dict[Future[Result], Task] = {}
        with _client(workers) as client:
            self._fill(client, running, finished)
            while running:
                with suppress(Empty):
                    future = finished.get(timeout=_LOOK_SECONDS)
                    task = running.pop(future)
                    self.done(task, _outcome(future))
                    future.release()
                self._fill(client, running, finished)  # for the worker that is free now, and for those that have come

    def _fill(self, client: Client, running: dict[Future[Result], Task], finished: SimpleQueue[Future[Result]]) -> None:
        """A task for each worker that has none."""
        room = max(1, sum(client.nthreads().values()))
        while len(running) < room and (task := self.next_task()) is not None:
            future = client.submit(self.function, task, pure=False)
            running[future] = task
            future.add_done_callback(finished.put)


def reason_of(failure: BaseException) -> str:
    """An exception in one line: the sentence of an error of ours, of others with their kind."""
    return str(failure) if isinstance(failure, MauryError) else f"{type(failure).__name__}: {one_line(failure)}"


def _outcome(future: Future[Result]) -> Result | Failure:
    from distributed import KilledWorker

    if future.status == "finished":
        result: Result = future.result()
        return result
    if future.status != "error":
        raise UsageError(
            "expected a Dask scheduler that stays to the end, got one that is gone; repeat the command: it goes on where it was"
        )
    failure = future.exception()
    if isinstance(failure, KilledWorker):
        return Failure("its worker process died again and again; is there enough memory?")
    assert failure is not None
    return Failure(reason_of(failure))


# -- the cluster --------------------------------------------------------------------------------------------------------------


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    """A client of the scheduler, or of a cluster of this machine that ends with it."""
    try:
        import dask
        import distributed
    except ImportError:
        raise UsageError(
            "expected Dask for several processes, got none; run: python3 -m pip install 'maury[sweep]', or take one process"
        ) from None
    if workers.scheduler is not None:
        with _remote(workers.scheduler, workers.folder) as client:
            yield client
        return
    # --processes decides how many; a limit on memory would count the mapped training set once per worker
    with dask.config.set({"distributed.scheduler.allowed-failures": _MOST_DEATHS - 1}), _interrupts_held():
        cluster = distributed.LocalCluster(
            n_workers=workers.processes,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    client = distributed.Client(cluster, set_as_default=False)
    try:
        client.wait_for_workers(workers.processes)
        yield client
    finally:
        client.close(timeout=_CLOSE_SECONDS)
        cluster.close(timeout=_CLOSE_SECONDS)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Threads and processes started meanwhile never see Ctrl-C (they inherit this); this thread sees it at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # the first start of a process would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _remote(address: str, folder: Path) -> Iterator[Client]:
    import distributed

    try:
        client = distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as failure:
        raise UsageError(
            f"expected a Dask scheduler at {address}, got {one_line(failure)}; check that `dask scheduler` runs there"
        ) from None
    try:
        try:
            client.wait_for_workers(1, timeout=_ANSWER_SECONDS)
        except TimeoutError:
            raise UsageError(
                f"expected workers of the Dask scheduler {address}, got none within {_ANSWER_SECONDS} s; start `dask worker`"
            ) from None
        _check_workers(client, folder)
        yield client
    finally:
        client.close(timeout=_CLOSE_SECONDS)


def _check_workers(client: Client, folder: Path) -> None:
    try:
        seen = client.run(_sees, str(folder))
    except Exception as failure:
        raise UsageError(
            f"expected maury on every worker of the Dask scheduler, got {reason_of(failure)}; install the same version there"
        ) from None
    blind = [address for address, sees in seen.items() if not sees]
    if blind:
        raise UsageError(
            f"expected workers that see the folder {folder}, got one that does not, {blind[0]}; put it on a disk that all share"
        )


def _sees(folder: str) -> bool:
    """On a worker: whether the folder is there."""
    return Path(folder).is_dir()
