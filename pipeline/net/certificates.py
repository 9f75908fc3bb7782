"""Certificates of a command that outlives them: read again for each use, so that renewed ones are taken."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from pipeline.errors import UsageError
from pipeline.net.tls import Tls


class Certificates:
    """Those that were good stay in use while the files cannot be."""

    def __init__(self, tls: Tls, role: str, warn: Callable[[str], None]) -> None:
        """Raises UsageError for certificates that cannot be used."""
        self._tls, self._role = tls, role
        self._warn = warn
        self._good = tls.context(role)
        self._warned = ""

    def context(self) -> ssl.SSLContext:
        """What the next session or connection uses."""
        try:
            self._good, self._warned = self._tls.context(self._role), ""
        except UsageError as error:
            if self._warned != str(error):
                self._warned = str(error)
                self._warn(f"{error}; the certificates that were read before stay in use")
        return self._good
