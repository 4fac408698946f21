"""Coroutines that never wait: the ports in memory and the policies in process."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def result_of(step: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end without an event loop; return its result.

    Raises:
        RuntimeError: it awaited something that was not ready.
    """
    try:
        step.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    step.close()
    name = getattr(step, "__qualname__", "a coroutine")
    msg = f"{name} must not wait, but awaited something that was not ready"
    raise RuntimeError(msg)
