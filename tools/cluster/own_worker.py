"""Loaded by the workers of a cluster of our own: Ctrl-C is for the command, which then ends them.

Handlers that do nothing, rather than signals that are ignored: a migration that a worker starts would be born
deaf to them too.
"""

from __future__ import annotations

import signal
from typing import Any

from pipeline.processes.signals import ENDING


def dask_setup(worker: Any) -> None:
    """Called by Dask, in the worker's main thread. Until here the signals were blocked (`connect`)."""
    for number in ENDING:
        signal.signal(number, lambda received, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
