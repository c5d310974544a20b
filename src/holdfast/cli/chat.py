"""holdfast chat: talk to the model. A conversation on a terminal; one answer for a prompt given as words or through a pipe."""

import argparse
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from rich.console import Console

from holdfast.domain.settings import BadSettings
from holdfast.host.certificate import trusting
from holdfast.store.settings_file import load_settings

SILENCE_S = 120.0  # a gateway sends at least a comment every second while an answer waits


class NoAnswer(Exception):
    """The gateway refused, or could not be reached: the sentence says which."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("chat", help="talk to the model", description=__doc__)
    add = parser.add_argument
    add("prompt", nargs="*", help="what to say; without it, standard input is read")
    add("--thinking", action="store_true", help="let the model think first; its thoughts go to standard error")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--url", default="", help="another gateway's address, such as http://127.0.0.1:8000/v1")


def run(args: argparse.Namespace) -> int:
    """Talk. 0: answered. 1: no answer. 2: the settings can't be used."""
    try:
        settings = load_settings(args.settings)
        own = bool(settings.gateway.tls_cert) and not args.url
        verify = trusting(settings.gateway) if own else ssl.create_default_context()
    except BadSettings as error:
        print(f"holdfast chat: {error}", file=sys.stderr)
        return 2
    headers = {"authorization": f"Bearer {settings.gateway.key}"} if settings.gateway.key else {}
    # trust_env off: a proxy has no business between this machine and itself
    timeout = httpx.Timeout(10.0, read=SILENCE_S)
    url = args.url or settings.gateway.url
    with httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False, verify=verify) as client:
        talk = _Talk(client, args.thinking)
        try:
            if args.prompt or not sys.stdin.isatty():
                said = " ".join(args.prompt)
                piped = "" if sys.stdin.isatty() or args.prompt else sys.stdin.read()
                talk.say((said + piped).strip())
                return 0
            return _converse(talk)
        except NoAnswer as error:
            print(f"holdfast chat: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            return 1
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return 130


def _converse(talk: "_Talk") -> int:
    console = Console(highlight=False)
    console.print("Say something; an empty line or Ctrl-D ends the conversation.", style="dim")
    while True:
        try:
            said = console.input("[bold]> [/bold]").strip()
        except EOFError:
            said = ""
        if not said:
            return 0
        try:
            talk.say(said)
        except NoAnswer as error:
            console.print(f"{error}", style="red")


class _Talk:
    """A conversation: what was said so far is sent along each time."""

    def __init__(self, client: httpx.Client, thinking: bool) -> None:
        self._client, self._thinking = client, thinking
        self._messages: list[dict[str, str]] = []
        self._model = ""

    def say(self, text: str) -> None:
        """Print the answer as it comes. An answer that failed leaves no trace in the conversation. Raises NoAnswer."""
        messages = [*self._messages, {"role": "user", "content": text}]
        answer: list[str] = []
        thought = False
        for delta in self._stream(messages):
            if delta.get("reasoning_content"):
                thought = True
                print(delta["reasoning_content"], end="", file=sys.stderr, flush=True)
            if delta.get("content"):
                if thought and not answer:
                    print("\n", file=sys.stderr)
                answer.append(delta["content"])
                print(delta["content"], end="", flush=True)
        print(flush=True)
        self._messages = [*messages, {"role": "assistant", "content": "".join(answer)}]

    def _stream(self, messages: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        body: dict[str, Any] = {"model": self._name(), "messages": messages, "stream": True}
        if self._thinking:
            body["thinking"] = {"type": "enabled"}
        ended = False
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise NoAnswer(_reason(answer.read(), answer.status_code))
                for line in answer.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    ended = data == "[DONE]"
                    if ended:
                        break
                    event = msgspec.json.decode(data.encode(), type=dict[str, Any])
                    if "error" in event:
                        raise NoAnswer(_reason(data.encode(), 0))
                    for choice in event.get("choices", ()):
                        yield choice.get("delta", {})
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise NoAnswer(
                f"the gateway at {self._client.base_url} does not answer: {error}. Is it up? holdfast status"
            ) from None
        if not ended:
            raise NoAnswer("the answer was cut off: the gateway closed the connection before its end")

    def _name(self) -> str:
        """The first model that the gateway lists."""
        if not self._model:
            try:
                answer = self._client.get("/models")
                if answer.status_code != 200:
                    raise NoAnswer(_reason(answer.content, answer.status_code))
                self._model = answer.json()["data"][0]["id"]
            except (httpx.HTTPError, ValueError, LookupError) as error:
                raise NoAnswer(
                    f"the gateway at {self._client.base_url} does not answer: {error}. Start it: holdfast up"
                ) from None
        return self._model


def _reason(body: bytes, status: int) -> str:
    """The sentence inside an OpenAI error object."""
    try:
        sentence = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        sentence = body.decode("utf-8", "replace")[:200]
    if status == 401:
        sentence += "; here it is taken from the environment variable HOLDFAST_KEY, or from [gateway] key"
    return f"{sentence} (HTTP {status})" if status else sentence
