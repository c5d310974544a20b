"""The bodies of POST /v1/tokenize and /v1/detokenize, typed."""

from msgspec import Struct

from holdfast.gateway.openai_wire import Thinking, ToolOffered, Turn


class TokenizeBody(Struct):
    """`prompt`, or `messages` as at /v1/chat/completions. `add_special_tokens`: of a prompt, with the mark of the beginning."""

    prompt: str | None = None
    messages: list[Turn] | None = None
    tools: list[ToolOffered] | None = None
    thinking: Thinking | None = None
    add_special_tokens: bool = True
    model: str | None = None


class DetokenizeBody(Struct):
    """`tokens`: ids of this model."""

    tokens: list[int]
    model: str | None = None
