"""What the gateway needs of a dialect: messages in, prompt ids out; token ids in, text and tool calls out.

A dialect is one generation of DeepSeek's chat format. Its parser is incremental and can be rebuilt from any transcript:
feeding the delivered ids to a fresh parser leaves it where the old one stood, so the text on both sides of a move joins
without a seam.
"""

from typing import Any, Protocol

from msgspec import Struct


class ToolCall(Struct, frozen=True):
    """A complete call. `arguments` is the text that the model wrote (meant to be JSON, not checked)."""

    name: str
    arguments: str
    id: str = ""


class Tool(Struct, frozen=True):
    """A function that the model may call. `parameters` is its JSON schema, or None when it takes none."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class Message(Struct, frozen=True):
    """One turn. Roles: system, developer, user, assistant, tool. `prefix` on a last assistant turn: to be continued.

    `reasoning`: what an assistant thought before it said this; formats that do not show it again drop it.
    """

    role: str
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    prefix: bool = False
    reasoning: str = ""


class CallPart(Struct, frozen=True):
    """A piece of a call that is still being written: number `index` of the answer; the name comes once, whole, first."""

    index: int
    name: str = ""
    arguments: str = ""


class Said(Struct):
    """What a few ids said. Order within one: reasoning, then content, then calls.

    `parts` are the same calls as they come, for whoever reads them live: all parts of a call, joined, are the call.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    parts: tuple[CallPart, ...] = ()


class Form(Struct, frozen=True):
    """What an answer must look like, once its reasoning (which is free) has ended.

    Either `schema`: its content is JSON that the schema describes (an empty one: any object). Or `tools`: it calls at least one
    of them, and nothing else; exactly one unless `many`. Arguments match the tool's parameters. Or both: one of the two, as the
    model likes. `free`: it says what it likes, and may call tools at its end.
    """

    schema: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    many: bool = True
    free: bool = False


class ThinkingEnd(Struct, frozen=True):
    """How reasoning ends: the id that marks it, and all ids that a model writes there, the mark among them."""

    mark: int
    ids: tuple[int, ...]


class Parser(Protocol):
    """One answer's ids, in order, to what they say. Text that may still change (half a character) is held back."""

    @property
    def reasoning_tokens(self) -> int:
        """Tokens so far that belong to the reasoning, its closing mark included."""
        ...

    def feed(self, ids: list[int]) -> Said: ...

    def end(self) -> Said:
        """What was held back, when no more ids will come: half a character becomes U+FFFD, half a call is handed over."""
        ...


class Dialect(Protocol):
    """A model folder's chat format and tokenizer."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids are 0 to vocab_size - 1."""
        ...

    @property
    def token_bytes_max(self) -> int:
        """The longest token's length: n bytes of text are at least n / token_bytes_max tokens."""
        ...

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        """Prompt ids. Nothing in a message or a tool can become a marker: markers typed by a client stay text.

        `effort` (low, high, max; or nothing) is how long to think; formats that can't say it leave it out.

        Raises:
            BadRequest: the chat format can't express these messages.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; markers written in it stay text."""
        ...

    def complete(self, prompt: str, suffix: str | None = None) -> list[int]:
        """Prompt ids of a text to go on with, or of the gap between it and a suffix.

        Raises:
            BadRequest: a suffix, and the vocabulary has no marks for a gap.
        """
        ...

    def parser(self, prompt_ids: list[int]) -> Parser:
        """A parser for the answer to this prompt: the prompt's tail decides whether it begins inside the reasoning."""
        ...

    def thinking_end(self, prompt_ids: list[int]) -> ThinkingEnd | None:
        """How the reasoning ends with which the answer to this prompt begins; None when it begins with none."""
        ...

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        """What goes into Sampling.grammar, so that the answer to this prompt has this form; empty for a form that is free where
        the format has no marks for calls. Costs milliseconds for a large
        schema or many tools: call it where the prompt is rendered, off the event loop when the body is large.

        Raises:
            BadRequest: a schema asserts what no grammar can keep, it is too large, or the format has no marks for calls;
                the fields named are response_format.json_schema.schema, tools[i].function.parameters, tools, tool_choice.
        """
        ...

    def bytes_of(self, token: int) -> bytes:
        """A token's own bytes; a marker's written form."""
        ...
