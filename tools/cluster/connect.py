"""The way to a Dask cluster: one that is there, or N workers of our own on this host.

Our own speaks TLS with a certificate that only its processes have, since every user of a host can reach its
loopback ports, and who reaches a scheduler runs code as its user.
"""

from __future__ import annotations

import logging
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import HostError, RunFailed, UsageError, one_line
from pipeline.net.tls import CLIENT, Tls
from pipeline.processes.signals import ENDING

if TYPE_CHECKING:
    from distributed import Client

MAX_LOCAL = 64
CONNECT_SECONDS = 20.0
START_SECONDS = 60.0
LOCAL = "local"
NO_OTHER_HOST = "127.0.0.1:0"
TLS_FILES = ("ca-cert.pem", "client-cert.pem", "client-key.pem")


@dataclass(frozen=True)
class ClusterAddress:
    """`workers` of our own here, or the scheduler's `address`, with a folder of certificates for tls://."""

    workers: int
    address: str
    tls: Path | None


def read_cluster(text: str, tls: str | None) -> ClusterAddress:
    """What --cluster and --cluster-tls say. Raises UsageError."""
    if text.startswith(f"{LOCAL}:"):
        count = text.partition(":")[2]
        if not re.fullmatch(r"\d{1,3}", count) or not 1 <= int(count) <= MAX_LOCAL:
            raise UsageError(f"--cluster {text}: must be {LOCAL}:N, {LOCAL}:1 to {LOCAL}:{MAX_LOCAL}")
        if tls is not None:
            raise UsageError(f"--cluster-tls {tls}: is for a scheduler at tls://")
        return ClusterAddress(int(count), "", None)
    found = re.fullmatch(r"(tcp|tls)://\S+:(\d{1,5})", text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise UsageError(f"--cluster {text}: must be {LOCAL}:N, tcp://HOST:PORT or tls://HOST:PORT")
    if (found[1] == "tls") != (tls is not None):
        raise UsageError(f"--cluster {text}: tls:// and --cluster-tls DIR go together")
    if tls is not None:
        _check_tls(tls)
    return ClusterAddress(0, text, None if tls is None else Path(tls))


def _check_tls(folder: str) -> None:
    """Raises UsageError for certificates that do not do, as `send` does."""
    try:
        Tls(folder, ()).context(CLIENT)
    except UsageError as error:
        why = str(error).removeprefix(f"--tls-dir {folder}: ").partition("; tools/")[0].partition("; sh ")[0]
        raise UsageError(f"--cluster-tls {folder}: {why}") from error


def check_dask() -> None:
    """Raises HostError where Dask is not installed."""
    try:
        import cryptography  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise HostError(f"--cluster needs {error.name}: pip install 'ramferry[fleet]'") from error


@contextmanager
def connected(where: ClusterAddress) -> Iterator[Client]:
    """A client, and with it a cluster of our own. Raises RunFailed."""
    from distributed import Client
    from distributed.security import Security

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if where.workers:
        with _own_cluster(where.workers) as client:
            yield client
        return
    security = None
    if where.tls is not None:
        ca, certificate, key = (str(where.tls / name) for name in TLS_FILES)
        security = Security(
            tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True
        )
    try:
        client = Client(where.address, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
    except Exception as error:  # OSError, TimeoutError, ssl and pickle errors of another version
        raise RunFailed(f"--cluster {where.address}: {_first_line(error)}") from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


@contextmanager
def _own_cluster(count: int) -> Iterator[Client]:
    from distributed import Client, LocalCluster
    from distributed.security import Security

    with tempfile.TemporaryDirectory(prefix="ramferry-dask-") as folder:
        # What starts workers, now and when one has died, inherits this; so do they (`own_worker`).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                resources={"ramferry": 1},
                security=Security.temporary(),
                dashboard_address=NO_OTHER_HOST,
                worker_dashboard_address=NO_OTHER_HOST,
                silence_logs=logging.CRITICAL,
                local_directory=folder,
                memory_limit=0,
                preload=["tools.cluster.own_worker"],
            )
        except Exception as error:  # whatever it is: no cluster
            raise RunFailed(f"--cluster {LOCAL}:{count}: {_first_line(error)}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with cluster, Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=START_SECONDS)
            yield client


def _first_line(error: BaseException) -> str:
    return one_line(error)[:300] or type(error).__name__
