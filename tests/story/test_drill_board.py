"""The board on a terminal and off one, in virtual time."""

import io

from rich.console import Console

from holdfast.drill.board import Board, Line, Row, View, drawn
from holdfast.policy.havoc import Blow, Strike
from holdfast.sim.clock import VirtualClock, run

STRIKE = Strike("replica-1", "boot", Blow.FREEZE, 1.0, "blow 1 of seed 1")


def view(seconds: float) -> View:
    return View(
        title="Holdfast demo",
        seconds=seconds,
        seconds_all=30.0,
        rows=[Row("replica-0", "serving", 41, 7), Row("replica-1", "frozen", 42, 0)],
        lines=[Line("Count from 7 to 68.", "7, 8, 9, [10], 11", 2)],
        strikes=[STRIKE] if seconds >= 1.0 else [],
        answers=12,
        tokens=900,
        tokens_per_s=310.4,
        moves=3,
        pause_ms_max=181.2,
    )


def test_the_board_shows_replicas_streams_and_the_sum() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(drawn(view(17.0)))
    text = console.file.getvalue()
    for wanted in ("replica-0", "serving", "41", "frozen", "Count from 7 to 68.", "[10], 11", "moved 2x"):
        assert wanted in text
    assert "Holdfast demo · 1 streams open" in text
    assert "17 of 30 s · 1 replicas lost · 12 answers · 3 moves · 310 tokens/s · longest pause 181 ms" in text


def told(terminal: bool) -> list[str]:
    out, clock = io.StringIO(), VirtualClock()
    board = Board(Console(file=out, force_terminal=terminal, width=200), clock, lambda: view(clock.now()))
    run(board.run(until=11.0))
    return out.getvalue().splitlines()


def test_off_a_terminal_each_blow_and_every_fifth_second_get_a_line() -> None:
    lines = told(terminal=False)
    assert len(lines) == 3
    assert lines[0] == "   1 s · frozen replica-1"
    assert lines[1].startswith("   5 of 30 s · 1 replicas lost")
    assert lines[2].startswith("  10 of 30 s · 1 replicas lost")


def test_on_a_terminal_the_board_is_drawn_over_itself() -> None:
    text = "\n".join(told(terminal=True))
    assert text.count("Holdfast demo") > 10
    assert "\x1b[" in text
