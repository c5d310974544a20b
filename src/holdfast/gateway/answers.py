"""What the door answers, as types. Nothing is encoded from them: on the hot path answers are put together from bytes.

The OpenAPI document is made of them (gateway/openapi.py), and tests hold what the door really says against them, so they are
strict: a key that is not here is not sent.
"""

from typing import Any, Literal

from msgspec import Struct


class FunctionCalled(Struct, forbid_unknown_fields=True):
    """A function that the model calls. `arguments` is text, meant to be JSON."""

    name: str
    arguments: str


class CallMade(Struct, forbid_unknown_fields=True):
    id: str
    type: Literal["function"]
    function: FunctionCalled


class MessageSaid(Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None
    tool_calls: list[CallMade] | None = None


class TopLogprob(Struct, forbid_unknown_fields=True):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenSaid(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(Struct, forbid_unknown_fields=True):
    content: list[TokenSaid]


Ending = Literal["stop", "length", "tool_calls", "insufficient_system_resource"]


class ChoiceMade(Struct, forbid_unknown_fields=True):
    index: int
    message: MessageSaid
    logprobs: Logprobs | None
    finish_reason: Ending


class PromptDetails(Struct, forbid_unknown_fields=True):
    cached_tokens: int


class AnswerDetails(Struct, forbid_unknown_fields=True):
    reasoning_tokens: int


class Moves(Struct, forbid_unknown_fields=True):
    """How often the answer changed replicas."""

    moves: int


class Usage(Struct, forbid_unknown_fields=True):
    """Tokens. The prompt's are split by whether a cache held them, as DeepSeek does it and as OpenAI does."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_cache_hit_tokens: int
    prompt_cache_miss_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: AnswerDetails
    holdfast: Moves


class ChatCompletion(Struct, forbid_unknown_fields=True):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChoiceMade]
    usage: Usage


class TextLogprobs(Struct, forbid_unknown_fields=True):
    """Logprobs in the older shape: four lists with one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(Struct, forbid_unknown_fields=True):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Ending


class TextCompletion(Struct, forbid_unknown_fields=True):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class ModelRow(Struct, forbid_unknown_fields=True):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Struct, forbid_unknown_fields=True):
    object: Literal["list"]
    data: list[ModelRow]


class LimitMet(Struct, forbid_unknown_fields=True):
    """Which limit refused the request, how much of it was used, and when it frees."""

    name: str
    used: float
    size: float
    unit: str
    frees_s: float


class ErrorSaid(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`message` names the field and the fix; `code` is a word that stays."""

    message: str
    type: str
    param: str | None
    code: str | None
    limit: LimitMet | None = None


class Error(Struct, forbid_unknown_fields=True):
    error: ErrorSaid


class Live(Struct, forbid_unknown_fields=True):
    live: bool


class Ready(Struct, forbid_unknown_fields=True):
    ready: bool
    why: str


class Tokenized(Struct, forbid_unknown_fields=True):
    """`max_model_len`: what prompt and answer may have together."""

    tokens: list[int]
    count: int
    max_model_len: int


class Detokenized(Struct, forbid_unknown_fields=True):
    prompt: str


class Counted(Struct, forbid_unknown_fields=True):
    input_tokens: int


class ResponseUsage(Struct, forbid_unknown_fields=True):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: AnswerDetails
    total_tokens: int


class Incomplete(Struct, forbid_unknown_fields=True):
    reason: Literal["max_output_tokens"]


class ResponseMade(Struct):
    """OpenAI's Response. `output` holds items of type reasoning, message and function_call. What was asked stands beside it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: Incomplete | None
    model: str
    output: list[dict[str, Any]]
    store: Literal[False]
    usage: ResponseUsage


class AnthropicUsage(Struct):
    input_tokens: int
    output_tokens: int


class AnthropicMessage(Struct, forbid_unknown_fields=True):
    """Anthropic's Message. `content` holds blocks of type thinking, text and tool_use."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: AnthropicUsage


class AnthropicErrorSaid(Struct, forbid_unknown_fields=True, omit_defaults=True):
    type: str
    message: str
    param: str | None = None
    code: str | None = None
    limit: LimitMet | None = None


class AnthropicError(Struct, forbid_unknown_fields=True):
    type: Literal["error"]
    error: AnthropicErrorSaid
    request_id: str | None
