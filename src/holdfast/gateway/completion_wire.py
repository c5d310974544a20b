"""POST /v1/completions as OpenAI's and DeepSeek's clients write it: raw prompts, and a hole to be filled (`suffix`)."""

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from holdfast.domain.fault import BadRequest
from holdfast.gateway.needs import ModelCard, Needs
from holdfast.gateway.openai_fields import REFUSED_COMPLETION
from holdfast.gateway.openai_wire import CHOICES_MAX, Ask, Wanted, checked, read
from holdfast.gateway.prompting import thinks, too_long
from holdfast.gateway.surface import Prompt

MAX_TOKENS_DEFAULT = 16  # OpenAI's
ECHO_TEXT, ECHO_IDS = b"text", b"ids"  # what is kept for the writer


class CompletionBody(Wanted, kw_only=True):
    """The body as it comes."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    # not served; see openai_fields.REFUSED_COMPLETION
    response_format: None = None
    tools: None = None


class Completion(Ask, kw_only=True):
    """The same as an Ask without messages. Each prompt is text, or ids that are taken as they are."""

    prompts: list[str | list[int]]
    suffix: str | None = None
    echo: bool = False


_DECODER = msgspec.json.Decoder(CompletionBody)
_SAME = Wanted.__struct_fields__


def decode_completion(body: bytes) -> Completion:
    """The body, checked for everything that the body alone can tell.

    Raises:
        BadRequest: not JSON, a field of the wrong type or out of range, or fields that don't fit together.
    """
    said = read(_DECODER, body, REFUSED_COMPLETION)
    prompts = _prompts(said.prompt)
    if said.best_of is not None and said.best_of != (said.n or 1):
        raise BadRequest("best_of is not offered: send n instead, which gives you all of them.", "best_of")
    if said.echo and said.logprobs is not None:
        raise BadRequest("echo has no logprobs of the prompt here; send one of echo and logprobs.", "echo")
    if said.echo and said.suffix:
        raise BadRequest("echo repeats a prompt, but suffix asks for what is between two; send one of them.", "echo")
    ask = Completion(messages=[], prompts=prompts, suffix=said.suffix or None, echo=bool(said.echo), **_same(said))
    ask.max_tokens = said.max_tokens or MAX_TOKENS_DEFAULT
    if said.logprobs is not None:
        ask.logprobs, ask.top_logprobs = True, said.logprobs
    checked(ask)
    return ask


def _same(said: CompletionBody) -> dict[str, Any]:
    return {name: getattr(said, name) for name in _SAME}


def _prompts(said: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """One entry a prompt. Raises BadRequest."""
    if isinstance(said, str):
        return [said]
    if not said:
        raise BadRequest("prompt is empty; send text, token ids, or a list of either.", "prompt")
    if all(isinstance(one, int) for one in said):
        return [cast("list[int]", said)]
    if len(said) > CHOICES_MAX:
        raise BadRequest(f"prompt holds {len(said)} prompts; send at most {CHOICES_MAX} in a request.", "prompt")
    prompts = [one for one in said if not isinstance(one, int)]
    if len(prompts) < len(said) or len({type(one) for one in prompts}) > 1:
        raise BadRequest(
            "prompt mixes text and token ids; send one list of ids, or a list of prompts of one kind.", "prompt"
        )
    return prompts


def completion_prompts(ask: Ask, needs: Needs, card: ModelCard) -> list[Prompt]:
    """The prompts' ids.

    Raises:
        BadRequest: no such model, one that is no list of this model's ids, or one that leaves no room for an answer.
    """
    thinks(ask, card)
    completion, dialect, room = cast(Completion, ask), needs.dialect, card.context_tokens_max
    made = []
    for i, prompt in enumerate(completion.prompts):
        where = "prompt" if len(completion.prompts) == 1 else f"prompt[{i}]"
        least = len(prompt) + len(completion.suffix or "")
        if isinstance(prompt, str):
            least //= dialect.token_bytes_max
        if least >= room:
            raise too_long(f"at least {least}", room, where)
        if isinstance(prompt, str):
            ids = dialect.complete(prompt, completion.suffix)
        else:
            ids = _own_ids(prompt, completion, dialect.vocab_size, where)
        if len(ids) >= room:
            raise too_long(str(len(ids)), room, where)
        made.append(Prompt(ids))
    return made


def _own_ids(prompt: list[int], completion: Completion, vocab_size: int, where: str) -> list[int]:
    if completion.suffix is not None:
        raise BadRequest("suffix needs the prompt as text; send that.", "suffix")
    if not prompt:
        raise BadRequest(f"{where} holds no token; send one at least.", where)
    for token in prompt:
        if not 0 <= token < vocab_size:
            raise BadRequest(f"{where} holds {token}, but token ids are 0 to {vocab_size - 1}.", where)
    return prompt


def keep_echo(ask: Ask) -> bytes:
    """Whether the prompt is repeated, and of which kind it was."""
    completion = cast(Completion, ask)
    if not completion.echo:
        return b""
    return ECHO_TEXT if isinstance(completion.prompts[0], str) else ECHO_IDS
