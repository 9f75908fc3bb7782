"""Batches of draws, over the workers of a Dask cluster or here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tools.evacuate.draws import Totals, here


def spread_over(client: Any) -> Callable[[Callable[[Sequence[int]], Totals], list[list[int]]], list[Totals]]:
    """Batches of draws over the workers, or here without a client."""
    if client is None:
        return here

    def spread(work: Callable[[Sequence[int]], Totals], batches: list[list[int]]) -> list[Totals]:
        sent = client.scatter(work, broadcast=True)
        return client.gather(client.map(_worked, batches, work=sent, pure=False))  # type: ignore[no-any-return]

    return spread


def _worked(batch: list[int], work: Callable[[Sequence[int]], Totals]) -> Totals:
    return work(batch)
