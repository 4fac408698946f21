"""Expiry: forecasts whose time is over.

Source: docs/pipeline.md, triggers.
"""

from engines.handlers.effects import FoldResult
from engines.pipeline import cache
from engines.pipeline.decide import Trigger
from engines.state.partition import State


def expire_forecasts(state: State, folded: FoldResult) -> None:
    """Drop the forecasts that have expired by now; cells with a target call for a decision."""
    for key in state.due(state.now_ns):
        state.predictions.put(key, state.predictions[key]._replace(forecast=None))
        cache.forget_cell(state, key)
        if state.targets.get(key) is None:
            state.forget_idle_cells(key[0])
        else:
            trigger = Trigger("expiry", f"{key[1]}/{key[2]}", mode="full", cell=(key[1], key[2]))
            folded.call_for(key[0], trigger)
