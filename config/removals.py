"""Settings that vanish from a file together: it was emptied, cut short or made from a broken template.

A setting *vanishes* where it has another value than its default, the file does not name it any more, and it would go
back to the default by that. One may vanish: somebody has deleted its line. Refused is a file that

- says nothing at all any more,
- has lost a whole section, or
- has lost two decision settings or more in one change.

A default that is written out is no removal.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from config.diff import leaves
from config.load import Loaded
from config.settings import Settings, decision_tree
from schemas.errors import ConfigurationException

TOGETHER: Final = 2
"""So many decision settings do not vanish in one change by somebody's hand without a word."""
NAMED_MAX: Final = 20
"""Keys that an error names; of more it says how many."""


class Removal(NamedTuple):
    """Settings that vanish together."""

    decision: tuple[str, ...]
    """Dotted keys, sorted."""
    worker: tuple[str, ...]
    why: str
    """Which rule they break, for people."""


def of_file(before: Settings, after: Loaded) -> Removal | None:
    """Return what vanishes where a file that led to `before` leads to `after`; None where that may be."""
    keys = _vanished(before.model_dump(), Settings().model_dump(), after.settings.model_dump(), after.in_file)
    decisions = leaves(decision_tree(before)).keys()
    return _judged([key for key in keys if key in decisions], [key for key in keys if key not in decisions], after)


def of_decisions(in_force: Mapping[str, Any], after: Loaded) -> Removal | None:
    """Return what vanishes of the decision settings in force by those of a file; None where that may be."""
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
        why = "the file says nothing"
    elif lost:
        why = f"the file lacks the whole section {', '.join(lost)}"
    else:
        why = f"{len(decision)} settings would go back to their defaults at once"
    return Removal(tuple(decision), tuple(worker), why)


def _section(key: str) -> str:
    return key.partition(".")[0]


def refusal(file: str | os.PathLike[str], removal: Removal) -> ConfigurationException:
    """Return the error that names what vanishes from a file, and what to do about it."""
    path, keys = os.fspath(file), (*removal.decision, *removal.worker)
    more = f" and {len(keys) - NAMED_MAX} more" if len(keys) > NAMED_MAX else ""
    meant = f"run: himari config apply {path} --allow-removals" if removal.decision else "restart the worker"
    rule = f"must not vanish: {removal.why}. Put back or write out the default; if it is meant, {meant}"
    return ConfigurationException(path, ", ".join(keys[:NAMED_MAX]) + more, rule)
