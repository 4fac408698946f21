"""Sources: which source records were folded already, and source topics that were created again.

Source: docs/architecture.md, state and recovery.
"""

from engines.handlers.effects import FoldResult, Journaled
from engines.state.partition import PartitionProgress, State


def is_new(progress: PartitionProgress, entry: Journaled) -> bool:
    """Return whether the source record was not folded before, and raise its high-water."""
    source = progress.sources.setdefault(entry.topic, {"epoch": entry.epoch, "offsets": {}})
    if entry.epoch < source["epoch"]:
        return False
    if entry.epoch > source["epoch"]:
        source = progress.sources[entry.topic] = {"epoch": entry.epoch, "offsets": {}}
    offsets = source["offsets"]
    name = str(entry.partition)
    if entry.source_offset <= offsets.get(name, -1):
        return False
    offsets[name] = entry.source_offset
    return True


def fold_adopt(state: State, entry: Journaled, _folded: FoldResult) -> None:
    """Take a source topic that was created again: its offsets start from 0."""
    if state.progress is not None:
        state.progress.sources[entry.body["topic"]] = {"epoch": entry.body["epoch"], "offsets": {}}
