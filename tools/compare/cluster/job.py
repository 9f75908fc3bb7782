"""What is sent to a worker, and what it sends back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ImageOf:
    """A guest's RAM: a kind of `tools.measuring.images` in so many bytes, or the path of an image."""

    name: str
    size_bytes: int
    fill: str | None


@dataclass(frozen=True)
class Job:
    """One point. `arguments` are those of `pipeline.run` or `pipeline.send`, but for the image."""

    name: str
    campaign: str
    image: ImageOf
    arguments: tuple[str, ...]
    prealloc: bool


@dataclass(frozen=True)
class Certificates:
    """The campaign's certificates: what each file of `--tls-dir` holds, and the name that they are for."""

    name: str
    files: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """A result document, or why there is none. `elsewhere` says that only another host could do it."""

    result: dict[str, Any] | None
    error: str = ""
    elsewhere: bool = False


@dataclass(frozen=True)
class Look:
    """A worker as it shows itself: `name` and `resources` are Dask's."""

    name: str
    resources: dict[str, float]
    machine: str
    hostname: str
    version: str
    record: dict[str, Any]
