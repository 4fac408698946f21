"""What operators have ordered by scope, as one sorted tuple of (scope, word): looked up and changed without a copy.

There may be thousands of scopes, and a script gone wild sends thousands of orders: a real one waits behind them.
"""

from bisect import bisect_left
from typing import Final

Overrides = tuple[tuple[str, str], ...]
"""(scope, word), sorted by scope; each scope at most once."""

NONE: Final[Overrides] = ()
AFTER_COLON: Final = chr(ord(":") + 1)


def word_of(overrides: Overrides, scope: str) -> str | None:
    """Return the word of a scope, None if it has none.

    >>> word_of((("all", "HALTED"), ("symbol:X", "REDUCING")), "symbol:X")
    'REDUCING'
    """
    place = bisect_left(overrides, (scope,))
    return overrides[place][1] if _is_at(overrides, place, scope) else None


def changed(overrides: Overrides, scope: str, word: str | None) -> Overrides:
    """Return the overrides with another word for a scope; None: without the scope.

    >>> changed((("all", "HALTED"),), "symbol:X", "REDUCING")
    (('all', 'HALTED'), ('symbol:X', 'REDUCING'))
    """
    place = bisect_left(overrides, (scope,))
    after = place + 1 if _is_at(overrides, place, scope) else place
    fresh = NONE if word is None else ((scope, word),)
    return (*overrides[:place], *fresh, *overrides[after:])


def count_of(overrides: Overrides, kind: str) -> int:
    """Return the number of scopes of a kind: of those that begin with "symbol:" for "symbol"."""
    return bisect_left(overrides, (kind + AFTER_COLON,)) - bisect_left(overrides, (f"{kind}:",))


def _is_at(overrides: Overrides, place: int, scope: str) -> bool:
    return place < len(overrides) and overrides[place][0] == scope
