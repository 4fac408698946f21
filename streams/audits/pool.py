"""Runs jobs in parallel processes that report their progress."""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Final, Protocol, TypeVar

LOOK_S: Final = 0.1
YOUNG: Final = 50_000
"""Garbage collection threshold: a fold allocates many objects, but no reference cycles."""

ProgressCallback = Callable[[int], None]
Done_co = TypeVar("Done_co", covariant=True)
Done = TypeVar("Done")


class Job(Protocol[Done_co]):
    """A job for another process; it must pickle."""

    def __call__(self, on_progress: ProgressCallback) -> Done_co:
        """Do the work; call `on_progress` with the amount of newly completed work."""


_PROGRESS: list[Any] = []
"""The progress queue, in a process of the pool. `put` returns when the count is in the pipe, so a job's counts arrive
before its result; a queue flushed by a thread does not guarantee that."""


def side_by_side(jobs: Sequence[Job[Done]], processes: int, on_progress: ProgressCallback) -> list[Done]:
    """Return the jobs' results in order. One process means this one. The first failure stops all jobs."""
    if processes <= 1 or len(jobs) <= 1:
        return [job(on_progress) for job in jobs]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, _begin, (queue,))
    try:
        futures = [pool.submit(_done, job) for job in jobs]
        _watch(futures, queue, on_progress)
        return [future.result() for future in futures]
    except BaseException:
        for process in list(pool._processes.values()):  # noqa: SLF001 do not wait for hours of useless work
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _drain(queue, on_progress)


def _watch(futures: Sequence[Future[Any]], queue: Any, on_progress: ProgressCallback) -> None:
    """Return when all jobs are done; raise if one failed."""
    left = set(futures)
    while left:
        done, left = wait(left, LOOK_S, FIRST_COMPLETED)
        _drain(queue, on_progress)
        for future in done:
            future.result()


def _drain(queue: Any, on_progress: ProgressCallback) -> None:
    while not queue.empty():
        on_progress(queue.get())


def _begin(queue: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    calm()
    _PROGRESS.append(queue)


def calm() -> None:
    """Make garbage collection rare, and exclude all objects that exist now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)


def _done(job: Job[Done]) -> Done:
    return job(_PROGRESS[0].put)
