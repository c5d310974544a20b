"""The ledger of one machine: the token bucket's own numbers, with several workers, and whoever is killed or frozen."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.board import Rate
from holdfast.domain.settings import BadSettings, Settings
from holdfast.host.clock import MonotonicClock
from holdfast.policy.token_bucket import OwnLedger
from holdfast.store.folder import folder_of
from holdfast.store.ledger import UNUSED_S, FileLedger, open_ledger

RULE = Rate(10.0, 40.0)
NOW = 123_456.0  # a machine that has been up for a day and a half


class Worker:
    """tests/store/ledger_child.py as a process."""

    def __init__(self, folder: Path, workers: int) -> None:
        argv = [sys.executable, str(Path(__file__).parent / "ledger_child.py"), str(folder), str(workers)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sharing = self.hear()

    def say(self, words: str) -> None:
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def freeze(self) -> None:
        """SIGSTOP, and wait until it stands."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def worker(folder: Path) -> Iterator[Callable[[], Worker]]:
    made: list[Worker] = []

    def start(workers: int = 2) -> Worker:
        made.append(Worker(folder, workers))
        return made[-1]

    yield start
    for one in made:
        one.end()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileLedger, FileLedger]:
    folder = tmp_path_factory.mktemp("pair") / "ledger"
    return FileLedger(folder, None, 2, 8192), FileLedger(folder, None, 2, 8192)


steps = st.lists(
    st.tuples(
        st.booleans(), st.floats(0, 4), st.sampled_from((1.0, 7.0, 39.0, 55.0)), st.sampled_from((0.0, 0.0, 3.0, -9.0))
    ),
    min_size=1,
    max_size=60,
)
fresh = iter(range(10**9))


@given(steps)
def test_two_workers_in_turn_are_one_token_bucket(pair, asked):
    """Whoever asks, and in whatever order, the answers are those of one bucket."""
    own, account, now = OwnLedger(), f"turns/{next(fresh)}", NOW
    for second, gap, amount, given_back in asked:
        now += gap
        shared = pair[second]
        if given_back:
            shared.give(account, given_back, RULE, now)
            own.give(account, given_back, RULE, now)
        assert shared.take(account, amount, RULE, now) == pytest.approx(own.take(account, amount, RULE, now), abs=1e-5)
        if given_back:
            pair[not second].give(account, given_back, RULE, now)
            own.give(account, given_back, RULE, now)
        assert shared.level(account, RULE, now) == pytest.approx(own.level(account, RULE, now), abs=1e-4)
        assert pair[not second].level(account, RULE, now) == pytest.approx(shared.level(account, RULE, now), abs=1e-5)


def test_two_processes_at_once_take_exactly_the_burst(worker):
    first, second = worker(), worker()
    assert (first.sharing, second.sharing) == ("alone: one worker on this machine", "workers: 2 on this machine")
    for word in (first, second):
        word.say(f"drain race 0.001 400000 {NOW}")
    taken = int(first.hear()), int(second.hear())
    # when both are too much, both may step back: the last one is then left for whoever asks next
    assert sum(taken) <= 400_000
    first.say(f"drain race 0.001 400000 {NOW}")
    assert sum(taken) + int(first.hear()) == 400_000
    assert min(taken) > 0, "they did not run at the same time"


def test_a_killed_worker_leaves_what_it_used_and_its_number(worker, folder):
    ours = FileLedger(folder, None, 2)
    gone = worker()
    gone.say(f"drain a 10 40 {NOW}")
    assert gone.hear() == "40"
    gone.end()
    assert ours.sharing == "alone: one worker on this machine"
    assert ours.take("a", 1, RULE, NOW) == pytest.approx(0.1)
    next_one = worker()
    next_one.say(f"drain a 10 40 {NOW + 1}")
    assert next_one.hear() == "10"
    assert ours.take("a", 1, RULE, NOW + 1) == pytest.approx(0.1)
    ours.close()


def test_a_frozen_worker_that_sits_on_the_lock_stops_nobody(worker, folder):
    ours = FileLedger(folder, None, 2)
    assert ours.take("known", 10, RULE, NOW) == 0
    holder = worker()
    holder.say("sit")
    assert holder.hear() == "True"
    holder.freeze()
    assert ours.take("known", 30, RULE, NOW) == 0, "an account that is there needs no lock"
    assert ours.take("known", 1, RULE, NOW) == pytest.approx(0.1)
    assert [ours.take("new", 10, RULE, NOW) for _ in range(3)] == [0, 0, pytest.approx(2.0)], "half of burst and rate"
    assert ours.sharing == "workers: 2 on this machine; 1 accounts at 1/2: another worker sits on the ledger's lock"
    holder.end()
    assert ours.take("new", 10, RULE, NOW + 2) == 0
    assert ours.sharing == "alone: one worker on this machine"
    assert ours.level("new", RULE, NOW + 2) == pytest.approx(40 - 10), "20 were charged, and 20 have flowed in since"
    ours.close()


