"""Many trainings at once, over processes of this machine or of a Dask cluster; knows neither data nor networks.

A task that raises is a failure with its reason, never the end of the others. A worker process that dies (a kill, no memory left)
is replaced and its task done by another; a task during which workers die again and again becomes a failure, too. Tasks are asked
for one after another, when there is a worker for them, so that what is done next may depend on what came out so far.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from maury.errors import MauryError, UsageError
from maury.files import one_line

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

_MOST_DEATHS = 3  # of worker processes during one task
_ANSWER_SECONDS = 30  # that a scheduler and its first worker have to answer
_START_SECONDS = 120  # that processes of this machine have to start
_ALONE_SECONDS = 60  # that a sweep waits for new workers when the last is gone
_LOOK_SECONDS = 2  # between two looks whether workers have come
_CLOSE_SECONDS = 5  # that workers have to end by themselves; they are killed then
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
"""For glibc. Dask has workers give freed memory back above 64 kB: half of a training's time went to getting it again."""

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
    ready : called on each worker of a scheduler before it gets work; pickled; raises the MauryError that says what it lacks.
    """

    processes: int = 1
    scheduler: str | None = None
    folder: Path = Path()
    ready: Callable[[], None] | None = None

    def check(self) -> None:
        """Raise the error that :meth:`Sweep.run` would raise, without any task; a matter of seconds."""
        if self.scheduler is not None:
            with _client(self):
                pass
        elif self.processes > 1:
            _require_dask()


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
            crew = _Crew(client)
            self._fill(crew, running, finished)
            while running:
                with suppress(Empty):
                    future = finished.get(timeout=_LOOK_SECONDS)
                    task = running.pop(future)
                    self.done(task, _outcome(future))
                    future.release()
                self._fill(crew, running, finished)  # for the worker that is free now, and for those that have come

    def _fill(self, crew: _Crew, running: dict[Future[Result], Task], finished: SimpleQueue[Future[Result]]) -> None:
        """A task for each worker that has none."""
        room = max(1, crew.count())
        while len(running) < room and (task := self.next_task()) is not None:
            future = crew.client.submit(self.function, task, pure=False)
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
        raise _scheduler_gone()
    failure = future.exception()
    if isinstance(failure, KilledWorker):
        return Failure("its worker process died again and again; is there enough memory?")
    assert failure is not None
    return Failure(reason_of(failure))


def _scheduler_gone() -> UsageError:
    return UsageError(
        "expected a Dask scheduler that stays to the end, got one that is gone; repeat the command: it goes on where it was"
    )


class _Crew:
    """Counts the workers of a client, and does not wait forever for new ones."""

    def __init__(self, client: Client) -> None:
        self.client, self._last_seen = client, time.monotonic()

    def count(self) -> int:
        """Tasks that they do at the same time."""
        try:
            found: int = sum(self.client.nthreads().values())
        except (OSError, TimeoutError):
            raise _scheduler_gone() from None
        now = time.monotonic()
        if found:
            self._last_seen = now
        elif now - self._last_seen > _ALONE_SECONDS:
            raise UsageError(
                f"expected workers of the sweep, got none any more for {_ALONE_SECONDS} s; start some and repeat the command: it "
                "goes on where it was"
            )
        return found


# -- the cluster --------------------------------------------------------------------------------------------------------------


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    """A client of the scheduler, or of a cluster of this machine that ends with it."""
    _require_dask()
    if workers.scheduler is not None:
        with _remote(workers.scheduler, workers) as client:
            yield client
        return
    with _local(workers.processes) as client:
        yield client


def _require_dask() -> None:
    if find_spec("distributed") is None:
        raise UsageError(
            "expected Dask for several processes, got none; run: python3 -m pip install 'maury[sweep]', or take one process"
        )


@contextmanager
def _local(processes: int) -> Iterator[Client]:
    """A client of processes that end with it."""
    import distributed

    try:
        cluster = _cluster(processes)
    except (RuntimeError, TimeoutError) as failure:
        raise _not_started(processes, reason_of(failure)) from None
    client = distributed.Client(cluster, set_as_default=False)
    try:
        try:
            client.wait_for_workers(processes, timeout=_START_SECONDS)
        except TimeoutError:
            raise _not_started(processes, f"fewer within {_START_SECONDS} s") from None
        yield client
    finally:
        client.close(timeout=_CLOSE_SECONDS)
        cluster.close(timeout=_CLOSE_SECONDS)


def _not_started(processes: int, what: str) -> UsageError:
    return UsageError(
        f"expected {processes} worker processes to start, got {what}; take fewer, and in a script of your own call it below "
        "if __name__ == '__main__'"
    )


def _cluster(processes: int) -> LocalCluster:
    import dask
    import distributed

    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ", {}), **_KEEP_MEMORY}
    settings = {"distributed.scheduler.allowed-failures": _MOST_DEATHS - 1, "distributed.nanny.pre-spawn-environ": environment}
    # --processes decides how many; a limit on memory would count the mapped training set once per worker
    with dask.config.set(settings), _interrupts_held():
        return distributed.LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )


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
def _remote(address: str, workers: Workers) -> Iterator[Client]:
    from distributed.utils import silence_logging_cmgr

    with silence_logging_cmgr(logging.CRITICAL):  # what goes wrong is said in a sentence, not in Dask's tracebacks
        client = _connected(address)
        try:
            try:
                client.wait_for_workers(1, timeout=_ANSWER_SECONDS)
            except TimeoutError:
                raise UsageError(
                    f"expected workers of the Dask scheduler {address}, got none within {_ANSWER_SECONDS} s; start `dask worker`"
                ) from None
            _check_workers(client, workers)
            yield client
        finally:
            client.close(timeout=_CLOSE_SECONDS)


def _connected(address: str) -> Client:
    import distributed

    try:
        return distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as failure:
        raise UsageError(
            f"expected a Dask scheduler at {address}, got {one_line(failure)}; check that `dask scheduler` runs there"
        ) from None


def _check_workers(client: Client, workers: Workers) -> None:
    try:
        seen = client.run(_sees, str(workers.folder), workers.ready)
    except MauryError:
        raise
    except Exception as failure:
        raise UsageError(
            f"expected maury on every worker of the Dask scheduler, got {reason_of(failure)}; install the same version there"
        ) from None
    blind = [address for address, sees in seen.items() if not sees]
    if blind:
        raise UsageError(
            f"expected workers that see the folder {workers.folder}, got one that does not, {blind[0]}; put it on a disk that "
            "all share"
        )


def _sees(folder: str, ready: Callable[[], None] | None) -> bool:
    """On a worker: whether the folder is there, and whether all else is."""
    if ready is not None:
        ready()
    return Path(folder).is_dir()
