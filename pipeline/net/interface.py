"""Which network interface of this host a peer is reached over."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
from pathlib import Path

SIOCGIFADDR = 0x8915
"""linux/sockios.h; struct ifreq is the name in 16 bytes, then a sockaddr_in (netdevice(7))."""

IFREQ_BYTES, NAME_BYTES, ADDRESS_AT = 40, 15, 20
IF_INET6 = Path("/proc/net/if_inet6")
ANY_PORT = 9


def interface_to(host: str) -> str | None:
    """By the address that a datagram to it would come from; None where nobody knows. Nothing is sent."""
    if not host:
        return None
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, ANY_PORT, type=socket.SOCK_DGRAM)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            own = str(sock.getsockname()[0]).partition("%")[0]
            return _of_v4(sock, own) if family == socket.AF_INET else _of_v6(own)
    except OSError:
        return None


def _of_v4(sock: socket.socket, own: str) -> str | None:
    for _, name in socket.if_nameindex():
        request = bytearray(IFREQ_BYTES)
        request[: len(name)] = name.encode()[:NAME_BYTES]
        try:
            fcntl.ioctl(sock, SIOCGIFADDR, request)
        except OSError:
            continue  # an interface without an address
        if socket.inet_ntoa(request[ADDRESS_AT : ADDRESS_AT + 4]) == own:
            return name
    return None


def _of_v6(own: str) -> str | None:
    wanted = ipaddress.IPv6Address(own).packed.hex()
    for line in IF_INET6.read_text().splitlines():
        address, *_, name = line.split()
        if address == wanted:
            return name
    return None
