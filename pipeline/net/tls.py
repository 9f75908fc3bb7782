"""TLS 1.3 between two hosts that both show certificates, with names checked and no way around it.

The files are those of Cloud Hypervisor's migration: `ca-cert.pem`, and `server-cert.pem` with
`server-key.pem` at the receiver, `client-cert.pem` with `client-key.pem` at the sender.
`tools/make_certs.sh` makes them for a lab.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from qat.scripts import shipped_script

CA, SERVER, CLIENT = "ca-cert.pem", "server", "client"
TOO_OPEN = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Tls:
    """Certificates of this side, and the name that the other side's must have.

    `peer_names` empty: the certificate must name the address that the peer has.
    """

    folder: str
    peer_names: tuple[str, ...]

    def context(self, role: str) -> ssl.SSLContext:
        """For the `server` (the receiver) or the `client`. Raises UsageError for files that do not do."""
        here = Path(self.folder)
        certificate, key, ca = here / f"{role}-cert.pem", here / f"{role}-key.pem", here / CA
        for path in (ca, certificate, key):
            if not path.is_file() or not os.access(path, os.R_OK):
                script = shipped_script("make_certs.sh")
                raise UsageError(f"--tls-dir {self.folder}: {path.name} cannot be read; {script} makes one")
        if key.stat().st_mode & TOO_OPEN:
            raise UsageError(f"--tls-dir {self.folder}: {key.name} is open to others; chmod 600 {key}")
        protocol = ssl.PROTOCOL_TLS_SERVER if role == SERVER else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(protocol)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        # Names are checked by `name_refusal`, on both sides alike, right after the handshake.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if role == SERVER:
            context.num_tickets = 0
        try:
            context.load_verify_locations(ca)
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"--tls-dir {self.folder}: {_reason(error)}") from error
        return context

    def name_refusal(self, sock: ssl.SSLSocket, peer_host: str) -> str:
        """Why the peer's certificate is not that of the peer that is meant; empty when it is."""
        certificate: dict[str, Any] = sock.getpeercert() or {}
        wanted = self.peer_names or ((peer_host,) if peer_host else ())
        if not wanted:
            return "a Unix socket has no name to check: say --tls-peer NAME"
        names = certificate_names(certificate)
        if any(_same(name, want) for name in names for want in wanted):
            return ""
        has = ", ".join(names) or "no name"
        return f"the peer's certificate is for {has}, not for {' or '.join(wanted)}; see --tls-peer"


def certificate_names(certificate: dict[str, Any]) -> list[str]:
    """DNS names and addresses of a certificate (subjectAltName; a common name is no name)."""
    return [
        str(value).strip()
        for kind, value in certificate.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    ]


def _same(name: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(wanted.split("%")[0])
    except ValueError:
        return name.lower().rstrip(".") == wanted.lower().rstrip(".")


def fingerprint(sock: ssl.SSLSocket) -> bytes:
    """SHA-256 of the peer's certificate: the same peer shows the same on every connection."""
    return hashlib.sha256(sock.getpeercert(binary_form=True) or b"").digest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def tls_reason(error: ssl.SSLError) -> str:
    """An error of a handshake, for a user."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {error.verify_message}"
    reason = _reason(error).replace("_", " ").lower()
    if "wrong version" in reason or "record layer" in reason or "http request" in reason:
        return "the peer does not speak TLS 1.3"
    return f"TLS: {reason}"
