"""Dask, where `--cluster` names one: `local:N` for N workers here, or the address of a scheduler."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import HostError, RunFailed, UsageError
from tools.evacuate.draws import Totals, here

MOST_WORKERS = 256
CONNECT_SECONDS = 10


@contextmanager
def client_of(text: str | None, tls: Path | None) -> Iterator[Any]:
    """A client, or None without a cluster. Raises UsageError, HostError without Dask, RunFailed."""
    if text is None:
        yield None
        return
    workers = _local(text)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise HostError("--cluster needs Dask: pip install 'ramferry[fleet]'") from error
    security = None if tls is None else _security(distributed, tls)
    if workers:
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, security=security
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(text, security=security, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise RunFailed(f"--cluster {text}: no scheduler answers ({error})") from error
    with client:
        yield client


def _local(text: str) -> int:
    """How many workers of `local:N`; 0 for an address."""
    kind, _, rest = text.partition(":")
    if kind in ("tcp", "tls"):
        return 0
    if kind != "local" or not rest.isdecimal() or not 1 <= int(rest) <= MOST_WORKERS:
        raise UsageError(
            f"--cluster {text}: must be local:N with 1 to {MOST_WORKERS} workers, or a scheduler's address "
            "such as tcp://10.0.0.1:8786"
        )
    return int(rest)


def _security(distributed: Any, folder: Path) -> Any:
    files = {name: folder / f"{name}.pem" for name in ("ca-cert", "client-cert", "client-key")}
    for file in files.values():
        if not file.is_file():
            raise UsageError(f"--cluster-tls {folder}: {file.name} is missing")
    return distributed.Security(
        tls_ca_file=str(files["ca-cert"]),
        tls_client_cert=str(files["client-cert"]),
        tls_client_key=str(files["client-key"]),
        tls_scheduler_cert=str(files["client-cert"]),
        tls_scheduler_key=str(files["client-key"]),
        tls_worker_cert=str(files["client-cert"]),
        tls_worker_key=str(files["client-key"]),
        require_encryption=True,
    )


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
