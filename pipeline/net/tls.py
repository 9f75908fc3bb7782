"""TLS 1.3 between two hosts that both show certificates, with names checked and no way around it.

The files are those of Cloud Hypervisor's migration: `ca-cert.pem`, and `server-cert.pem` with
`server-key.pem` at the receiver, `client-cert.pem` with `client-key.pem` at the sender.
`tools/make_certs.sh` makes them for a lab.
"""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import re
import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from qat.scripts import shipped_script

CA, SERVER, CLIENT = "ca-cert.pem", "server", "client"
_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME_DIGITS = 12
_VALIDITY = re.compile(
    rb"\x30[\x1e-\x22](?:\x17\x0d|\x18\x0f)(?P<begin>\d{12,14}Z)(?:\x17\x0d|\x18\x0f)(?P<end>\d{12,14}Z)"
)
"""Validity in DER: a SEQUENCE of two times, each a UTCTime of 13 bytes or a GeneralizedTime of 15."""

EXTENDED_KEY_USAGE = bytes.fromhex("0603551d25")
"""The extension's identifier, 2.5.29.37, in DER (RFC 5280, 4.2.1.12); the purposes stand behind it."""

ANY_PURPOSE = bytes.fromhex("0604551d2500")
PURPOSES = {SERVER: bytes.fromhex("06082b06010505070301"), CLIENT: bytes.fromhex("06082b06010505070302")}

UNFIT_KEYS = {
    "EE_KEY_TOO_SMALL": "has a key that is too small for OpenSSL: make one of RSA 2048 bits, or EC P-256",
    "CA_KEY_TOO_SMALL": "has an authority whose key is too small for OpenSSL: RSA 2048 bits, or EC P-256",
    "CA_MD_TOO_WEAK": "is signed with a digest that is too weak for OpenSSL: sign it with SHA-256",
    "UNKNOWN_CERTIFICATE_TYPE": "has a key that cannot sign: make one of RSA, EC or Ed25519",
}
"""By what OpenSSL says of a key that is whole and will not do."""

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
            self._check_file(path, "PRIVATE KEY" if path is key else "CERTIFICATE")
        if key.stat().st_mode & TOO_OPEN:
            raise self._refused(key, f"is open to others; chmod 600 {key}")
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
        except (ssl.SSLError, OSError) as error:
            raise self._refused(ca, f"cannot be used: {_reason(error)}") from error
        self._load_pair(context, certificate, key)
        self._check_purpose(certificate, role)
        self._check_dates(ca, certificate)
        return context

    def _refused(self, path: Path, why: str) -> UsageError:
        return UsageError(f"--tls-dir {self.folder}: {path.name} {why}")

    def _check_file(self, path: Path, kind: str) -> None:
        """Raises UsageError for what holds nothing of that kind in PEM."""
        if not path.exists():
            raise self._refused(path, f"cannot be read; {shipped_script('make_certs.sh')} makes one")
        if not path.is_file():
            raise self._refused(path, "is not a regular file")
        try:
            found = path.read_bytes()
        except OSError as error:
            raise self._refused(path, f"cannot be read: {error.strerror}") from error
        if not found.strip():
            raise self._refused(path, "is empty")
        begin = re.compile(rb"-----BEGIN [A-Z0-9 ]*%s-----" % kind.encode())
        if not begin.search(found):
            what = f"a {kind.lower()}"
            raise self._refused(path, f"is not {what} in PEM: no line says -----BEGIN ... {kind}-----")
        if not re.search(rb"-----END [A-Z0-9 ]*%s-----" % kind.encode(), found):
            raise self._refused(path, f"is cut short: no line says -----END ... {kind}-----")

    def _load_pair(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        def refuse_phrase() -> str:
            raise self._refused(
                key,
                f"is encrypted, and nobody is there to type its pass phrase: openssl pkey -in {key} -out ...",
            )

        try:
            context.load_cert_chain(certificate, key, password=refuse_phrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise self._refused(key, f"is not the key of {certificate.name}") from error
            if error.reason in UNFIT_KEYS:
                raise self._refused(certificate, UNFIT_KEYS[error.reason]) from error
            if error.reason:
                raise self._refused(certificate, f"cannot be used: {_reason(error)}") from error
            # OpenSSL's PEM reader gives no reason, and does not say which of the two it stumbled on.
            bad = certificate if _is_damaged(certificate) else key
            raise self._refused(bad, "is damaged: OpenSSL cannot read it") from error
        except OSError as error:
            raise self._refused(key, f"cannot be read: {error.strerror or error}") from error

    def _check_purpose(self, certificate: Path, role: str) -> None:
        """Raises UsageError for one that may serve the other role only: the peer would refuse it, late."""
        own, *_ = (*_certificates_in(certificate), b"")
        if EXTENDED_KEY_USAGE in own and PURPOSES[role] not in own and ANY_PURPOSE not in own:
            raise self._refused(
                certificate, f"is not made for a {role} (extendedKeyUsage): were two files swapped?"
            )

    def _check_dates(self, ca: Path, certificate: Path) -> None:
        """Raises UsageError for what has expired or is not valid yet, which the peer would say late."""
        now = time.time()
        for path in (ca, certificate):
            dates = [_dates(der) for der in _certificates_in(path)]
            # Of an authority's file any may be the one; the first of the other is this side's own.
            judged = dates if path == ca else dates[:1]
            if judged and not any(begin <= now <= end for begin, end in judged):
                begin, end = judged[0]
                when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(begin if now < begin else end))
                what = "is not valid before" if now < begin else "expired"
                raise self._refused(path, f"{what} {when}" + ("; is the clock right?" if now < begin else ""))

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


def _certificates_in(path: Path) -> list[bytes]:
    """The certificates of a file, in DER."""
    return [ssl.PEM_cert_to_DER_cert(text) for text in _PEM.findall(path.read_text(errors="replace"))]


def _is_damaged(certificate: Path) -> bool:
    try:
        ssl.create_default_context(cadata=b"".join(_certificates_in(certificate)))
    except (ssl.SSLError, ValueError):
        return True
    return False


def _dates(der: bytes) -> tuple[float, float]:
    """From when and until when a certificate is valid, seconds of the epoch (RFC 5280, 4.1: Validity).

    The ssl module tells no dates of a certificate that is no authority's.
    """
    validity = _VALIDITY.search(der)
    if validity is None:
        return 0.0, float("inf")  # OpenSSL has read it, and judges it in the handshake
    return _time_of(validity["begin"]), _time_of(validity["end"])


def _time_of(text: bytes) -> float:
    digits = text.decode().rstrip("Z")
    if len(digits) == _UTC_TIME_DIGITS:
        digits = ("19" if digits >= "5" else "20") + digits
    try:
        return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S")))
    except ValueError:
        return 0.0


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
