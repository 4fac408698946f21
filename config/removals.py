"""Detects settings that vanish from a file together: it was emptied, truncated, or rendered from a broken template.

A setting *vanishes* if its value is not the default, the file no longer names it, and it would therefore return to the
default. A single one may vanish: its line was deleted. A file is refused if it

- no longer contains any setting,
- has lost a whole section, or
- has lost two or more decision settings in one change.

A setting written out with its default value has not vanished.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from config.diff import leaves
from config.load import Loaded
from config.settings import Settings, decision_tree
from schemas.errors import ConfigurationException

TOGETHER: Final = 2
"""Number of decision settings that must not vanish in one change without confirmation."""
NAMED_MAX: Final = 20
"""Largest number of keys that an error names; of the rest it gives the count."""


class Removal(NamedTuple):
    """Settings that vanish together."""

    decision: tuple[str, ...]
    """Dotted keys, sorted."""
    worker: tuple[str, ...]
    why: str
    """The rule that they break, as text."""


def of_file(before: Settings, after: Loaded) -> Removal | None:
    """Return what vanishes when a file that led to `before` now leads to `after`; None if that is allowed."""
    keys = _vanished(before.model_dump(), Settings().model_dump(), after.settings.model_dump(), after.in_file)
    decisions = leaves(decision_tree(before)).keys()
    return _judged([key for key in keys if key in decisions], [key for key in keys if key not in decisions], after)


def of_decisions(in_force: Mapping[str, Any], after: Loaded) -> Removal | None:
    """Return which decision settings in force would vanish with those of a file; None if that is allowed."""
    defaults, wanted = decision_tree(Settings()), decision_tree(after.settings)
    return _judged(_vanished(in_force, defaults, wanted, after.in_file), [], after)


def _vanished(
    before: Mapping[str, Any], defaults: Mapping[str, Any], after: Mapping[str, Any], named: Collection[str]
) -> list[str]:
    default, now = leaves(defaults), leaves(after)
    return sorted(
        key
        for key, value in leaves(before).items()
        if value != default.get(key) and now.get(key) == default.get(key) and key not in named
    )


def _judged(decision: list[str], worker: list[str], after: Loaded) -> Removal | None:
    kept = {_section(key) for key in after.in_file}
    lost = sorted({_section(key) for key in (*decision, *worker)} - kept)
    if not (lost or len(decision) >= TOGETHER):
        return None
    if not kept:
        why = "the file has no settings"
    elif lost:
        why = f"the file lacks the whole section {', '.join(lost)}"
    else:
        why = f"{len(decision)} settings would return to their defaults at once"
    return Removal(tuple(decision), tuple(worker), why)


def _section(key: str) -> str:
    return key.partition(".")[0]


def refusal(file: str | os.PathLike[str], removal: Removal) -> ConfigurationException:
    """Return the error that names the settings that vanish from a file, and what to do about it."""
    path, keys = os.fspath(file), (*removal.decision, *removal.worker)
    more = f" and {len(keys) - NAMED_MAX} more" if len(keys) > NAMED_MAX else ""
    intended = f"run: himari config apply {path} --allow-removals" if removal.decision else "restart the worker"
    rule = f"must not vanish: {removal.why}. Restore them or write out the defaults; if intended, {intended}"
    return ConfigurationException(path, ", ".join(keys[:NAMED_MAX]) + more, rule)
