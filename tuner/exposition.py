"""Metrics in the text formats that Prometheus reads, by its own Python package.

Loaded only by processes that serve metrics.
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
    """The metrics of one response: families with their help, and a value for each set of labels."""

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._families

    def gauge(self, name: str, about: str, values: Mapping[Labels, float], *labels: str) -> None:
        """Add a gauge."""
        family = GaugeMetricFamily(name, about, labels=labels)
        self._add(family, values)

    def counter(self, name: str, about: str, values: Mapping[Labels, float], *labels: str) -> None:
        """Add a counter; its name ends in `_total`."""
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
        """Add a histogram: counts by upper bound (the last has none), and the sum of values."""
        family = HistogramMetricFamily(name, about, labels=labels)
        for key, (counts, total) in values.items():
            buckets, below = [], 0
            for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
                below += count
                buckets.append((bound, below))
            family.add_metric(key, buckets, total)
        self._families.append(family)

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """Return the page in a format that the scraper accepts, and its media type."""
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
