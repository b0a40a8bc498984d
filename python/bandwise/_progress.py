"""How far the work is, on the standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

Progress = Callable[[str, int, int, str], None]


class Told:
    """`progress` as users give it: `True` for lines on the standard error, `False` for silence, or a function of
    stage, pieces done, pieces in all and a message; lines that are to stay come with an empty stage."""

    def __init__(self, progress: bool | Progress) -> None:
        self._shown = ""
        self.function: Progress | None = self._print if progress is True else (progress or None)

    def _print(self, stage: str, done: int, total: int, message: str) -> None:
        if not stage:
            self._clear()
            print(message, file=sys.stderr)
            return
        if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            return
        line = f"{stage} {done}/{total}" + (f" ({message})" if message else "")
        sys.stderr.write("\r" + line.ljust(len(self._shown)))
        sys.stderr.flush()
        self._shown = line

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""

    def __enter__(self) -> Progress | None:
        return self.function

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
