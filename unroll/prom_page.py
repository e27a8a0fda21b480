"""A page of metrics as numbers, and what happened between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """samples: values by name, and by labels."""

    samples: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str) -> Page:
        """Raises ValueError for what is no page of metrics."""
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return cls(samples)

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of ``name`` that have these labels, whatever others they have."""
        wanted = labels.items()
        return math.fsum(v for k, v in self.samples.get(name, {}).items() if wanted <= k)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Sums by the value of one label, in the order of the values."""
        values = {dict(key).get(label) for key in self.samples.get(name, {})}
        return {v: self.sum(name, **labels, **{label: v}) for v in sorted(filter(None, values))}

    def since(self, earlier: Page) -> Page:
        """How much each value has grown.

        A counter that is less than it was began anew, with its process: all of it is new.
        """
        return Page(
            {
                name: {
                    key: value - before
                    if (before := _before(earlier, name, key)) <= value
                    else value
                    for key, value in by_labels.items()
                }
                for name, by_labels in self.samples.items()
            }
        )

    def quantile(self, share: float, histogram: str, **labels: str) -> float | None:
        """Of what a histogram observed, as Prometheus estimates it; None where there was nothing.

        Infinite where it lies beyond the last bucket.
        """
        counts = self.by(histogram + "_bucket", "le", **labels)
        return _quantile(share, ((float(edge), count) for edge, count in counts.items()))


def _before(page: Page, name: str, key: Labels) -> float:
    return page.samples.get(name, {}).get(key, 0.0)


def _quantile(share: float, cumulative: Iterable[tuple[float, float]]) -> float | None:
    buckets = sorted(cumulative)
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for edge, count in buckets:
        if count >= wanted and count > below:
            if math.isinf(edge):
                return edge
            return lower + (edge - lower) * (wanted - below) / (count - below)
        lower, below = edge, count
    return math.inf
