"""The requests of a load: heads that are made once, and prompts that begin differently so that no cache answers for the model."""

import json
from urllib.parse import SplitResult, urlsplit

from holdfast.drill.load_plan import Due, Plan

TEXT = (
    "the keeper of the light counts every ship that comes home at night and writes its name into a book with a red cover "
    "when the month is over the book goes to the harbour where the master reads it aloud and nobody listens but the cat "
    "who sleeps under the long table and waits for the fish that the boats bring in when the wind is low"
)


def address_of(url: str) -> SplitResult:
    """Read the address of an OpenAI-compatible API; `/v1` is added where no path is given.

    Raises:
        ValueError: it is no http address.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(
            f"{url!r}: write http://HOST:PORT/v1; without TLS, for what is measured is the site and not its proxy"
        )
    return parts if parts.path.strip("/") else parts._replace(path="/v1")


class Words:
    """Makes the bytes of each request. The text is about a token a word; which exactly is the tokenizer's affair."""

    def __init__(self, plan: Plan, longest: int) -> None:
        parts = address_of(plan.url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        known = TEXT.split()
        words = [known[place % len(known)] for place in range(longest)]
        self._text = " ".join(words)
        self._ends = [0]
        for word in words:
            self._ends.append(self._ends[-1] + len(word) + 1)
        path = parts.path.rstrip("/") + "/chat/completions"
        deadline = f"x-holdfast-deadline-s: {plan.deadline_s:g}\r\n" if plan.deadline_s and plan.tell_deadline else ""
        self._heads = [
            (
                f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\naccept: */*\r\n"
                f"{f'authorization: Bearer {client.key}{chr(13)}{chr(10)}' if client.key else ''}{deadline}content-length: "
            ).encode()
            for client in plan.clients
        ]
        shape: dict[str, object] = {"model": plan.model, "stream": plan.stream, "temperature": 0}
        if plan.full_length:
            shape["ignore_eos"] = True
        head = json.dumps(shape)[:-1].replace("%", "%%")
        self._body = head + ', "max_tokens": %d, "messages": [{"role": "user", "content": "%d %s"}]}'

    def request(self, due: Due) -> bytes:
        """The whole request: head and body."""
        text = self._text[: max(0, self._ends[due.prompt_tokens - 1] - 1)]
        body = (self._body % (due.output_tokens, due.number, text)).encode()
        return b"%b%d\r\n\r\n%b" % (self._heads[due.client], len(body), body)
