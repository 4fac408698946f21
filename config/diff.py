"""Settings leaf by leaf: dotted keys, and where two trees differ."""

from collections.abc import Iterator, Mapping
from typing import Any


def paths(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, value) of every value that is not a mapping; an empty mapping is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from paths(value, (*above, name))
        else:
            yield (*above, name), value


def leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return every value that is not a mapping by its dotted key."""
    return {".".join(path): value for path, value in paths(tree)}


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, value in a, value in b) where two trees differ, sorted; None where a key is absent."""
    left, right = leaves(a), leaves(b)
    keys = sorted(left.keys() | right.keys())
    return [(key, left.get(key), right.get(key)) for key in keys if not _same(left, right, key)]


def _same(left: Mapping[str, Any], right: Mapping[str, Any], key: str) -> bool:
    return (key in left) == (key in right) and left.get(key) == right.get(key)
