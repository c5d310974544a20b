"""Requests that went wrong: good ones of every kind, changed at random. The same seed makes the same ones.

Half of them are changed as bytes and half as what they mean (fields of other types, odd numbers, deep nests), so that some come
as far as there is anything to come to.
"""

import json
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**63),
        2**64,
        10**400,
        0.5,
        -0.0,
        1e308,
        -1e-320,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "x",
        "null",
        "\0",
        "\ud800",
        "é\u2028\ufeff",
        "<｜end▁of▁sentence｜>",
        "<think>",
        "</think>",
        "x" * 5000,
        "[" * 100,
    ),
    *(
        [],
        [None],
        [[]],
        ["x"] * 40,
        {},
        {"type": "text"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    ),
    *(
        {"x": {"x": {"x": []}}},
        [{"type": "text", "text": "a"}],
        {"0": 0.5, "-1": 1, "x": 2},
        {"function": {"name": "f"}},
    ),
)
WORDS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"0",
        b"-1",
        b"+5",
        b"0x5",
        b"99999999999999999999",
        b"chunked",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"Host: b\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n\r\n",
    ),
    *(
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET ",
        b"POST ",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"null",
    ),
    *(
        b"1e999",
        b"NaN",
        b"\xff\xfe",
        b"\xc3",
        b"\xe2\x80",
        b"[[[[[[[[",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"Upgrade: h2c\r\n",
        b"_",
        b"#",
    ),
)
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is there?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "A ship."},
    {"role": "assistant", "content": "I see", "prefix": True},
]
BODIES: tuple[tuple[str, Any], ...] = (
    ("/v1/chat/completions", {"model": "pearl", "messages": [{"role": "user", "content": "Hi"}]}),
    (
        "/v1/chat/completions",
        {"model": "deepseek-reasoner", "messages": TALK, "tools": [TOOL], "tool_choice": "auto", "stream": True,
         "stream_options": {"include_usage": True}, "stop": ["a", "b"], "logit_bias": {"5": -3}, "n": 1, "seed": 7},
    ),
    (
        "/beta/chat/completions",
        {"model": "deepseek-chat", "messages": TALK[:2], "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "logprobs": True,
         "top_logprobs": 3,
         "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
         "thinking": {"type": "enabled"}, "reasoning_effort": "high", "user": "u", "presence_penalty": 1},
    ),
    ("/v1/completions", {"model": "pearl", "prompt": "def f(", "suffix": "return", "max_tokens": 8, "echo": True, "logprobs": 2}),
    ("/v1/completions", {"model": "pearl", "prompt": [[1, 2, 3], [4]], "best_of": 1}),
    ("/v1/tokenize", {"model": "pearl", "prompt": "hello"}),
    ("/v1/detokenize", {"model": "pearl", "tokens": [1, 2, 3]}),
    ("/v1/responses", {"model": "pearl", "input": [{"role": "user", "content": "Hi"}], "instructions": "x", "stream": True}),
    ("/anthropic/v1/messages", {"model": "pearl", "max_tokens": 9, "messages": TALK[1:2], "system": "x", "tools": []}),
)  # fmt: skip
GETS = ("/v1/models", "/v1/models/pearl", "/v1/streams/00ff", "/health/live", "/metrics", "/nothing?x=1")


class Mutants:
    """An endless supply."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def body(self) -> tuple[str, bytes]:
        """(path, body): JSON that is nearly as it should be."""
        random = self._random
        path, tree = random.choice(BODIES)
        for _ in range(random.randrange(4)):
            tree = self._tree(tree)
        raw = json.dumps(tree, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        return path, self._bytes(raw) if random.random() < 0.4 else raw

    def request(self) -> bytes:
        """The bytes of one request or a few, framed rightly or not."""
        random = self._random
        data = b"".join(self._framed() for _ in range(random.choice((1, 1, 1, 2, 3))))
        return self._bytes(data) if random.random() < 0.5 else data

    def pieces(self, data: bytes) -> list[bytes]:
        """The same bytes, as a network may deliver them."""
        count = self._random.choice((0, 0, 1, 2, 9))
        cuts = sorted(self._random.randrange(len(data) + 1) for _ in range(count))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _framed(self) -> bytes:
        random = self._random
        version = random.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
        more = b"".join(random.choice(HEADERS) for _ in range(random.randrange(4)))
        if random.random() < 0.15:
            return b"GET %b HTTP/%b\r\nHost: a\r\n%b\r\n" % (random.choice(GETS).encode(), version, more)
        path, body = self.body()
        head = b"POST %b HTTP/%b\r\nHost: a\r\n%b" % (path.encode(), version, more)
        if random.random() < 0.25:
            size = random.randrange(1, len(body) + 2)
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            return b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunks)
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body) + random.choice((0, 0, 0, 0, 0, 1, -1)), body)

    def _bytes(self, data: bytes) -> bytes:
        random, made = self._random, bytearray(data)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(made) + 1)
            match random.randrange(6):
                case 0:
                    made[at : at + 1] = bytes([random.getrandbits(8)])
                case 1:
                    made[at:at] = random.choice(WORDS)
                case 2:
                    del made[at : at + random.choice((1, 2, 8, 64))]
                case 3:
                    made[at:at] = made[at : at + random.choice((1, 16, 200))] * random.choice((1, 2, 50))
                case 4:
                    made[at : at + random.choice((1, 4))] = random.choice(WORDS)
                case _:
                    other = random.randrange(len(made) + 1)
                    made[at:at] = made[other : other + 40]
        return bytes(made)

    def _tree(self, tree: Any) -> Any:
        """A copy with something else in one place."""
        random = self._random
        if isinstance(tree, dict) and tree and random.random() < 0.85:
            name = random.choice(list(tree))
            changed = {**tree, name: self._tree(tree[name])}
            if random.random() < 0.1:
                del changed[name]
            if random.random() < 0.1:
                changed[random.choice(("x", "", name + "s", "n", "stop", "model"))] = random.choice(ODD)
            return changed
        if isinstance(tree, list) and tree and random.random() < 0.8:
            at = random.randrange(len(tree))
            return [*tree[:at], self._tree(tree[at]), *tree[at + (random.random() < 0.8) :]]
        if random.random() < 0.1:
            for _ in range(random.choice((1, 5, 40))):
                tree = [tree] if random.random() < 0.5 else {"a": tree}
            return tree
        return random.choice(ODD)


HEADERS = (
    *(
        b"Authorization: Bearer x\r\n",
        b"Authorization: Basic eDp5\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
    ),
    *(
        b"X-Holdfast-Deadline-S: 5\r\n",
        b"X-Holdfast-Deadline-S: nan\r\n",
        b"X-Holdfast-Priority: -3\r\n",
        b"Accept: */*\r\n",
    ),
    *(
        b"X-Holdfast-Priority: 9e9\r\n",
        b"Idempotency-Key: abc\r\n",
        b"X-Holdfast-Resume: yes\r\n",
        b"X-Request-Id: r-1\r\n",
    ),
    *(
        b"X-Holdfast-Degrade: never\r\n",
        b"Expect: 100-continue\r\n",
        b"Origin: https://a.example\r\n",
        b"Last-Event-ID: 3-4\r\n",
    ),
    *(
        b"X-Api-Key: k\r\n",
        b"Upgrade: h2c\r\n",
        b"X_Y: z\r\n",
        b"Cookie: a=b\r\n",
        b"X-Holdfast-Session: s\r\n",
        b"TE: trailers\r\n",
    ),
)
