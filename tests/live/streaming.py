"""Clients for the live tests: streams whose every token is kept, a drizzle that tells a refused connection from a lost one."""

import json
import socket
import threading
from dataclasses import dataclass, field

import httpx
from site_up import Site, wait_for


@dataclass
class Streamed:
    """One streamed answer: what came, and how it ended (a finish reason, or the error)."""

    text: str = ""
    events: int = 0
    end: str = ""


def body(number: int, max_tokens: int, stream: bool) -> dict[str, object]:
    """A question whose answer is known by its number."""
    content = f"Count from {number}."
    messages = [{"role": "user", "content": content}]
    return {
        "model": "pearl",
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": stream,
        "seed": number,
        "ignore_eos": True,
    }


class Streams:
    """So many streams at once, each in a thread."""

    def __init__(self, site: Site, count: int, max_tokens: int) -> None:
        self.site, self.max_tokens = site, max_tokens
        self.answers = [Streamed() for _ in range(count)]
        self.threads = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(count)]

    def start(self, events: int = 5) -> "Streams":
        """Begin all, and wait until each has got so many events."""
        for thread in self.threads:
            thread.start()
        wait_for(
            f"{events} events of each stream", lambda: min(one.events for one in self.answers) >= events, tell=self.told
        )
        return self

    def join(self) -> list[Streamed]:
        for thread in self.threads:
            thread.join(60)
        return self.answers

    def told(self) -> str:
        return f"{self.answers}\n{self.site.output.read_text()}"

    def _read(self, number: int) -> None:
        one = self.answers[number]
        try:
            asked = body(number, self.max_tokens, stream=True)
            with (
                httpx.Client(trust_env=False, timeout=60) as client,
                client.stream("POST", f"{self.site.url}/chat/completions", json=asked) as answer,
            ):
                for line in answer.iter_lines():
                    self._take(one, line)
        except (httpx.HTTPError, ValueError, LookupError) as error:
            one.end = repr(error)

    def _take(self, one: Streamed, line: str) -> None:
        if not line.startswith("data: {"):
            return
        event = json.loads(line.removeprefix("data: "))
        if not event.get("choices"):
            return
        choice = event["choices"][0]
        one.text += (choice["delta"].get("reasoning_content") or "") + (choice["delta"].get("content") or "")
        one.events += 1
        one.end = choice["finish_reason"] or one.end


def peaceful(site: Site, count: int, max_tokens: int) -> list[str]:
    """The undisturbed answers to the same questions."""
    return [one.text for one in Streams(site, count, max_tokens).start().join()]


@dataclass
class Drizzle:
    """Plain clients, one new connection a request, until it is left."""

    site: Site
    clients: int = 3
    ended: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._leaving, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(self.clients)]

    def __enter__(self) -> "Drizzle":
        for thread in self._threads:
            thread.start()
        self.more(2 * self.clients)
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        goal = self.ended.get("whole", 0) + count
        wait_for(f"{count} further answers", lambda: self.ended.get("whole", 0) >= goal, tell=lambda: str(self.ended))

    def _ask_on(self) -> None:
        while not self._leaving.is_set():
            how = self._ask()
            with self._lock:
                self.ended[how] = self.ended.get(how, 0) + 1

    def _ask(self) -> str:
        text = json.dumps(body(1, 5, stream=False)).encode()
        port = int(self.site.tree["gateway"]["port"])
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n"
        )
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError:
            return "refused"
        with client:
            try:
                client.sendall(head.encode() + text)
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            except OSError:
                return "lost"
        if not answer.startswith(b"HTTP/1.1 200 "):
            return answer[9:12].decode() or "lost"
        return "whole" if answer.endswith(b"}") and b'"finish_reason":"length"' in answer else "truncated"
