"""Watch the settings file of a running worker.

A change is accepted when two consecutive reads find the same bytes, so a file that is half written, or missing while
an editor replaces it, changes nothing. A truncated file can still be valid YAML, and its settings would silently
return to their defaults; such a file is refused (`config.removals`) until the settings are restored or an operator
confirms the removal (`FileWatch.accept`).
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
    """The file has changed and is valid."""

    loaded: Loaded
    decision: dict[str, Any] | None
    """Payload of one control record of kind `settings`, {base_hash, hash, tree}, based on the file's previous content;
    None if no decision setting changed."""
    decision_keys: tuple[tuple[str, Any, Any], ...]
    """(dotted key, before, after) of the decision sections."""
    worker_keys: tuple[tuple[str, Any, Any], ...]
    """(dotted key, before, after) of the worker sections."""
    held: frozenset[str] = frozenset()
    """Dotted keys of the worker sections that vanished together: the running worker keeps their values in any case."""


class Shrunken(NamedTuple):
    """The file is valid, except for settings that have vanished from it."""

    loaded: Loaded
    removal: Removal


class Rejected(NamedTuple):
    """The file has changed and is invalid: the previous settings stay in force."""

    error: ConfigurationException


class FileWatch:
    """The settings file, with its last accepted content."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the file.

        Raises:
            ConfigurationException: the file is invalid; there are no previous settings to keep.
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
        """The current content, if it is refused only for settings that have vanished."""
        self.loaded = load_bytes(raw, os.fspath(path), self._env, self._overrides)

    def poll(self) -> FileChange | Rejected | None:
        """Check the file once; return its change when its content is stable, and only once per content."""
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
        """Return whether the content is stable and not yet judged."""
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
        """Accept the file that was refused for vanished settings; return its change."""
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
        """Return (modification time in ns, size, inode), which reveal a change without reading; None without a file."""
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
    """Return the payload of a control record of kind `settings` that changes `base` to `wanted`."""
    tree = decision_tree(wanted)
    return {"base_hash": settings_hash(decision_tree(base)), "hash": settings_hash(tree), "tree": tree}
