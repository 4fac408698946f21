"""Coroutines that never wait are run without an event loop; one that waits is a fault, not a hang."""

import asyncio

import pytest

from streams.processing.immediate import result_of


async def doubled(number):
    await already()
    return 2 * number


async def already():
    return None


async def waits():
    await asyncio.sleep(0)


def test_a_coroutine_that_never_waits_gives_its_result():
    assert result_of(doubled(21)) == 42


def test_a_coroutine_that_waits_is_refused_by_name():
    with pytest.raises(RuntimeError, match=r"^waits must not wait, but awaited"):
        result_of(waits())


def test_what_a_coroutine_raises_comes_through():
    async def broken():
        raise KeyError

    with pytest.raises(KeyError):
        result_of(broken())
