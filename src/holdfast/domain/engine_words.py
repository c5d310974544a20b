"""What contradicts itself in the settings of foreign engines, and which words of their command lines are Holdfast's own.

A site may add words, but none that opens a door, names another model, or takes a number that has a setting of its own.
Words are compared as argparse does: underscores are dashes, and the beginning of a word means the word.
"""

import re

from holdfast.domain.engine import FOREIGN, EngineKind
from holdfast.domain.settings_engine import KEY_FILE, URL, Dealt, EngineSettings, dealt_mix, outside, urls_of

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
# variables that would undo what a launch promises, by their beginnings
OWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "VLLM_API_KEY",
    "VLLM_SERVER_DEV_MODE", "VLLM_PLUGINS", "VLLM_ALLOW_INSECURE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "SGLANG_API_KEY",
    "LLAMA_ARG_", "LLAMA_API_KEY", "HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY",
    "ALL_PROXY", "NO_PROXY", "LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "HOLDFAST_",
)  # fmt: skip
DOOR = "it listens on loopback only, on a port that Holdfast chooses"
KEY = "Holdfast gives it a new key at each start, outside of the command line"
CODE = "code that comes with a model is never run"
MODEL = "the model is that of [model]"
CONTEXT = "set [replica] context_tokens_max"
SLOTS = "set [replica] slots"
PROMPTS = "prompts would be written down, into its log or a file"
COUNTERS = "Holdfast tells by its counters whether it is alive"
PARSER = "Holdfast reads answers itself, from token ids, and a parser there changes where grammars hold"
CACHE = "what it has read of prompts would leave it, through doors of its own"
SAMPLING = "how tokens are drawn is said by each request, and by no file of the model"
LIMITED = "the launch keeps models and answers from strangers with it, by a key of each start"
FILE = "words from a second file would go unseen; write them into [engine] args"
OWN: dict[EngineKind, dict[str, str]] = {
    EngineKind.VLLM: {
        "host": DOOR, "port": DOOR, "uds": DOOR, "ssl-keyfile": DOOR, "ssl-certfile": DOOR, "ssl-ca-certs": DOOR,
        "api-key": KEY, "trust-remote-code": CODE, "middleware": CODE, "model": MODEL, "served-model-name": MODEL,
        "max-model-len": CONTEXT, "max-num-seqs": SLOTS, "config": FILE, "disable-log-stats": COUNTERS,
        "enable-log-requests": PROMPTS, "enable-log-outputs": PROMPTS, "grpc-port": DOOR, "headless": DOOR,
        "tool-parser-plugin": CODE, "reasoning-parser-plugin": CODE, "io-processor-plugin": CODE, "logits-processors": CODE,
        "worker-cls": CODE, "worker-extension-cls": CODE, "allowed-local-media-path": DOOR, "tokens-only": DOOR,
        "grpc": DOOR, "reasoning-parser": PARSER, "kv-events-config": CACHE, "kv-transfer-config": CACHE,
        "scheduler-cls": CODE, "generation-config": SAMPLING,
    },
    EngineKind.SGLANG: {
        "host": DOOR, "port": DOOR, "ssl-keyfile": DOOR, "ssl-certfile": DOOR, "ssl-ca-certs": DOOR,
        "api-key": KEY, "admin-api-key": KEY, "trust-remote-code": CODE, "model": MODEL, "model-path": MODEL,
        "served-model-name": MODEL, "context-length": CONTEXT, "max-running-requests": SLOTS, "config": FILE,
        "log-requests": PROMPTS, "grpc-port": DOOR, "grpc-mode": DOOR, "smg-grpc-mode": DOOR, "enable-http2": DOOR,
        "sidecar": CODE, "enable-custom-logit-processor": CODE, "crash-dump-folder": PROMPTS, "tool-server": DOOR,
        "custom-weight-loader": CODE, "forward-hooks": CODE, "debug-tensor-dump-output-folder": PROMPTS,
        "smg-http-sidecar-port": DOOR, "grpc-http-sidecar-port": DOOR, "reasoning-parser": PARSER,
        "dump-requests-folder": PROMPTS, "log-requests-level": PROMPTS, "kv-events-config": CACHE,
    },
    EngineKind.TRITON: {
        "http-address": DOOR, "http-port": DOOR, "grpc-address": DOOR, "grpc-port": DOOR, "metrics-address": DOOR,
        "metrics-port": DOOR, "allow-http": DOOR, "allow-grpc": DOOR, "allow-metrics": COUNTERS, "model-repository": MODEL,
        "model-store": MODEL, "model-control-mode": MODEL, "load-model": MODEL, "backend-directory": CODE,
        "log-verbose": PROMPTS, "trace-config": PROMPTS, "trace-file": PROMPTS, "trace-level": PROMPTS,
        "allow-sagemaker": DOOR, "allow-vertex-ai": DOOR, "repoagent-directory": CODE, "cache-directory": CODE,
        "cache-config": DOOR, "grpc-restricted-protocol": LIMITED, "http-restricted-api": LIMITED,
    },
    EngineKind.LLAMACPP: {
        "host": DOOR, "port": DOOR, "path": DOOR, "reuse-port": DOOR, "ssl-key-file": DOOR, "ssl-cert-file": DOOR,
        "api-key": KEY, "api-key-file": KEY, "model": MODEL, "m": MODEL, "alias": MODEL, "a": MODEL, "model-url": MODEL,
        "mu": MODEL, "hf-repo": MODEL, "hf": MODEL, "hfr": MODEL, "ctx-size": CONTEXT, "c": CONTEXT, "parallel": SLOTS,
        "np": SLOTS, "no-slots": COUNTERS, "verbose": PROMPTS, "v": PROMPTS, "log-verbose": PROMPTS,
        "verbosity": PROMPTS, "log-verbosity": PROMPTS, "lv": PROMPTS, "slot-save-path": PROMPTS, "rpc": DOOR,
    },
}  # fmt: skip


