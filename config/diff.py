"""Dotted keys of a settings tree, and the differences between two trees."""

from collections.abc import Iterator, Mapping
from typing import Any


def paths(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, value) of every leaf; an empty mapping is a leaf."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from paths(value, (*above, name))
        else:
            yield (*above, name), value


def leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return every leaf by its dotted key."""
    return {".".join(path): value for path, value in paths(tree)}


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, value in a, value in b) of every difference, sorted; None if the key is absent."""
    left, right = leaves(a), leaves(b)
    keys = sorted(left.keys() | right.keys())
    return [(key, left.get(key), right.get(key)) for key in keys if not _same(left, right, key)]


def _same(left: Mapping[str, Any], right: Mapping[str, Any], key: str) -> bool:
    return (key in left) == (key in right) and left.get(key) == right.get(key)
