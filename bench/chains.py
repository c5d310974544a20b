"""LangChain's chat models as callers: ChatOpenAI, and ChatDeepSeek, which knows reasoning."""

import json
from collections.abc import Callable
from typing import Any

import openai
from callers import (
    COUNT,
    KEY,
    LONG,
    MODEL,
    NOTE_TOOL,
    PATIENCE_S,
    SCHEMA,
    SUM,
    THINKER,
    WEATHER,
    WEATHER_TOOL,
    Caller,
    Heard,
    call,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI


class LangChain:
    """LangChain's chat models: ChatOpenAI, and ChatDeepSeek, which knows reasoning."""

    def __init__(self, kind: type[ChatOpenAI] | type[ChatDeepSeek], site: str, poor: str) -> None:
        self.kind, self.site, self.poor = kind, site, poor

    def caller(self) -> Caller:
        asks: dict[str, Callable[[], Heard]] = {
            "chat": lambda: _of_message(self._model().invoke(SUM)),
            "stream": self._stream,
            "tools": self._tools,
            "forced tool": lambda: _of_message(
                self._model().bind_tools([NOTE_TOOL], tool_choice="required").invoke(COUNT)
            ),
            "JSON schema": self._schema,
            "logprobs": self._logprobs,
            "errors": self._errors,
            "retries": self._retries,
        }
        reasons = dict.fromkeys(("FIM", "completions"), "a chat model; LangChain's text models are another class")
        reasons |= {"n": "invoke returns one answer", "prefix": "drops unknown keys of a message"}
        if self.kind is ChatDeepSeek:
            asks["reasoning"] = lambda: _of_message(self._model(THINKER).invoke(SUM))
            return Caller("ChatDeepSeek", asks, reasons | {"responses": "DeepSeek's class speaks chat only"})
        asks["responses"] = self._response
        return Caller("ChatOpenAI", asks, reasons | {"reasoning": "drops reasoning_content; take ChatDeepSeek"})

    def _model(self, name: str = MODEL, site: str = "", retries: int = 0, **more: Any) -> Any:
        base = f"{site or self.site}/v1"
        named = {"api_base": base} if self.kind is ChatDeepSeek else {"base_url": base}
        known: dict[str, Any] = {"temperature": 0, "max_tokens": LONG, "timeout": PATIENCE_S, "max_retries": retries}
        return self.kind(model=name, api_key=KEY, **(known | named | more))

    def _stream(self) -> Heard:
        whole: Any = None
        for chunk in self._model().stream(COUNT):
            whole = chunk if whole is None else whole + chunk
        return _of_message(whole)

    def _tools(self) -> Heard:
        model = self._model().bind_tools([WEATHER_TOOL])
        asked: list[BaseMessage] = [HumanMessage(WEATHER)]
        said: AIMessage = model.invoke(asked)
        first = _of_message(said)
        results = [ToolMessage("sunny", tool_call_id=one["id"]) for one in said.tool_calls]
        second = _of_message(model.invoke([*asked, said, *results]))
        return Heard(content=second.content, calls=first.calls, finish=f"{first.finish}, {second.finish}")

    def _schema(self) -> Heard:
        method = "function_calling" if self.kind is ChatDeepSeek else "json_schema"
        answer = self._model().with_structured_output(SCHEMA, method=method).invoke(COUNT)
        return Heard(content=json.dumps(answer, sort_keys=True), finish="stop")

    def _logprobs(self) -> Heard:
        said = self._model(logprobs=True, top_logprobs=2).invoke(SUM)
        rows = said.response_metadata["logprobs"]["content"]
        told = "".join(row["token"] for row in rows)
        return Heard(content=f"{told == said.content and all(len(row['top_logprobs']) == 2 for row in rows)}: {told}")

    def _response(self) -> Heard:
        said = self._model(use_responses_api=True, store=False).bind_tools([WEATHER_TOOL]).invoke(WEATHER)
        calls = tuple(call(one["name"], one["args"]) for one in said.tool_calls)
        return Heard(content=said.text, calls=calls, finish=said.response_metadata.get("status", ""))

    def _errors(self) -> Heard:
        told = []
        for more in ({"name": "gpt-9"}, {"temperature": 7}):
            try:
                self._model(**more).invoke(SUM)
            except openai.APIStatusError as wrong:
                told.append(f"{wrong.status_code} {wrong.param}")
        return Heard(content="; ".join(told))

    def _retries(self) -> Heard:
        model = self._model(site=self.poor, retries=8)
        return Heard(content="; ".join(model.invoke(SUM).content for _ in range(3)))


def _of_message(said: Any) -> Heard:
    calls = tuple(call(one["name"], one["args"]) for one in said.tool_calls)
    reasoning = said.additional_kwargs.get("reasoning_content") or ""
    finish = said.response_metadata.get("finish_reason") or ""
    return Heard(content=said.content, reasoning=reasoning, calls=calls, finish=finish)
