"""How both ends of a migration trust each other, as `send` and `recv` take it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trust:
    """One of these; without any nothing is carried out."""

    tls_dir: str | None = None
    secret: str | None = None
    insecure: bool = False

    @property
    def options(self) -> list[str]:
        found = [] if self.tls_dir is None else ["--tls-dir", self.tls_dir]
        found += [] if self.secret is None else ["--secret", self.secret]
        return [*found, *(["--insecure"] if self.insecure else [])]
