"""Shows a board: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harvest.demo.board import Board, Step, size_text

_LOOK_SECONDS = 0.25
_SPEAK_SECONDS = 5.0


class Display:
    """Writes messages and the state of the board to one stream until it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._board = Board()
        self._live: Live | None = None
        self._closing = threading.Event()
        self._speaker: threading.Thread | None = None

    def say(self, text: str) -> None:
        """A line, above the table if there is one."""
        self._console.print(text, markup=False)

    def show(self, board: Board) -> None:
        """Show this board from now on."""
        self._board = board
        if self._console.is_terminal:
            self._live = Live(get_renderable=lambda: table(board), console=self._console, refresh_per_second=4)
            self._live.start()
        else:
            self._speaker = threading.Thread(target=self._speak, name="speak", daemon=True)
            self._speaker.start()

    def close(self) -> None:
        """Show the last state and stop showing."""
        self._closing.set()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._speaker is not None:
            self._speaker.join()
            self._speaker = None

    def _speak(self) -> None:
        told, quiet = 0, 0.0
        while True:
            closing = self._closing.wait(_LOOK_SECONDS)
            quiet += _LOOK_SECONDS
            steps = list(self._board.steps)
            while told < len(steps) and (steps[told].ended or closing):
                self.say(line(steps[told]))
                told, quiet = told + 1, 0.0
            if closing:
                return
            if quiet > _SPEAK_SECONDS and told < len(steps):
                self.say(f"{line(steps[told])} …")
                quiet = 0.0


def table(board: Board) -> Table:
    """All steps so far."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("step")
    for title in ("files", "bytes", "lag p50 / max", "rate", "seconds", "failed"):
        shown.add_column(title, justify="right")
    for step in list(board.steps):
        mark = "…" if not step.ended else "✗" if step.failed else "✓"
        cells = (step.count_text(), size_text(step.size) if step.size else "", step.lag_text(), step.rate_text())
        failed = f"[red]{step.failed}[/red]" if step.failed else ""
        title = f"{step.title} [dim]{step.note}[/dim]" if step.note else step.title
        shown.add_row(f"{mark} {title}", *cells, f"{step.seconds:.1f}", failed)
    return shown


def line(step: Step) -> str:
    """One step in words."""
    parts = [f"{step.title}: {step.count_text()}"]
    parts += [size_text(step.size)] if step.size else []
    parts += [f"lag p50 / max {step.lag_text()}"] if step.lags else []
    parts += [step.rate_text()] if step.rate_text() else []
    parts += [f"{step.seconds:.1f} s"]
    parts += [f"FAILED {step.failed}"] if step.failed else []
    return ", ".join(parts) + (f" ({step.note})" if step.note else "")
