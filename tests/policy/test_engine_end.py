"""How a foreign engine ended, from its exit and its last lines, in the form in which vLLM writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.engine_end import crash_of
from holdfast.policy.poison import Death

HEARSAY = [
    "(APIServer pid=7) ERROR 11-29 18:00:01 [async_llm.py:660] AsyncLLM output_handler failed.",
    "(APIServer pid=7) ERROR 11-29 18:00:01 [async_llm.py:660] Traceback (most recent call last):",
    "(APIServer pid=7) ERROR 11-29 18:00:01 [async_llm.py:660] vllm.v1.engine.exceptions.EngineDeadError: EngineCore "
    "encountered an issue. See stack trace (above) for the root cause.",
]
OWN = [
    "(EngineCore pid=9) ERROR 11-29 18:00:00 [core.py:900] EngineCore encountered a fatal error.",
    "(EngineCore pid=9) ERROR 11-29 18:00:00 [core.py:900] RuntimeError: CUDA error: an illegal memory access",
]
MEMORY = ["(EngineCore pid=9) ERROR [core.py:900] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."]


@pytest.mark.parametrize(
    ("exit_code", "lines", "told"),
    [
        (-9, [], ""),
        (-15, ["INFO: Shutting down"], ""),
        (1, HEARSAY, ""),
        (1, [*OWN, *HEARSAY], "engine vllm: RuntimeError"),
        (1, [*MEMORY, *HEARSAY], "engine vllm: torch.OutOfMemoryError: out of memory"),
        (-11, ["!!!!!!! Segfault encountered !!!!!!!"], "engine vllm: SIGSEGV"),
        (-6, [], "engine vllm: SIGABRT"),
        (1, ["something ended"], ""),
        (None, [], ""),
    ],
)
def test_a_crash_is_told_by_its_kind_alone(exit_code: int | None, lines: list[str], told: str) -> None:
    assert crash_of("vllm", exit_code, lines) == told


def test_a_crash_is_loud_and_a_lack_of_memory_is_not() -> None:
    assert Death(boot="b", crash=crash_of("vllm", 1, OWN)).loud
    assert not Death(boot="b", crash=crash_of("vllm", 1, MEMORY)).loud
    assert not Death(boot="b", crash=crash_of("vllm", -9, [])).loud


@given(st.lists(st.text()), st.one_of(st.none(), st.integers(-64, 255)))
def test_nothing_that_an_engine_says_is_quoted(lines: list[str], exit_code: int | None) -> None:
    told = crash_of("vllm", exit_code, [*lines, "the prompt was: hunter2 ValueError: hunter2"])
    assert told == "engine vllm: ValueError"
