"""Samples of metric families in plain dicts and lists, so that recording is cheap."""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from streams.monitoring.families import Family

Labels = tuple[str, ...]


class SampleCounts(dict[Labels, float]):
    """Samples of one family by label values; missing ones start at 0."""

    def __missing__(self, labels: Labels) -> float:
        return 0.0


class Histogram:
    """Counts of values by bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one value; a bucket includes its upper bound."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, cumulative count) of every bucket."""
        sums, running = [], 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            running += count
            sums.append(("+Inf" if bound == inf else repr(bound), float(running)))
        return sums


def zeros(family: Family) -> SampleCounts:
    """Return the initial samples of a family: for a counter, 0 for every combination of its closed sets."""
    return SampleCounts(dict.fromkeys(family.combinations, 0.0) if family.kind == "counter" else {})


def empty(family: Family) -> Metric:
    """Return a family as it is exported, without samples."""
    if family.kind == "counter":
        return CounterMetricFamily(family.full_name, family.help, labels=family.labels)
    if family.kind == "gauge":
        return GaugeMetricFamily(family.full_name, family.help, labels=family.labels)
    return HistogramMetricFamily(family.full_name, family.help, labels=family.labels)
