"""Records exchanges with a real llama.cpp server into recorded/llamacpp.json: python tests/engine/record_llamacpp.py

Needs `make engines`. Two streams (one of them with a character whose ids are left out), a refusal, and what it tells of itself.
"""

import tempfile
from pathlib import Path
from typing import Any

import httpx
import msgspec
from llamacpp_process import SHIPPED, LlamaCppProcess

from holdfast.domain.request import Generation, Sampling
from holdfast.engine.llamacpp import body_of
from holdfast.engine.spelling import Spelling
from holdfast.pearl.gguf import write_gguf

FILE = Path(__file__).parent / "recorded" / "llamacpp.json"
PROMPT = [0, 3, 651, 236, 50, 97, 84, 97, 81, 97, 94, 100, 93, 438, 285, 288, 29, 4, 6]


def requests() -> dict[str, dict[str, Any]]:
    """What is asked, by name."""
    euro = Spelling(SHIPPED).spell("€".encode())
    line = " ".join(f"<[{id}]>" for id in [80, *euro, 81])
    asked = {
        "plain": Sampling(temperature=0.0, logprobs=1),
        "left out": Sampling(temperature=0.0, grammar=f"start: {line}"),
    }
    bodies = {
        name: body_of(Generation(id=name, prompt_ids=PROMPT, sampling=sampling), [], 12, 512)
        for name, sampling in asked.items()
    }
    return {**bodies, "refused": {"prompt": [99999], "n_predict": 1}}


def main() -> None:
    """Run a server, ask, write down."""
    with tempfile.TemporaryDirectory() as room:
        write_gguf(SHIPPED, Path(room) / "pearl.gguf")
        process = LlamaCppProcess(Path(room) / "pearl.gguf", "--alias", "pearl", "--context", "512", "--exact")
        try:
            told: dict[str, Any] = {"exchanges": {}, "pages": {}}
            for name, body in requests().items():
                answer = httpx.post(f"{process.url}/completion", json=body)
                told["exchanges"][name] = {"asked": body, "status": answer.status_code, "said": answer.text}
            for path in ("/props", "/v1/models", "/metrics", "/slots"):
                told["pages"][path] = httpx.get(f"{process.url}{path}").text
        finally:
            process.end()
    told["pages"]["/props"] = msgspec.json.decode(told["pages"]["/props"]) | {"chat_template": "", "model_path": ""}
    told["pages"]["/props"] = msgspec.json.encode(told["pages"]["/props"]).decode()
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")


if __name__ == "__main__":
    main()
