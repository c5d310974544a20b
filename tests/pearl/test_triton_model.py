"""The model inside Triton, without Triton: how a request is read, and the two threads over a scripted core."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.domain.fault import BadRequest
from holdfast.domain.ports import Produced, Work
from holdfast.domain.request import Finish
from holdfast.pearl.triton_model import Loop, work_of
from holdfast.sim.scripted import Script, ScriptedCore, scripted_answer

SCRIPT = Script(slots=2, queue_max=1)


def reader(**tensors: list[Any]) -> Callable[[str], list[Any]]:
    return lambda name: tensors.get(name, [])


def test_what_was_delivered_is_the_end_of_the_ids() -> None:
    work = work_of(
        reader(input_ids=[5, 6, 7, 8], delivered_len=[3], request_output_len=[10], seed=[9], stop_ids=[1, 2])
    )
    assert (work.prompt_ids, work.delivered_ids) == ([5], [6, 7, 8])
    assert work.max_tokens == 13, "it bounds the whole answer"
    assert (work.seed, work.stop_ids) == (9, (1, 2))


def test_what_is_not_sent_has_the_usual_value() -> None:
    work = work_of(reader(input_ids=[5]))
    assert (work.max_tokens, work.sampling.temperature, work.sampling.logprobs, work.sampling.grammar) == (
        16,
        1.0,
        -1,
        "",
    )


@pytest.mark.parametrize("delivered", [-1, 3, 4])
def test_a_prompt_must_be_left(delivered: int) -> None:
    with pytest.raises(BadRequest) as told:
        work_of(reader(input_ids=[5, 6, 7], delivered_len=[delivered]))
    assert told.value.param == "delivered_len"


def test_a_bias_that_is_none_names_its_field() -> None:
    assert work_of(reader(input_ids=[5], logit_bias=[b"[[7, -1.5]]"])).sampling.logit_bias == ((7, -1.5),)
    with pytest.raises(BadRequest) as told:
        work_of(reader(input_ids=[5], logit_bias=[b"{}"]))
    assert told.value.param == "logit_bias"


def work(prompt: int, max_tokens: int = 20) -> Work:
    return Work(
        prompt_ids=[prompt], delivered_ids=[], sampling=work_of(reader(input_ids=[5])).sampling,
        max_tokens=max_tokens, seed=1, stop_ids=(),
    )  # fmt: skip


class Ears:
    """Hears what the loop gives, on whatever thread."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}
        self.ends: dict[int, str] = {}
        self.over = threading.Semaphore(0)

    def give(self, produced: list[Produced]) -> None:
        for one in produced:
            self.ids.setdefault(one.ticket, []).extend(one.ids)
            if one.finish is not None:
                self.fail(one.ticket, one.finish)

    def fail(self, ticket: int, why: str) -> None:
        self.ends[ticket] = why
        self.over.release()


def test_answers_that_come_while_it_runs_join_the_batch_and_it_ends_once_they_have() -> None:
    ears = Ears()
    loop = Loop(ScriptedCore(SCRIPT), ears.give, ears.fail)
    loop.thread.start()
    for ticket in (1, 2):
        loop.put(ticket, work(20 + ticket))
    assert ears.over.acquire(timeout=10)
    loop.close()
    loop.thread.join(10)
    assert not loop.thread.is_alive()
    for ticket in (1, 2):
        assert ears.ids[ticket] == scripted_answer([20 + ticket], 1, 20, SCRIPT)
        assert ears.ends[ticket] == Finish.LENGTH


def test_one_that_is_not_taken_is_told_why_and_one_that_is_aborted_leaves() -> None:
    ears = Ears()
    loop = Loop(ScriptedCore(SCRIPT), ears.give, ears.fail)
    loop.put(1, work(600))
    loop.put(2, work(30, max_tokens=4000))
    loop.put(3, work(31))
    loop.abort(2)
    loop.close()
    loop.thread.start()
    loop.thread.join(10)
    assert not loop.thread.is_alive(), "the aborted answer would have taken 4000 steps"
    assert ears.ends[1].startswith("bad request: prompt_ids: ")
    assert 2 not in ears.ends
    assert ears.ends[3] == Finish.LENGTH


def test_a_core_that_fails_takes_its_process_with_it() -> None:
    script = (
        "from holdfast.pearl.triton_model import Loop, work_of\n"
        "from holdfast.sim.scripted import Poison, Script, ScriptedCore\n"
        "loop = Loop(ScriptedCore(Script(poisons=(Poison(7),))), print, print)\n"
        "loop.put(1, work_of(lambda name: [7] if name == 'input_ids' else []))\n"
        "loop.thread.start()\n"
        "loop.thread.join(20)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 70
    assert "token id 7 is poison" in ended.stderr