def test_a_frozen_worker_in_the_midst_of_its_requests_stops_nobody(worker, folder):
    ours = FileLedger(folder, None, 2)
    frozen = worker()
    frozen.say(f"drain hot 1000 1e9 {NOW}")
    while ours.level("hot", Rate(1000.0, 1e9), NOW) == 1e9:
        pass  # until it takes
    frozen.freeze()
    left = ours.level("hot", Rate(1000.0, 1e9), NOW)
    assert ours.take("hot", left, Rate(1000.0, 1e9), NOW) == 0
    assert ours.take("hot", 1, Rate(1000.0, 1e9), NOW) > 0
    assert ours.take("hot", 1000, Rate(1000.0, 1e9), NOW + 1) == 0
    assert ours.take("hot", 1, Rate(1000.0, 1e9), NOW + 1) > 0
    ours.close()


def test_the_last_one_that_leaves_removes_the_folder(folder):
    first, second = FileLedger(folder, None, 2), FileLedger(folder, None, 2)
    first.close()
    assert folder.exists()
    second.close()
    assert not folder.exists()
    assert second.take("a", 1, RULE, NOW) == 0
    assert second.sharing == "alone, at 1/2 of each rate: its ledger is closed"


def test_a_file_that_was_removed_is_made_again(folder):
    first, second = FileLedger(folder, None, 2), FileLedger(folder, None, 2)
    assert first.take("a", 40, RULE, NOW) == 0
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    assert first.take("a", 30, RULE, NOW + 10) == 0
    assert second.level("a", RULE, NOW + 10) == pytest.approx(10)
    first.close()
    second.close()


def test_a_folder_of_somebody_else_is_not_used(folder):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    ledger = FileLedger(folder, None, 4)
    assert ledger.sharing.startswith("alone, at 1/4 of each rate: the ledger's file can't be used: ")
    assert [ledger.take("a", 10, RULE, NOW) for _ in range(2)] == [0, pytest.approx(4.0)]
    ledger.give("a", 10, RULE, NOW)
    assert ledger.level("a", RULE, NOW) == 10


def test_rows_run_out_and_unused_ones_come_back(folder):
    ledger = FileLedger(folder, None, 3)
    rows = 256
    for number in range(rows):
        assert ledger.take(f"t{number}", 40, RULE, NOW) == 0
    assert [ledger.take("late", 10, RULE, NOW) for _ in range(2)] == [0, pytest.approx(2.0)], (
        "a third of burst and rate"
    )
    assert "all 256 rows of the ledger are taken" in ledger.sharing
    debtor = NOW + UNUSED_S - 60
    ledger.give("t7", -10_000, RULE, debtor)
    later = NOW + UNUSED_S + 1
    assert ledger.take("late", 10, RULE, later) == 0
    assert ledger.level("late", RULE, later) == pytest.approx(30)
    for number in range(1000, 1000 + rows):
        ledger.take(f"t{number}", 1, RULE, later)
    assert ledger.level("t7", RULE, later) < -3000, "an account that owes keeps its row"
    ledger.close()


def test_a_row_that_was_given_to_another_account_is_not_written(folder):
    first, second = FileLedger(folder, None, 2), FileLedger(folder, None, 2)
    assert first.take("old", 1, RULE, NOW) == 0
    later = NOW + UNUSED_S + 10
    for number in range(256):
        second.take(f"t{number}", 40, RULE, later)
    assert first.take("old", 1, RULE, later) == 0
    assert [second.level(f"t{number}", RULE, later) for number in range(255)] == [0] * 255
    first.close()
    second.close()


def test_a_rate_that_changes_is_another_account(folder):
    ledger = FileLedger(folder, None, 1)
    assert ledger.take("a", 40, RULE, NOW) == 0
    assert ledger.take("a", 40, Rate(20.0, 40.0), NOW) == 0
    assert ledger.take("a", 1, Rate(20.0, 40.0), NOW) == pytest.approx(0.05)
    ledger.close()


def test_the_settings_choose(tmp_path):
    settings = Settings(site=structs.replace(Settings().site, state_dir=str(tmp_path)))
    folder = folder_of(settings)
    ledger, run = open_ledger(settings, folder, MonotonicClock(), lambda event: None)
    assert (ledger.sharing, run) == ("alone: one worker on this machine", None)
    for url in ("http://here", "not an address"):
        elsewhere = structs.replace(settings, admission=structs.replace(settings.admission, shared_url=url))
        with pytest.raises(BadSettings, match=r"\[admission\] shared_url"):
            open_ledger(elsewhere, folder, MonotonicClock(), lambda event: None)
    ledger.close()
