"""Records metrics and exports them to Prometheus. Engines only return notes; they do not depend on this module.

The hot path adds to plain dicts and keeps the last decisions; gauges are computed from those at scrape time. Each
`Metrics` has its own registry, so several workers in one process do not interfere.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import inf
from time import time_ns
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engines.allocation import DECISION_VERSION
from engines.handlers.effects import CascadeReading, FoldResult, Journaled
from engines.models.cascade import BREACH
from engines.pipeline.decide import Decision
from engines.pipeline.publish import Published
from schemas.vocabulary import RECOMMENDATIONS
from streams.monitoring.families import ALERTS, COMPONENTS, FAMILIES, GATES, NAMED, OTHER, TICKS, Family
from streams.monitoring.gauges import Last
from streams.monitoring.notes import NOTES, ignore
from streams.monitoring.samples import Histogram, Labels, empty, zeros
from streams.processing.ports import Send

SECOND_NS: Final = 1_000_000_000
STRATEGIES_MAX: Final = 64
"""Largest number of strategies with a series of their own."""
DLQ: Final = ".dlq"


class Metrics(Collector):
    """All families of one worker, or of one library object.

    `clock` gives ns since 1970; it has to be the clock that the worker journals by.

    Raises:
        ValueError: the registry already has some of the families.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        clock: Callable[[], int] = time_ns,
        strategies_max: int = STRATEGIES_MAX,
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.clock = clock
        self.last = Last()
        self.sources: dict[str, Callable[[], Iterable[tuple[str, Labels, float]]]] = {"decisions": self.last.gauges}
        """Sources of gauges that are computed at scrape time."""
        self.counts = {family.name: zeros(family) for family in FAMILIES if family.kind != "histogram"}
        self.histograms = {
            family.name: {labels: Histogram(family.bounds) for labels in family.combinations}
            for family in FAMILIES
            if family.kind == "histogram"
        }
        self._strategies_max = strategies_max
        self._strategies: dict[str, Labels] = {}
        self._processors: dict[tuple[str, int], ProcessorMetrics] = {}
        self.observe: Observe = SizingMetrics(self, 0).observe
        self.set("build_info", 1.0, _version(), str(DECISION_VERSION), platform.python_version())
        self.registry.register(self)

    # -- recorded by the shell ---------------------------------------------------------------------------------------
    def processor(self, name: str, partition: int) -> "ProcessorMetrics":
        """Return the observer of one processor (`sizing` or `market`) on one partition, always the same one."""
        key = (name, partition)
        found = self._processors.get(key)
        if found is None:
            found = self._processors[key] = ProcessorMetrics(self, name, partition)
        return found

    def forget(self, name: str, partition: int) -> None:
        """Remove the series of a partition that another worker owns now."""
        self._processors.pop((name, partition), None)
        self.counts["checkpoint_offset"].pop((name, str(partition)), None)
        if name == "sizing":
            self.counts["journal_lag"].pop((str(partition),), None)

    def lag(self, partition: int, entries: int) -> None:
        """Record the number of entries of a journal partition that are not yet folded."""
        self.set("journal_lag", entries, str(partition))

    def of_prices(self, name: str, count: int) -> None:
        """Record a note of the market stage: a tick counter, the kind of an alert, or the code of a dead letter."""
        if name in TICKS:
            self.count(TICKS[name], by=count)
        elif name in ALERTS:
            self.count("alerts_total", name, by=count)
        else:
            self.dead_letter("prices", name, by=count)

    def dead_letter(self, topic: str, code: str, field: str = "", by: float = 1.0) -> None:
        """Record a refused record of a source topic: the error code, and the field that broke the rule."""
        self.count("dead_letters_total", topic, code, by=by)
        if topic == "outcomes" and code == "not_finite":
            self.count("conformal_nan_rejections_total", by=by)
        elif topic == "outcomes" and field == "realized_return" and code in {"missing", "wrong_type"}:
            self.count("conformal_null_rejections_total", by=by)

    def dead_letters(self, sends: Iterable[Send]) -> None:
        """Count the dead letters in the sends of ingest; those of sizing are counted when it folds."""
        for send in sends:
            if send.topic.endswith(DLQ):
                why = dict(send.headers)
                code, field = why.get("himari.error.code", b""), why.get("himari.error.field", b"")
                self.dead_letter(send.topic.removesuffix(DLQ), code.decode(), field.decode())

    def alert(self, kind: str) -> None:
        """Record a raised alert."""
        self.count("alerts_total", kind)

    def config_reload(self, status: str) -> None:
        """Record the result of a change of the settings file: applied, rejected, unchanged, conflict."""
        self.count("config_reloads_total", status)

    def config_callbacks(self, number: int) -> None:
        """Record the number of parts of the worker that are notified of changed settings."""
        self.set("config_callbacks", number)

    def health(self, stalled_s: float, *, ready: bool) -> None:
        """Record whether the worker is ready, and for how many seconds any part of it has made no progress."""
        self.set("ready", ready)
        self.set("stalled_seconds", stalled_s)

    def restart_required(self, keys: int) -> None:
        """Record the number of settings in the file that need a restart to take effect."""
        self.set("config_restart_required", keys)

    # -- samples -----------------------------------------------------------------------------------------------------
    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter; label values outside the closed set are counted as `other`."""
        closed = NAMED[name].values
        known = tuple(each if each in values else OTHER for each, values in zip(labels, closed, strict=True))
        self.counts[name][known] += by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self.counts[name][labels] = float(value)

    def strategy(self, name: str) -> Labels:
        """Return the label of a strategy: its name, or `other` if there are too many."""
        found = self._strategies.get(name)
        if found is None:
            found = (name,) if len(self._strategies) < self._strategies_max else (OTHER,)
            if found[0] != OTHER:
                self._strategies[name] = found
        return found

    # -- export ------------------------------------------------------------------------------------------------------
    def describe(self) -> Iterator[Metric]:
        """Return the families without samples."""
        return map(empty, FAMILIES)

    def collect(self) -> Iterator[Metric]:
        """Return the families with their current samples."""
        for gauges in list(self.sources.values()):
            for name, labels, value in gauges():
                self.set(name, value, *labels)
        self._show_weights()
        return map(self._filled, FAMILIES)

    def _show_weights(self) -> None:
        """Export the weights of the last full decision, and drop strategies that are no longer in it."""
        shown = self.counts["ensemble_weight_current"]
        shown.clear()
        for strategy, weight in self.last.weights().items():
            shown[self.strategy(strategy)] += weight

    def _filled(self, family: Family) -> Metric:
        metric = empty(family)
        if isinstance(metric, HistogramMetricFamily):
            for labels, histogram in self.histograms[family.name].items():
                metric.add_metric(labels, histogram.buckets(), histogram.total)
        elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
            for labels, value in list(self.counts[family.name].items()):
                metric.add_metric(labels, value)
        return metric


class Observe(Protocol):
    """Observer of folded journal entries."""

    def __call__(self, entry: Journaled, folded: FoldResult, elapsed_ns: int | None = None) -> None:
        """Record an entry, its results, and the elapsed time if it was measured."""


class SizingMetrics:
    """Records the results of the entries of one journal partition.

    Events that occur in every partition (levels, crossings) are counted by partition 0 only.
    """

    def __init__(self, metrics: Metrics, partition: int) -> None:
        self._metrics = metrics
        self._partition = partition
        self._breached: dict[tuple[str, int], list[bool]] = {}
        counts = metrics.counts
        self._entries = counts["journal_entries_total"]
        self._decisions = counts["decisions_total"]
        self._strategies = counts["position_decisions_total"]
        self._reductions = counts["position_reductions_total"]
        self._levels = counts["cascade_recommendations_total"]
        self._violations = counts["risk_budget_violations_total"]
        self._seconds = metrics.histograms["decision_seconds"][()]

    def observe(self, entry: Journaled, folded: FoldResult, elapsed_ns: int | None = None) -> None:
        """Record the results of an entry, and the time for fold and decisions if it was measured."""
        self._entries[(entry.kind,)] += 1.0
        if folded.notes:
            for note in folded.notes:
                NOTES.get(note.name, ignore)(self._metrics, note, self._partition)
        if folded.looks:
            self._read_cascades(folded.looks)
        for alert in folded.alerts:
            self._metrics.alert(alert["kind"])
        for refusal in folded.refusals:
            self._metrics.dead_letter(refusal.topic, refusal.code, refusal.field)
        if folded.allocations:
            for published in folded.allocations:
                self._decided(published)
            self._metrics.last.decided_ns = entry.journaled_at_ns
            if elapsed_ns is not None:
                self._seconds.observe(elapsed_ns / SECOND_NS)

    def _decided(self, published: Published) -> None:
        decision, last = published.decision, self._metrics.last
        trigger = decision.trigger
        last.decision = published
        if trigger.full:
            last.full = published
        self._decisions[(trigger.kind,)] += 1.0
        for level, _ in decision.bound:
            self._violations[(level,)] += 1.0
        cells = decision.holdings.cells
        if trigger.cell is None:
            for index in range(len(cells)):
                self._reduced(decision, index)
            return
        if trigger.kind == "signal":
            self._strategies[self._metrics.strategy(trigger.cell[0])] += 1.0
        if trigger.cell not in cells:
            return
        index = cells.index(trigger.cell)
        self._reduced(decision, index)
        size = decision.sizes[index]
        if size is not None and trigger.kind == "signal":
            last.signal = (published, index)
            self._levels[LEVELS[size.level]] += 1.0
            if size.bet is not None:
                last.sized = (published, index)

    def _reduced(self, decision: Decision, index: int) -> None:
        """Count the stages that reduced a cell, or the gate that set it to zero."""
        waterfall = decision.waterfall
        first = waterfall.columns[0][index]
        size = decision.sizes[index]
        if size is not None and size.reason:
            self._reductions[(GATES.get(size.reason, OTHER),)] += 1.0
        elif first and first != waterfall.last[index]:
            before = abs(first)
            for name, cents in zip(waterfall.names, waterfall.columns, strict=True):
                after = abs(cents[index])
                if after < before:
                    self._reductions[(name,)] += 1.0
                before = after

    def _read_cascades(self, readings: list[CascadeReading]) -> None:
        for reading in readings:
            key = (reading.symbol, reading.side)
            self._metrics.last.readings[key] = reading
            if self._partition == 0:
                before = self._breached.get(key, CALM)
                self._breached[key] = after = [part is not None and part >= BREACH for part in reading.components]
                if after != before:
                    self._count_crossings(before, after)

    def _count_crossings(self, before: Sequence[bool], after: Sequence[bool]) -> None:
        for component, was, now in zip(COMPONENTS, before, after, strict=True):
            if now and not was:
                self._metrics.count("cascade_threshold_breaches_total", component)


class ProcessorMetrics(SizingMetrics):
    """Records the work of one processor on one partition; the observer that `streams.processing.processor` expects."""

    def __init__(self, metrics: Metrics, name: str, partition: int) -> None:
        super().__init__(metrics, partition)
        self._name = name
        self._since_ns: float = inf
        self._unpublished: list[int] = []

    def observe(self, entry: Journaled, folded: FoldResult, elapsed_ns: int | None = None) -> None:
        """Record the results of an entry; a signal's latency is recorded when its allocation is acknowledged.

        Signals journaled before the recovery are left out: they waited for the worker to start. Without a processor
        that reports its recovery nothing is acknowledged, so no latency is recorded.
        """
        super().observe(entry, folded, elapsed_ns)
        if entry.kind == "signal" and folded.allocations and entry.journaled_at_ns >= self._since_ns:
            self._unpublished.append(entry.journaled_at_ns)

    def taken(self, records: int, sends: int) -> None:
        """Record a chunk that is folded and whose outputs are acknowledged."""
        self._metrics.count("records_folded_total", self._name, by=records)
        self._metrics.count("records_published_total", self._name, by=sends)
        if self._unpublished:
            now_ns, waited = self._metrics.clock(), self._metrics.histograms["signal_to_allocation_seconds"][()]
            for journaled_at_ns in self._unpublished:
                waited.observe(max(0, now_ns - journaled_at_ns) / SECOND_NS)
            self._unpublished.clear()

    def recovered(self, way: str, offset: int, elapsed_ns: int) -> None:
        """Record a recovery: the offset reached, the source used (`way`), and its duration."""
        self._unpublished.clear()
        self._since_ns = self._metrics.clock()
        self._metrics.set("table_recovery_seconds", elapsed_ns / SECOND_NS, self._name)
        self._metrics.count("recoveries_total", self._name, way)
        self._metrics.set("checkpoint_offset", offset, self._name, str(self._partition))

    def checkpointed(self, offset: int, records: int, elapsed_ns: int, size: int = 0) -> None:
        """Record an acknowledged checkpoint: the offset of `progress`, records and bytes written, and the duration."""
        self._metrics.histograms["checkpoint_seconds"][self._name,].observe(elapsed_ns / SECOND_NS)
        self._metrics.count("checkpoint_records_total", self._name, by=records)
        self._metrics.count("checkpoint_bytes_total", self._name, by=size)
        self._metrics.set("checkpoint_offset", offset, self._name, str(self._partition))


LEVELS: Final[tuple[Labels, ...]] = tuple((recommendation,) for recommendation in RECOMMENDATIONS)
CALM: Final = [False] * len(COMPONENTS)


def _version() -> str:
    try:
        return version("himari-layer3")
    except PackageNotFoundError:
        return "0"
