"""How a stream's block is compressed: by a picker of `pipeline.auto`, with its history or without."""

from __future__ import annotations

from typing import Protocol

from pipeline.auto.picker import AutoPicker, FixedPicker
from pipeline.codecs.method import Method, QatWork
from pipeline.errors import FerryError
from pipeline.relay.lanes import Histories


class StreamPicker(Protocol):
    """Chooses and compresses, for one thread."""

    @property
    def qat(self) -> QatWork:
        """What a device did."""

    def pick(self, pages: int) -> Method:
        """As `pipeline.auto.picker.Picker` has it."""

    def compress(
        self, plain: memoryview, payload: memoryview, histories: Histories | None
    ) -> tuple[int, int]:
        """The length, and the `history` of the block's frame; with one it is to be sent however long it is.
        Raises FerryError."""

    def close(self) -> None:
        """As `pipeline.auto.picker.Picker` has it."""


class AutoStreamPicker:
    """One of auto's two candidates."""

    def __init__(self, picker: AutoPicker) -> None:
        self._picker = picker
        self.pick, self.close = picker.pick, picker.close

    @property
    def qat(self) -> QatWork:
        return self._picker.qat

    def compress(
        self, plain: memoryview, payload: memoryview, histories: Histories | None
    ) -> tuple[int, int]:
        if histories is None:
            return self._picker.compress(plain, payload), 0
        histories.mark = 0
        self._picker.with_history = histories
        try:
            return self._picker.compress(plain, payload), histories.mark
        except FerryError:
            histories.forget()
            raise
        finally:
            self._picker.with_history = None


class FixedStreamPicker:
    """One method and level."""

    def __init__(self, picker: FixedPicker, method: Method, level: int) -> None:
        self._picker, self._method, self._level = picker, method, level
        self.pick, self.close = picker.pick, picker.close

    @property
    def qat(self) -> QatWork:
        return self._picker.qat

    def compress(
        self, plain: memoryview, payload: memoryview, histories: Histories | None
    ) -> tuple[int, int]:
        encoder = histories.encoder(self._method, self._level) if histories is not None else None
        if histories is None or encoder is None:
            return self._picker.compress(plain, payload), 0
        try:
            return encoder.compress(plain, payload), histories.mark
        except FerryError:
            histories.forget()
            raise
