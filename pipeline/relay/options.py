"""What a relay was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.net.address import Address
from pipeline.net.tls import Tls
from pipeline.relay.codec_pool import PoolOptions
from pipeline.relay.sockets import Access


@dataclass(frozen=True)
class RelayOptions:
    """`listens` and `to` at the source, `accept` and `delivers` at the
    destination. Paths by the migration's name, which is empty for a single one."""

    listens: dict[str, Address]
    to: Address | None
    delivers: dict[str, Address]
    accept: Address | None
    pool: PoolOptions
    connections: int
    max_bandwidth: int
    tls: Tls | None
    secret: bytes | None
    reconnect_seconds: float
    access: Access
    runs: int
    without_return_path: bool
    qmp: str | None = None
    migrate: bool = False
    multifd: int = 0
    metrics: Address | None = None

    @property
    def side(self) -> str:
        return "source" if self.to is not None else "destination"
