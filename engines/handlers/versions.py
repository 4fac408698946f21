"""Versions: which decision version a journal partition belongs to, from its Genesis to a handover.

Source: docs/upgrading.md.
"""

import hashlib

from engines.allocation import DECISION_VERSION
from engines.handlers.effects import FoldResult, Journaled
from engines.parameters import DecisionParams
from engines.state.partition import PartitionProgress, State
from schemas.errors import AnotherVersion


def fold_genesis(state: State, entry: Journaled) -> None:
    """Take the first entry of a journal partition.

    Raises:
        AnotherVersion: it belongs to another decision version.
        ValueError: it is a second one.
    """
    body = entry.body
    if state.progress is not None:
        msg = f"journal partition {state.partition}: entry {entry.offset} is a second Genesis"
        raise ValueError(msg)
    if body["decision_version"] != version_of(state):
        found = body["decision_version"]
        how = f"run version {found}, which hands over with: himari worker --drain --to {version_of(state)}"
        raise AnotherVersion(f"{belongs(state, entry, found)}: {how}")
    state.use(DecisionParams.model_validate(body["settings"]))
    journal_id = body["journal_id"]
    state.progress = PartitionProgress(
        journal_id,
        body["partitions"],
        entry.journaled_at_ns,
        hashlib.sha256(journal_id.encode() + entry.value).hexdigest(),
        state.params.model_dump(),
        state.settings_hash,
        {},
        {},
        version_of(state),
    )


def fold_engine(state: State, entry: Journaled, _folded: FoldResult) -> None:
    """Hand over to another version: this one folds nothing more. Entries that hold the state change nothing.

    Raises:
        ValueError: the version in force is not the one that hands over.
    """
    body = entry.body
    if "state" in body or body["to_version"] == body["from_version"]:
        return
    if body["from_version"] != version_of(state) or state.progress is None:
        msg = f"entry {entry.offset} hands over from decision version {body['from_version']}, not {version_of(state)}"
        raise ValueError(msg)
    state.progress.successor = body["to_version"]


def version_of(state: State) -> int:
    """Return the decision version of a state."""
    return state.version or DECISION_VERSION


def belongs(state: State, entry: Journaled, version: int) -> str:
    """Return which version an entry belongs to, for error texts."""
    place = f"journal {state.partition}:{entry.offset}"
    return f"{place} is of decision version {version}, this is version {version_of(state)}"