def contradiction(kind: str, url: str, devices: str, engine: EngineSettings) -> str:
    """The sentence for what can't be meant in [replica] engine, url, devices and in [engine]; empty when all is well."""
    try:
        mix = [dealt_mix(one) for one in engine.mix]
    except ValueError:
        kinds = ", ".join(EngineKind)
        return f"[engine] mix: each of {list(engine.mix)} begins with a kind of engine, out of {kinds}."
    return (
        _of_urls(EngineKind(kind), url, engine)
        or next((said for one in mix if (said := _of_mix(one))), "")
        or _of_section(EngineKind(kind), url, engine, mix)
        or _of_keys(outside(url, engine), engine)
        or _of_devices(devices, engine)
        or next((said for word in engine.args if (said := _of_word(EngineKind(kind), word))), "")
        or next((said for one in engine.env if (said := _of_variable(one))), "")
    )


def _of_urls(kind: EngineKind, url: str, engine: EngineSettings) -> str:
    urls = urls_of(url)
    if kind is EngineKind.OPENAI and not urls:
        return "[replica] engine 'openai' is never run by Holdfast: name where it runs with [replica] url."
    if urls and kind not in FOREIGN:
        return f"[replica] url: the {kind} engine runs in a process of Holdfast. Leave url out, or name another engine."
    wrong = next((said for one in urls if (said := _of_url("[replica] url", kind, one))), "")
    if wrong:
        return wrong
    started = any(one.program for one in map(dealt_mix, engine.mix))  # gpus and start_s are for these too
    own = ("program", "args", "env") if started else ("program", "args", "env", "gpus", "start_s")
    name = next((one for one in own if getattr(engine, one)), "")
    if urls and name:
        return f"[engine] {name} and [replica] url: an engine that runs already isn't started. Leave one of them out."
    return ""


def _of_url(where: str, kind: EngineKind, url: str) -> str:
    found = URL.fullmatch(url)
    if found is None:
        shown = "its key belongs into [engine] key" if "@" in url else "write it as http://HOST:PORT"
        return f"{where}: {url.rpartition('@')[2]!r} can't be used: {shown}."
    if kind is EngineKind.TRITON and found[1] == "grpcs":
        return f"{where}: {url!r}: Triton is spoken to without TLS only: write grpc://HOST:PORT, through a tunnel."
    schemes = ("grpc",) if kind is EngineKind.TRITON else ("http", "https")
    if found[1] not in schemes:
        return f"{where}: {url!r}: {kind} is spoken to by {schemes[0]}: write {schemes[0]}://HOST:PORT."
    if found[4] and not 1 <= int(found[4]) <= 65535:
        return f"{where}: {url!r}: a port is a number from 1 to 65535."
    if found[5] not in (None, "/") and kind is not EngineKind.OPENAI:
        return f"{where}: {url!r}: leave the path out; Holdfast knows those of {kind}."
    return ""


