"""Plans of launches for tests: published models on made-up machines."""

from msgspec import structs

from holdfast.domain.engine import EngineKind, Launch
from holdfast.policy.launch_plan import Gpu, LaunchPlan
from holdfast.policy.model_facts import facts_of
from published import CONFIGS, files_of

GIB = 1024**3
H200 = Gpu(name="NVIDIA H200", memory_bytes=int(140.4 * GIB), capability=(9, 0))
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=int(79.6 * GIB), capability=(9, 0))
H20 = Gpu(name="NVIDIA H20", memory_bytes=int(95.6 * GIB), capability=(9, 0))
B200 = Gpu(name="NVIDIA B200", memory_bytes=int(179.1 * GIB), capability=(10, 0))
A100 = Gpu(name="NVIDIA A100-SXM4-80GB", memory_bytes=80 * GIB)
MI300X = Gpu(name="AMD Instinct MI300X", memory_bytes=192 * GIB)


def facts(name):
    return facts_of(CONFIGS[name], files_of(name))


def planned(name="r1", kind=EngineKind.VLLM, gpu=H200, count=8, **more):
    plan = LaunchPlan(
        kind=kind,
        program="/v/bin/python",
        folder="/m",
        served_as="deepseek",
        facts=facts(name),
        ports=(30000, 30001, 30002),
        key="k3y",
        gpus=tuple(range(count)),
        seen=(gpu,) * count if gpu else None,
        context_tokens_max=32768,
        version=(0, 33, 0),
        inherited=(("PATH", "/bin"), ("HOME", "/h"), ("https_proxy", "http://p"), ("VLLM_SERVER_DEV_MODE", "1")),
    )
    return structs.replace(plan, **more)


def words(found):
    assert isinstance(found, Launch), found
    return " ".join(found.argv)
