"""How SGLang is run for each DeepSeek generation, on GPUs.

Read in the sources of 0.5.23, whose own parser reads these words in tests/live/test_launch_parses.py; it was never run here.
Its key has no variable of its own, so it goes by a file that only this user may read, and not by the command line.
SGLang drains without limit when it is told to leave: Holdfast moves the answers first, so that nothing is left to drain.
No parsers and no chat template, for the reason that profile_vllm.py gives.
"""

from holdfast.domain.engine import EngineKind, Launch, Leave, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_fit import Fit, Spread, fit
from holdfast.policy.launch_plan import LOOPBACK, LaunchPlan
from holdfast.policy.launch_time import start_s
from holdfast.policy.launch_words import Variables, Words

KEY_FILE = "sglang.yaml"
SAME = {
    "tensor-parallel-size": "tp-size", "tp": "tp-size", "data-parallel-size": "dp-size", "dp": "dp-size",
    "expert-parallel-size": "ep-size", "ep": "ep-size",
}  # fmt: skip


def launch_sglang(plan: LaunchPlan) -> Launch | StartFailure:
    """The command for a plan, or why there can't be one."""
    facts = plan.facts
    if not plan.gpus:
        why = "SGLang is run on GPUs only: its CPU build wants processors with AMX"
        return StartFailure(StartFault.DEVICE, f"{why}. Name GPUs in [replica] devices, as in cuda:0")
    if not facts.shards and facts.gguf:
        return StartFailure(StartFault.MODEL, f"{plan.folder} holds GGUF files only: run them with engine llamacpp")
    found, warnings = fit(facts, plan.seen, len(plan.gpus), plan.context), []
    if isinstance(found, StartFailure):
        if not (plan.insist and found.code is StartFault.MEMORY):
            return found
        warnings.append(f"{found.why}. It is tried, as [engine] gpus says {len(plan.gpus)}.")
        found = Fit(spread=Spread(tensor=len(plan.gpus)), why="it should not fit")
    words, variables = Words(plan, SAME), Variables(plan)
    words.add("SGLang's server", "-m", "sglang.launch_server")
    words.add("its key, in a file that only this user may read", "--config", KEY_FILE)
    words.add("[model] path: weights and tokenizer", "--model-path", plan.folder)
    words.add("[model] name: what requests call it", "--served-model-name", plan.served_as)
    words.add("loopback: nobody outside of this machine can reach it", "--host", LOOPBACK)
    words.add("a port that was free", "--port", str(plan.port))
    words.add("nothing of generation_config.json: each request says all that it wants", "--sampling-defaults", "openai")
    words.add("[replica] context_tokens_max, or what the model was made for", "--context-length", str(plan.context))
    words.add("[replica] slots, all ranks together", "--max-running-requests", str(plan.slots))
    words.add(
        "[replica] queue_max: it refuses beyond, and the answer goes elsewhere",
        "--max-queued-requests",
        str(plan.queue_max),
    )
    _spread(words, found.spread)
    if not facts.quantised:
        words.add("16-bit numbers: attention kernels of GPUs take no others", "--dtype", "bfloat16")
    words.add("its counters: Holdfast tells by them whether it is alive", "--enable-metrics")
    words.add("each event holds the new ids only, not all of the answer so far", "--incremental-streaming-output")
    words.add("usage tells how much of a prompt came from the cache", "--enable-cache-report")
    words.add("warnings only from its HTTP server: no line for each request", "--log-level-http", "warning")
    words.end()
    return Launch(
        kind=EngineKind.SGLANG,
        argv=tuple(words.argv),
        env=variables.all(),
        url=f"http://{LOOPBACK}:{plan.port}",
        key=plan.key,
        files=((KEY_FILE, f'api-key: "{plan.key}"\n'),),
        start_s=plan.start_s or start_s(facts.weights_bytes, True),
        leave=Leave(signal="SIGTERM", grace_s=15.0),
        why=(*words.why, *variables.why),
        warnings=(*warnings, *_warnings(plan)),
    )


def _spread(words: Words, spread: Spread) -> None:
    count = spread.tensor * spread.data
    if count > 1:
        words.add("each layer over all GPUs of this replica", "--tp-size", str(count))
    if spread.data > 1:
        why = "attention whole on each GPU with sequences of its own: the latent cache is not kept several times"
        words.add(why, "--enable-dp-attention", "--dp-size", str(count))
        words.add("each expert whole on one GPU", "--ep-size", str(count))


def _warnings(plan: LaunchPlan) -> list[str]:
    facts, found = plan.facts, []
    if facts.own_code:
        found.append(
            "the folder brings Python of its own (auto_map); it is never run: SGLang has this architecture built in."
        )
    if facts.context_tokens > 8 * plan.context:
        found.append(
            f"[replica] context_tokens_max is {plan.context:,}; this model was made for {facts.context_tokens:,} tokens."
        )
    return found
