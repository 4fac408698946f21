"""Runs a Faust application without `faust worker`: own event loop, signal handling and exit codes."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import faust

from schemas.errors import SizingError
from streams.kafka.connection import refusal

STOP_TIMEOUT_S = 25.0
"""Less than the 30 s that Kubernetes allows; enough for a last checkpoint of a thousand portfolios."""
LEAVE_S = 1.0
"""When Faust reports that it has stopped, the consumer's thread is still leaving the group. A crashed worker has the
same time to leave."""

SWITCH_S = 0.0005
"""Thread switch interval. With Python's 5 ms, the consumer's thread waits that long after every network call."""

logger = logging.getLogger(__name__)


def _tune() -> None:
    """Shorten the thread switch interval; exempt everything loaded so far from garbage collection."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


async def _nothing() -> None:
    """Do nothing."""


async def serve(
    app: faust.App,
    *,
    stop: asyncio.Event | None = None,
    before_stop: Callable[[], Awaitable[None]] = _nothing,
) -> int:
    """Run the application until SIGINT, SIGTERM, `stop`, or a crash; return the exit code.

    0 is a clean stop: `before_stop` (a last checkpoint) was awaited and the group was left. Otherwise the error was
    logged, and the caller must call `leave` before its loop ends: after a crash Faust's tasks may hang forever when
    stopped, and nothing is lost by not stopping them.
    """
    _tune()
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        reason = await _until_over(app, stop)
        if reason is None:
            reason = await _stopped(app, before_stop)
        else:
            await _part(app)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if reason is None:
        return 0
    reason = refusal(reason) or reason
    _report(reason)
    return reason.exit_code if isinstance(reason, SizingError) else 1


async def _until_over(app: faust.App, stop: asyncio.Event) -> BaseException | None:
    """Start the application; return None when it is asked to stop, or why it crashed."""
    start = asyncio.ensure_future(app.start())
    ends = {asyncio.ensure_future(waiting) for waiting in (stop.wait(), app._crashed.wait())}  # noqa: SLF001 mode's own
    await asyncio.wait({start, *ends}, return_when=asyncio.FIRST_COMPLETED)
    if not (start.done() and start.exception()):
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in ends:
        task.cancel()
    failed = start.exception() if start.done() else None
    if not start.done():
        start.cancel()
    return failed or crash_reason(app)


async def _stopped(app: faust.App, before_stop: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Stop the application; return the error if that failed."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await before_stop()
            await app.stop()
            await asyncio.sleep(LEAVE_S)
    except Exception as error:  # noqa: BLE001 any error determines the exit code
        return error
    return crash_reason(app)


async def _part(app: faust.App) -> None:
    """Leave the group after a crash, so that the partitions are reassigned now, not after a session timeout."""
    try:
        async with asyncio.timeout(LEAVE_S):
            await app.consumer.part()
    except Exception as error:  # noqa: BLE001 the crash has its own reason
        logger.info("could not leave the group after the crash: %r", error)


def crash_reason(app: faust.App) -> BaseException | None:
    """Return why the application crashed; None if it did not."""
    reason: BaseException | None = app.crash_reason
    return reason


def _report(reason: BaseException) -> None:
    if isinstance(reason, SizingError):
        logger.error("%s: %s", type(reason).__name__, reason)
    else:
        logger.error("the worker crashed", exc_info=reason)


def leave(code: int) -> NoReturn:
    """Flush logs and output, then exit at once: threads of a crashed application could block a normal exit."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
