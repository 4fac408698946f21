"""Jobs side by side, in processes of their own, that tell how far they are."""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Final, Protocol, TypeVar

LOOK_S: Final = 0.1
YOUNG: Final = 50_000
"""Objects that are made before the collector looks: a fold makes many, and no circles."""

ProgressCallback = Callable[[int], None]
Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Job(Protocol[Result_co]):
    """Something to be done elsewhere; it goes there as it is, so it must be plain values."""

    def __call__(self, told: ProgressCallback) -> Result_co:
        """Do it; tell how much more is done."""


_TELL: list[Any] = []
"""The way back, in a process of the pool. What is put there is in the pipe when `put` returns: a job's counts are
there before its result is, which a queue that a thread empties does not promise."""


def side_by_side(jobs: Sequence[Job[Result]], processes: int, told: ProgressCallback) -> list[Result]:
    """Return what each job comes to, in their order; one process is this one. The first that fails ends all."""
    if processes <= 1 or len(jobs) <= 1:
        return [job(told) for job in jobs]
    context = multiprocessing.get_context("spawn")
    way = context.SimpleQueue()
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, _begin, (way,))
    try:
        futures = [pool.submit(_done, job) for job in jobs]
        _watch(futures, way, told)
        return [future.result() for future in futures]
    except BaseException:
        for process in list(pool._processes.values()):  # noqa: SLF001 nobody waits for hours of work in vain
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _drain(way, told)


def _watch(futures: Sequence[Future[Any]], way: Any, told: ProgressCallback) -> None:
    """Return when all are done, or one has failed."""
    left = set(futures)
    while left:
        done, left = wait(left, LOOK_S, FIRST_COMPLETED)
        _drain(way, told)
        for future in done:
            future.result()


def _drain(way: Any, told: ProgressCallback) -> None:
    while not way.empty():
        told(way.get())


def _begin(way: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    calm()
    _TELL.append(way)


def calm() -> None:
    """Let the garbage collector look seldom, and never at what is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)


def _done(job: Job[Result]) -> Result:
    return job(_TELL[0].put)
