"""Metrics in the text formats that Prometheus reads, by its own Python package.

Loaded where metrics are served, and by nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

__all__ = ["Metric", "MetricsPage"]

Labels = TypeVar("Labels", bound=tuple[str, ...])
"""The values of a sample's labels."""


class MetricsPage(Collector):
    """The metrics of one answer: each family with its help, and a value for each set of labels."""

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Give all families."""
        yield from self._families

    def gauge(self, name: str, about: str, values: Mapping[Labels, float], *labels: str) -> None:
        """Add what goes up and down."""
        family = GaugeMetricFamily(name, about, labels=labels)
        self._add(family, values)

    def counter(self, name: str, about: str, values: Mapping[Labels, float], *labels: str) -> None:
        """Add what only rises; the name ends in `_total`."""
        family = CounterMetricFamily(name, about, labels=labels)
        self._add(family, values)

    def histogram(
        self,
        name: str,
        about: str,
        bounds: Sequence[float],
        values: Mapping[Labels, tuple[Sequence[int], float]],
        *labels: str,
    ) -> None:
        """Add counts by upper bound (the last one has none), with the sum of what was counted."""
        family = HistogramMetricFamily(name, about, labels=labels)
        for key, (counts, total) in values.items():
            buckets, below = [], 0
            for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
                below += count
                buckets.append((bound, below))
            family.add_metric(key, buckets, total)
        self._families.append(family)

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """Return the page in the format that a scraper accepts, and the media type of that."""
        encode, media = choose_encoder(accept)
        return encode(self), media

    def _add(
        self,
        family: GaugeMetricFamily | CounterMetricFamily,
        values: Mapping[Labels, float],
    ) -> None:
        for key, value in values.items():
            family.add_metric(key, value)
        self._families.append(family)