def _of_mix(one: Dealt) -> str:
    if one.kind not in FOREIGN:
        return (
            f"[engine] mix: {one.kind} is Holdfast's own: it takes no program or url." if one.program or one.url else ""
        )
    if one.url:
        return _of_url("[engine] mix", one.kind, one.url)
    if one.kind is EngineKind.OPENAI:
        return "[engine] mix: 'openai' is never run by Holdfast: write openai=http://HOST:PORT."
    if not one.program.startswith("/"):
        return f"[engine] mix: say where {one.kind} lies, as a whole path: {one.kind}=/PATH, or its url."
    return ""


def _of_section(kind: EngineKind, url: str, engine: EngineSettings, mix: list[Dealt]) -> str:
    if engine.program and not engine.program.startswith("/"):
        return "[engine] program must be a whole path, beginning with '/'."
    run = kind in FOREIGN and not urls_of(url)
    if run and not engine.program:
        return (
            f"[engine] program: say where {kind} lies: the Python of its environment, or its binary; "
            "or name one that runs already with [replica] url."
        )
    if (
        not run
        and not (any(one.program for one in mix))
        and (engine.program or engine.args or engine.env or engine.gpus)
    ):
        name = next(name for name in ("program", "args", "env", "gpus") if getattr(engine, name))
        return f"[engine] {name} is for engines that Holdfast runs: set [replica] engine to one of {', '.join(FOREIGN[:-1])}."
    for name, value in (("key", engine.key), ("keys", engine.keys), ("model_name", engine.model_name)):
        if value and not outside(url, engine):
            return f"[engine] {name} is for engines that run already: name them with [replica] url, or leave it out."
    if engine.greedy_across and len({kind, *(one.kind for one in mix)}) < 2:
        return (
            "[engine] greedy_across: there is one kind of engine only. Name others with [engine] mix, or leave it out."
        )
    return ""


def _of_keys(urls: list[str], engine: EngineSettings) -> str:
    strange = next((one for one in engine.keys if one not in urls), None)
    if strange is not None:
        named = strange.rpartition("@")[2]
        return f"[engine] keys: no engine of this site is at {named!r}: write its url as it stands there: {', '.join(urls)}."
    for name, key in (("key", engine.key), *(("keys", one) for one in engine.keys.values())):
        path = key.removeprefix(KEY_FILE)
        if path != key and not path.startswith("/"):
            return f"[engine] {name}: {key!r} must name a file by its whole path: file:/PATH."
        if not (key.isprintable() and key.isascii()):
            return f"[engine] {name} holds characters that can't stand in a header: write it as it was given out."
    return ""


def _of_devices(devices: str, engine: EngineSettings) -> str:
    named = [one.strip() for one in devices.split(",") if one.strip() not in ("", "cpu")]
    if engine.gpus > len(named):
        return f"[engine] gpus = {engine.gpus}, but [replica] devices names {len(named)}: write them all, as in cuda:0,cuda:1."
    return ""


def _of_word(kind: EngineKind, word: str) -> str:
    if "\0" in word or "\n" in word:
        return f"[engine] args: {word!r} has a line break or a zero in it."
    if not word.startswith("-"):
        return ""
    name = name_of(word)
    dashes = len(word) - len(word.lstrip("-"))
    owned = OWN.get(kind, {})
    whole = next(
        (own for own in owned if own == name or (dashes == 2 and name and own.startswith(name) and len(own) > 2)), ""
    )
    return f"[engine] args: {word} is not for a site to say: {owned[whole]}." if whole else ""


def name_of(word: str) -> str:
    """`--kernel_config.x=1` as `kernel-config`: what a word of a command line names, however it is spelt."""
    return word.lstrip("-").partition("=")[0].partition(".")[0].replace("_", "-").lower()


def _of_variable(text: str) -> str:
    if not VARIABLE.fullmatch(text) or "\0" in text:
        return f"[engine] env: {text!r} is no variable: write NAME=value."
    name = text.partition("=")[0].upper()
    if name.startswith(OWN_VARIABLES) or name.endswith("_PROXY"):
        return f"[engine] env: {name} is not for a site to say: the launch sets it, or leaves it out on purpose."
    return ""
