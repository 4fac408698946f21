"""Watch the settings file of a running worker.

A file is believed when two looks in a row find the same bytes: one that is half written, or gone for the moment in
which an editor replaces it, changes nothing. Cut short, YAML can still be valid YAML; settings would fall back to
their defaults without a word. So one that stays cut short is refused too (`config.removals`), until what has vanished
is there again or somebody says that it is meant (`Watch.accept`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from config.diff import diff, leaves
from config.load import Loaded, load_bytes, read_file
from config.removals import Removal, of_file, refusal
from config.settings import Settings, decision_tree
from engines.parameters import DecisionParams, settings_hash
from schemas.errors import ConfigurationException


class FileChange(NamedTuple):
    """The file says something else than before, and it is good."""

    loaded: Loaded
    decision: dict[str, Any] | None
    """Payload of one control record of kind `settings`, {base_hash, hash, tree}; None where no decision setting
    changed. Its base is what the file said before."""
    decision_keys: tuple[tuple[str, Any, Any], ...]
    """(dotted key, before, after) of the decision sections."""
    worker_keys: tuple[tuple[str, Any, Any], ...]
    """(dotted key, before, after) of the worker sections."""
    held: frozenset[str] = frozenset()
    """Dotted keys of the worker sections that vanished together: what runs keeps them, whatever was meant."""


class Shrunken(NamedTuple):
    """The file is good but for what has vanished from it."""

    loaded: Loaded
    removal: Removal


class Rejected(NamedTuple):
    """The file says something else than before, and it cannot be used: what was before stays."""

    error: ConfigurationException


class FileWatch:
    """The file, as it was when it was last believed."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the file.

        Raises:
            ConfigurationException: it cannot be used; there is nothing to fall back to yet.
        """
        self._path = Path(path)
        self._env = dict(env or {})
        self._overrides = dict(overrides or {})
        self._stamp = self._stamp_now()
        raw = read_file(self._path)
        self._seen: bytes | None = raw
        self._judged: bytes | None = raw
        self._at_rest = False
        self.refused: Shrunken | None = None
        """What the file says now, if it is refused for nothing but what has vanished from it."""
        self.loaded = load_bytes(raw, os.fspath(path), self._env, self._overrides)

    def poll(self) -> FileChange | Rejected | None:
        """Look once; return, once, what a file that has come to rest changes."""
        stamp = self._stamp_now()
        if stamp == self._stamp and self._at_rest:
            return None
        self._stamp = stamp
        try:
            seen = read_file(self._path)
        except ConfigurationException as error:
            return Rejected(error) if self._settle(None) else None
        return self._judge(seen) if self._settle(seen) else None

    def _settle(self, seen: bytes | None) -> bool:
        """Return whether the file is at rest, for the first time with these bytes."""
        self._at_rest = seen == self._seen
        self._seen = seen
        if not self._at_rest or seen == self._judged:
            return False
        self._judged, self.refused = seen, None
        return True

    def _judge(self, raw: bytes) -> FileChange | Rejected | None:
        try:
            loaded = load_bytes(raw, os.fspath(self._path), self._env, self._overrides)
        except ConfigurationException as error:
            return Rejected(error)
        removal = of_file(self.loaded.settings, loaded)
        if removal is not None:
            self.refused = Shrunken(loaded, removal)
            return Rejected(refusal(self._path, removal))
        return self._take(loaded)

    def accept(self) -> FileChange | None:
        """Take the file that was refused for what has vanished from it; return what it changes."""
        if self.refused is None:
            return None
        (loaded, removal), self.refused = self.refused, None
        change = self._take(loaded)
        return None if change is None else change._replace(held=frozenset(removal.worker))

    def _take(self, loaded: Loaded) -> FileChange | None:
        before, self.loaded = self.loaded, loaded
        change = _change(before.settings, loaded)
        return change if change.decision_keys or change.worker_keys else None

    def _stamp_now(self) -> tuple[int, int, int] | None:
        """Return what betrays a change without reading; None where there is no file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _change(before: Settings, loaded: Loaded) -> FileChange:
    keys = diff(before.model_dump(), loaded.settings.model_dump())
    decisions = leaves(decision_tree(before)).keys() | leaves(decision_tree(loaded.settings)).keys()
    decides = [key in decisions for key, _, _ in keys]
    decision_keys = tuple(key for key, decision in zip(keys, decides, strict=True) if decision)
    worker_keys = tuple(key for key, decision in zip(keys, decides, strict=True) if not decision)
    payload = change_payload(before, loaded.settings) if decision_keys else None
    return FileChange(loaded, payload, decision_keys, worker_keys)


def change_payload(base: DecisionParams, wanted: DecisionParams) -> dict[str, Any]:
    """Return the payload of a control record of kind `settings` that leads from `base` to `wanted`."""
    tree = decision_tree(wanted)
    return {"base_hash": settings_hash(decision_tree(base)), "hash": settings_hash(tree), "tree": tree}
