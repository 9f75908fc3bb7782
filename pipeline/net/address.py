"""Where a receiver listens: `HOST:PORT`, `[IPV6]:PORT`, `[IPV6%ZONE]:PORT`, or `unix:PATH`.

A link-local address (fe80::) is of one link alone: its zone says which, by the name or number of the
interface on this host (RFC 4007). The two ends of a link call it by names of their own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from dataclasses import dataclass
from typing import Any

_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[^\[\]/\s]+)?)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})"
)
MAX_UNIX_PATH = 107

SocketAddress = tuple[Any, ...]
"""As the socket module has it: (host, port), and (host, port, flow, zone's number) of IPv6."""

BACKLOG = 128


@dataclass(frozen=True)
class Address:
    """A host and a TCP port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def resolved(self) -> list[tuple[socket.AddressFamily, SocketAddress]]:
        """Families and socket addresses of the host. Raises OSError with what cannot be resolved, and for a
        link-local address without its zone."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise OSError(f"{self.host} cannot be resolved ({error.strerror})") from error
        unique: list[tuple[socket.AddressFamily, SocketAddress]] = list(
            dict.fromkeys((family, address) for family, _, _, _, address in found)
        )
        for family, address in unique:
            if family == socket.AF_INET6 and _lacks_zone(address):
                raise OSError(_which_zone(address[0], self.port))
        return unique

    def check_literal(self) -> None:
        """Raises ValueError for an IPv6 address that is none, or that names no link of this host's."""
        if ":" not in self.host:
            return
        number, _, zone = self.host.partition("%")
        try:
            link_local = ipaddress.IPv6Address(number).is_link_local
        except ValueError as error:
            raise ValueError(f"{number} is no IPv6 address") from error
        if link_local and not zone:
            raise ValueError(_which_zone(number, self.port))
        if zone and not _is_zone(zone):
            here = ", ".join(name for _, name in socket.if_nameindex())
            raise ValueError(f"this host has no interface {zone}; it has {here}")

    def is_local(self) -> bool:
        """Whether bytes to it never leave this host. Raises OSError."""
        if self.path:
            return True
        return all(_number_of(address).is_loopback for _, address in self.resolved())

    def listen(self) -> socket.socket:
        """A listening socket; port 0 takes a free one. Raises OSError."""
        if self.path:
            return _listen_unix(self.path)
        family, address = self.resolved()[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # `[::]` alone also takes IPv4; an address is what it says.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def file(self) -> tuple[int, int] | None:
        """Which file a Unix socket's path names now, by device and inode. Raises OSError."""
        if not self.path:
            return None
        status = os.lstat(self.path)
        return status.st_dev, status.st_ino

    def remove(self, file: tuple[int, int] | None) -> None:
        """Take a Unix socket's file away, unless somebody did, or another stands in its place by now."""
        try:
            if file is not None and self.file() == file:
                os.unlink(self.path)
        except OSError:
            pass  # it is left behind, and the next receiver replaces it

    def connect(self, timeout_seconds: float) -> socket.socket:
        """A connected socket. Raises OSError."""
        if not self.path:
            self.resolved()
            return socket.create_connection((self.host, self.port), timeout_seconds)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_seconds)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock


def _listen_unix(path: str) -> socket.socket:
    """A socket only this user can connect to; a left-over of a receiver that died is replaced."""
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with probe:
                if probe.connect_ex(path) == 0:
                    raise OSError(f"another receiver listens at {path}")
            os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path or len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise ValueError(f"a Unix socket's path has 1 to {MAX_UNIX_PATH} bytes")
        return Address("", 0, path)
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    return Address(match["v6"] or match["host"], int(match["port"]))


def address_of(listener: socket.socket) -> Address:
    """Where a listener really listens."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Address("", 0, str(name))
    return _address(name)


def name_of(peer: object) -> str:
    """What `accept` says of a peer, for a reader."""
    if isinstance(peer, tuple):
        return str(_address(peer))
    return "a local process"


def _address(name: SocketAddress) -> Address:
    """With the zone, where there is one."""
    host = str(name[0]).partition("%")[0]
    return Address(host + (f"%{_zone(int(name[3]))}" if len(name) == 4 and name[3] else ""), int(name[1]))


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _number_of(address: SocketAddress) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(address[0]).partition("%")[0])


def _is_zone(zone: str) -> bool:
    return any(zone in (name, str(index)) for index, name in socket.if_nameindex())


def _which_zone(number: str, port: int) -> str:
    return f"{number} is link-local: say on which interface of this host, [{number}%eth0]:{port}"


def _lacks_zone(address: SocketAddress) -> bool:
    return _number_of(address).is_link_local and not address[3]
