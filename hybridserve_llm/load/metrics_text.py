"""Read the samples of a `/metrics` page, which is in Prometheus' text format."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Samples:
    """Hold the values of a page by name and sorted labels."""

    values: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the samples in `text`.

        Raises:
            ValueError: It is not in Prometheus' format.
        """
        return cls(
            {
                (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of a metric's samples that have these labels; None where there is none."""
        wanted = set(labels.items())
        found = [v for (n, has), v in self.values.items() if n == name and wanted <= set(has)]
        return math.fsum(found) if found else None

    def values_of(self, name: str, label: str, **labels: str) -> set[str]:
        """Return the values that a label has among a metric's samples with these labels."""
        wanted = set(labels.items())
        return {
            value
            for (n, has) in self.values
            if n == name and wanted <= set(has)
            for key, value in has
            if key == label
        }
