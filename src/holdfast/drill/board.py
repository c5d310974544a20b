"""The live board of a demo: replicas, streams, moves, pauses. On anything but a terminal, plain lines instead."""

from collections.abc import Callable

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast.domain.ports import Clock
from holdfast.policy.havoc import Blow, Strike

DRAW_S = 0.125
LINE_S = 5.0
STREAMS_SHOWN = 8
TAIL_CHARS = 48
COLOURS = {"serving": "green", "starting": "yellow", "killed": "bold red", "frozen": "bold cyan"}


class Row(Struct, frozen=True):
    """One replica."""

    name: str
    state: str
    pid: int
    running: int


class Line(Struct, frozen=True):
    """One open stream."""

    prompt: str
    said: str
    moves: int


class View(Struct, frozen=True, kw_only=True):
    """Everything the board shows at one moment. Times in seconds since the havoc began."""

    title: str
    seconds: float
    seconds_all: float
    rows: list[Row]
    lines: list[Line]
    strikes: list[Strike]
    answers: int
    tokens: int
    tokens_per_s: float
    moves: int
    pause_ms_max: float

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.seconds:4.0f} of {self.seconds_all:.0f} s · {len(self.strikes)} replicas lost · {self.answers} answers · "
            f"{self.moves} moves · {self.tokens_per_s:.0f} tokens/s · longest pause {self.pause_ms_max:.0f} ms"
        )


def drawn(view: View) -> RenderableType:
    """The board."""
    title = Text(f"{view.title} · {len(view.lines)} streams open", style="bold")
    replicas = Table(expand=False)
    for column in ("replica", "state", "pid", "answers in work"):
        replicas.add_column(column)
    for row in view.rows:
        state = Text(row.state, style=COLOURS.get(row.state, ""))
        replicas.add_row(row.name, state, str(row.pid or ""), "█" * min(row.running, 40) + f" {row.running}")
    streams = Table(show_header=False, box=None, padding=(0, 1))
    for line in view.lines[:STREAMS_SHOWN]:
        said = line.said.replace("\n", " ")[-TAIL_CHARS:]
        moved = Text(f"moved {line.moves}x" if line.moves else "", style="cyan")
        streams.add_row(Text(line.prompt[:30], style="dim"), Text(said), moved)
    return Group(title, replicas, Text(view.summary()), Text(), streams)


class Board:
    """Shows `look()` until the clock says `until`."""

    def __init__(self, console: Console, clock: Clock, look: Callable[[], View]) -> None:
        self._console, self._clock, self._look = console, clock, look

    async def run(self, until: float) -> None:
        """Draw on a terminal; print a line every few seconds, and one for each blow, elsewhere."""
        if self._console.is_terminal:
            await self._draw(until)
        else:
            await self._print(until)

    async def _draw(self, until: float) -> None:
        with Live(drawn(self._look()), console=self._console, auto_refresh=False) as live:
            while self._clock.now() < until:
                live.update(drawn(self._look()), refresh=True)
                await self._clock.sleep(DRAW_S)

    async def _print(self, until: float) -> None:
        due, told = self._clock.now() + LINE_S, 0
        while self._clock.now() < until:
            view = self._look()
            for strike in view.strikes[told:]:
                self._console.print(
                    f"{view.seconds:4.0f} s · {blow_word(strike.blow)} {strike.replica}", highlight=False
                )
            told = len(view.strikes)
            if self._clock.now() >= due:
                due += LINE_S
                self._say(view.summary())
            await self._clock.sleep(DRAW_S)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def blow_word(blow: Blow) -> str:
    """What a blow has made of a replica."""
    return blow.word
