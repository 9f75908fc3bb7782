"""Keys of a TOML table, each checked for its kind and its limits; what nobody asked for is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from guestmem.units import parse_bytes_per_second, parse_size

Table = dict[str, Any]
MOST_SECONDS = 1e7
MOST_BYTES = 1 << 60
LONGEST_TEXT = 4096


def _shown(value: float) -> str:
    return "so large a number" if isinstance(value, int) and abs(value) >= MOST_BYTES else str(value)


class Keys:
    """One table. Every method raises ValueError, which names the table, the key and what is valid."""

    def __init__(self, where: str, raw: object) -> None:
        if not isinstance(raw, dict):
            raise ValueError(f"{where}: must be a table")
        self.where = where
        self._raw: Table = raw
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def _value(self, key: str) -> Any:
        """None where it was left out."""
        self._known.append(key)
        return self._raw.get(key)

    def wrong(self, key: str, why: str) -> ValueError:
        return ValueError(f"{self.where}: {key} {why}" if self.where else f"{key} {why}")

    def text(self, key: str, default: str | None = None) -> str:
        """Printable and not empty; required without a default."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, str) or not value or len(value) > LONGEST_TEXT or not value.isprintable():
            raise self.wrong(key, "must be a printable text that is not empty")
        return value

    def optional(self, key: str) -> str | None:
        """A text, or None."""
        return self.text(key, "") or None

    def choice(self, key: str, names: Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value not in names:
            raise self.wrong(key, f"{value!r} must be one of {', '.join(names)}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number within limits; required without a default."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.wrong(key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "must be a number")
        if not low <= value <= high:  # nor is what is no number
            raise self.wrong(key, f"{_shown(value)} must be {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, low: int, high: int, default: int) -> int:
        value = self._value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "must be a whole number")
        if not low <= value <= high:
            raise self.wrong(key, f"{_shown(value)} must be {low} to {high}")
        return value

    def size(self, key: str, low: int, default: int | None = None) -> int:
        """Bytes, written as a text; required without a default."""
        return self._parsed(key, parse_size, low, default)

    def rate(self, key: str, low: int, default: int | None = None) -> int:
        """Bytes a second, written as a text; required without a default."""
        return self._parsed(key, parse_bytes_per_second, low, default)

    def _parsed(self, key: str, parse: Callable[[str], int], low: int, default: int | None) -> int:
        text = self.text(key, None if default is None else "\0")
        if text == "\0" and default is not None:
            return default
        try:
            value = parse(text)
        except (ValueError, OverflowError) as error:
            raise self.wrong(key, f"{text[:40]!r}: {error}"[:200]) from error
        if not low <= value <= MOST_BYTES:
            raise self.wrong(key, f"{text!r} must be {low} bytes or more, and less than 2^60")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different texts; required."""
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.wrong(key, "must be a list of texts")
        if len(set(value)) < len(value):
            raise self.wrong(key, "names something twice")
        return tuple(value)

    def rows(self, key: str) -> list[Any] | None:
        """A list of anything, or None."""
        value = self._value(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, "must be a list")
        return value

    def tables(self, key: str) -> list[Any]:
        """`[[key]]`, at least one."""
        value = self._value(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"is missing: write [[{key}]]")
        return value

    def table(self, key: str) -> Keys:
        """`[key]`, empty where it was left out."""
        value = self._value(key)
        return Keys(f"[{key}]", {} if value is None else value)

    def done(self) -> None:
        """Refuse what was not asked for."""
        for key in self._raw:
            if key not in self._known:
                raise self.wrong(repr(key), f"is not known; known are {', '.join(self._known)}")
