"""How llama.cpp is run: its own llama-server, or, where `program` is a Python, the server that the xllamacpp wheel carries.

It opens GGUF files and nothing else. What only newer builds know is said by variables of the environment, which older ones
pass over, and not by words, at which they would stop. It leaves at once when told to.
"""

from holdfast.domain.engine import EngineKind, Launch, Leave, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_plan import LOOPBACK, LaunchPlan
from holdfast.policy.launch_time import start_s
from holdfast.policy.launch_words import Variables, Words
from holdfast.policy.model_facts import Family, gib

SCRIPT = "engine/llamacpp_serve.py"
ALL_LAYERS = "999"
SAME = {"ngl": "n-gpu-layers", "gpu-layers": "n-gpu-layers", "t": "threads"}
NOT_KNOWN = (Family.V4_FLASH, Family.V4_PRO, Family.V41)


def launch_llamacpp(plan: LaunchPlan) -> Launch | StartFailure:
    """The command for a plan, or why there can't be one."""
    facts = plan.facts
    if not facts.gguf:
        why = f"{plan.folder} holds no .gguf file, and llama.cpp opens nothing else"
        return StartFailure(StartFault.MODEL, f"{why}: put one there, beside the model's tokenizer.json")
    words, variables = Words(plan, SAME), Variables(plan)
    if is_python(plan.program):
        _wheel(plan, words)
    else:
        _server(plan, words)
    words.end()
    variables.set(
        "LLAMA_API_KEY", plan.key, "what callers must show: in the environment, since anybody can read command lines"
    )
    variables.set("LLAMA_ARG_OFFLINE", "1", "it must not ask the network for models")
    variables.set("LLAMA_ARG_CACHE_RAM", "0", "no second cache of prompts in main memory, 8 GiB by default")
    variables.set("LLAMA_ARG_KV_UNIFIED", "0", "each slot has a context of its own")
    variables.set(
        "LLAMA_ARG_CONTEXT_SHIFT", "0", "an answer ends when its context is full, and never forgets its beginning"
    )
    if plan.dtype == "fp32" and not plan.gpus:
        variables.set("LLAMA_ARG_CACHE_TYPE_K", "f32", "[replica] dtype, for the cache too")
        variables.set("LLAMA_ARG_CACHE_TYPE_V", "f32", "likewise")
        variables.set("LLAMA_ARG_FLASH_ATTN", "off", "attention in tiles needs a cache of 16 bits")
    return Launch(
        kind=EngineKind.LLAMACPP,
        argv=tuple(words.argv),
        env=variables.all(),
        url=f"http://{LOOPBACK}:{plan.port}",
        key=plan.key,
        start_s=plan.start_s or start_s(facts.gguf_bytes, bool(plan.gpus)),
        leave=Leave(signal="SIGTERM", grace_s=5.0),
        why=(*words.why, *variables.why),
        warnings=_warnings(plan),
    )


def is_python(program: str) -> bool:
    """Whether this program is a Python, and the server hence the one of the xllamacpp wheel."""
    return program.rpartition("/")[2].startswith("python")


def _server(plan: LaunchPlan, words: Words) -> None:
    words.add("the first file of the model; it finds the others", "--model", f"{plan.folder}/{plan.facts.gguf}")
    words.add("[model] name: what requests call it", "--alias", plan.served_as)
    words.add("loopback: nobody outside of this machine can reach it", "--host", LOOPBACK)
    words.add("a port that was free", "--port", str(plan.port))
    words.add("[replica] slots", "--parallel", str(plan.slots))
    total = f"a context for each slot: {plan.slots} times {plan.context}, out of [replica] context_tokens_max"
    words.add(total, "--ctx-size", str(plan.slots * plan.context))
    words.add("[replica] threads", "--threads", str(plan.threads))
    if plan.gpus:
        words.add("all layers on the GPUs", "--n-gpu-layers", ALL_LAYERS)
    words.add("its counters: Holdfast tells by them whether it is alive", "--metrics")
    words.add("no page for browsers", "--no-webui")


def _wheel(plan: LaunchPlan, words: Words) -> None:
    words.add("the server in the xllamacpp wheel, with llama-server's meaning", f"{plan.package}/{SCRIPT}")
    words.add("the first file of the model; it finds the others", "--model", f"{plan.folder}/{plan.facts.gguf}")
    words.add("[model] name: what requests call it", "--alias", plan.served_as)
    words.add("loopback: nobody outside of this machine can reach it", "--host", LOOPBACK)
    words.add("a port that was free", "--port", str(plan.port))
    words.add("[replica] slots", "--slots", str(plan.slots))
    words.add(
        "of each slot: [replica] context_tokens_max, or what the model was made for", "--context", str(plan.context)
    )
    words.add("[replica] threads", "--threads", str(plan.threads))
    if plan.dtype == "fp32":
        words.add("[replica] dtype fp32: cache and attention in 32 bits", "--exact")


def _warnings(plan: LaunchPlan) -> tuple[str, ...]:
    facts, found = plan.facts, []
    if facts.family in NOT_KNOWN:
        found.append(f"whether llama.cpp computes {facts.family} depends on its build; it says so when it starts.")
    if plan.gpus and plan.seen:
        room = sum(one.memory_bytes for one in plan.seen)
        if facts.gguf_bytes > 0.9 * room:
            need = f"{gib(facts.gguf_bytes)} of weights, and {gib(room)} on its GPUs"
            found.append(f'{need}: leave experts in main memory with [engine] args = ["--cpu-moe"].')
    return tuple(found)
