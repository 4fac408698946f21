"""The sections of the page by name: what the stream sends and the API answers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from streams.page.attention import attention
from streams.page.decisions import decisions
from streams.page.learning_panels import policy, strategies
from streams.page.market_panels import correlations, markets
from streams.page.operation_panels import dead_letters, orders, pipeline, verdict
from streams.page.positions import view
from streams.page.scene import Scene

SECTIONS: Final[Mapping[str, Callable[[Scene], dict[str, Any]]]] = MappingProxyType(
    {
        "verdict": verdict,
        "attention": attention,
        "view": view,
        "decisions": decisions,
        "markets": markets,
        "correlations": correlations,
        "strategies": strategies,
        "policy": policy,
        "pipeline": pipeline,
        "dead-letters": dead_letters,
        "orders": orders,
    }
)
BY_PORTFOLIO: Final = MappingProxyType({"view": view, "decisions": decisions})
"""Sections of which the API can answer one portfolio's part."""
