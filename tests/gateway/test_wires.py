"""Bodies of the translated APIs that nobody should send: each is understood or refused by name, and nothing else."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from doorway import CARD, PEARL, HandClock
from hypothesis import given, settings
from hypothesis import strategies as st
from test_anthropic import body as message_body
from test_responses import body as response_body

from holdfast.domain.fault import BadRequest
from holdfast.gateway import anthropic_wire, responses_wire
from holdfast.gateway.needs import Needs
from holdfast.policy.continuation import promise

NEEDS = Needs(
    service=lambda generation: iter(()),
    dialect=PEARL,
    card=lambda: CARD,
    contract=promise,
    ready=lambda: (True, ""),
    clock=HandClock(),
    unix_s=lambda: 0.0,
    bits=lambda count: 0,
    emit=lambda event: None,
)
WORDS = st.sampled_from(
    ["", "auto", "any", "none", "tool", "function", "function_call", "function_call_output", "message", "reasoning", "text",
     "input_text", "tool_use", "tool_result", "thinking", "assistant", "user", "system", "json_schema", "enabled", "x", "\x00é🦜"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["type", "role", "content", "text", "name", "id", "call_id", "arguments", "output", "input", "tool_use_id", "tools", "schema",
     "format", "parameters", "input_schema", "thinking", "summary", "mode", "budget_tokens", "effort", "user_id"]
)  # fmt: skip
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
APIS: list[tuple[dict[str, Any], Callable[[bytes], Any], Any]] = [
    (response_body(), responses_wire.decode, responses_wire.prompts),
    (message_body(), anthropic_wire.decode, anthropic_wire.prompts),
]


@settings(max_examples=400, deadline=None)
@given(st.data())
@pytest.mark.parametrize(("sound", "decode", "prompts"), APIS)
def test_a_body_is_understood_or_refused(sound: dict[str, Any], decode: Any, prompts: Any, data: st.DataObject) -> None:
    fields = [
        *sound,
        "tools",
        "tool_choice",
        "system",
        "instructions",
        "thinking",
        "text",
        "reasoning",
        "metadata",
        "output_config",
    ]
    changed = data.draw(st.dictionaries(st.sampled_from(fields), VALUES, max_size=3))
    try:
        sent = msgspec.json.encode(sound | changed)
    except OverflowError:
        sent = str(sound | changed).replace("'", '"').replace("None", "null").replace("True", "true").encode()
    try:
        prompts(decode(sent), NEEDS, CARD)
    except BadRequest as refused:
        assert refused.why
