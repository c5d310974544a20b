"""How Triton Inference Server is started: its words, its environment, its files. What is on this machine comes in as a struct."""

from hashlib import sha256

from msgspec import Struct

from holdfast.domain.engine import EngineKind, Launch, Leave
from holdfast.policy.triton_repository import Files

RESTRICTED = "inference,model-repository,model-config,statistics,shared-memory,trace,logging"
KEY_NAME = "holdfast-key"
EXIT_S = 10


class TritonInstall(Struct, frozen=True, kw_only=True):
    """One Triton on this machine; host/triton_install.py finds it. All are whole paths."""

    binary: str
    backends: str  # the folder with a backend in each folder; the stub of the Python backend lies beside its library
    libraries: tuple[str, ...] = ()  # where the loader finds what it is linked to
    path: tuple[str, ...] = ("/usr/bin", "/bin")  # the Python found first here is the stub's
    python_path: tuple[str, ...] = ()  # what its stub needs, numpy above all


class TritonPlan(Struct, frozen=True, kw_only=True):
    """One Triton to be started. `files` are the model repository's, and `models` those of it that are loaded at the start."""

    install: TritonInstall
    folder: str  # whole path of the folder that is its own
    files: Files
    models: tuple[str, ...]
    grpc_port: int
    http_port: int = 0  # 0: no HTTP door
    metrics_port: int = 0  # 0: no metrics
    key: str = ""
    gpus: tuple[int, ...] = ()
    complete: bool = False  # let backends fill in the configuration: the vLLM backend needs it
    threads: int = 1
    start_s: float = 120.0


def launch_triton(plan: TritonPlan) -> Launch:
    """The process, whole. Doors on loopback only; models are loaded and unloaded by word, never by what lies in the folder."""
    words = _words(plan)
    warnings = []
    if plan.key:
        warnings.append(
            "Triton takes its key as a word of its command line: every user of this machine can read it there"
        )
    return Launch(
        kind=EngineKind.TRITON,
        argv=(plan.install.binary, *(f"{flag}={value}" if value else flag for flag, value, _ in words)),
        env=_environment(plan),
        url=f"grpc://127.0.0.1:{plan.grpc_port}",
        key=plan.key,
        files=tuple((f"models/{path}", text) for path, text in plan.files),
        start_s=plan.start_s,
        leave=Leave(signal="SIGTERM", grace_s=EXIT_S + 2.0),
        why=tuple((flag, why) for flag, _, why in words),
        warnings=tuple(warnings),
    )


def shared_prefix(folder: str) -> str:
    """How the shared memory of the Triton in this folder is called in /dev/shm: each life's alike, and nobody else's."""
    return f"holdfast_triton_{sha256(folder.encode()).hexdigest()[:16]}_"


def _words(plan: TritonPlan) -> list[tuple[str, str, str]]:
    """(flag, value, why)."""
    words = [
        ("--model-repository", f"{plan.folder}/models", "written by Holdfast for this replica alone"),
        ("--backend-directory", plan.install.backends, "where its backends lie"),
        (
            "--backend-config",
            f"python,shm-region-prefix-name={shared_prefix(plan.folder)}",
            "its shared memory is known by this name, and is removed when it was killed",
        ),
        (
            "--model-control-mode",
            "explicit",
            "only what is named is loaded, and unload and load are how a model is repaired",
        ),
    ]
    words += [("--load-model", name, f"{name} is there from the start") for name in plan.models]
    if not plan.complete:
        words.append(("--disable-auto-complete-config", "", "the configuration is whole: no process to complete it"))
    words += [
        ("--grpc-address", "127.0.0.1", "nobody outside this machine speaks to it"),
        ("--grpc-port", str(plan.grpc_port), "the door that the replica uses"),
    ]
    if plan.key:
        restricted = f"{RESTRICTED}:{KEY_NAME}={plan.key}"
        words.append(
            ("--grpc-restricted-protocol", restricted, "a model that others load is code of theirs that runs here")
        )
    words += _door("http", plan.http_port, "for health checks of others")
    if plan.key and plan.http_port:
        restricted = f"{RESTRICTED}:{KEY_NAME}={plan.key}"
        words.append(("--http-restricted-api", restricted, "health is for everybody; models and answers are not"))
    words += _door("metrics", plan.metrics_port, "for Prometheus")
    words += [
        ("--allow-gpu-metrics", "true" if plan.gpus else "false", "only where it has GPUs"),
        ("--strict-readiness", "true", "not ready before all models are"),
        ("--exit-timeout-secs", str(EXIT_S), "answers have moved before it is told to leave"),
        ("--log-info", "true", "its start is told by these lines"),
    ]
    return words


def _door(name: str, port: int, what: str) -> list[tuple[str, str, str]]:
    if not port:
        return [(f"--allow-{name}", "false", "nobody asked for it")]
    return [(f"--{name}-address", "127.0.0.1", f"{what}, on this machine only"), (f"--{name}-port", str(port), what)]


def _environment(plan: TritonPlan) -> tuple[tuple[str, str], ...]:
    install = plan.install
    env = {
        "PATH": ":".join(install.path),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": str(plan.threads),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, plan.gpus)),
    }
    if install.libraries:
        env["LD_LIBRARY_PATH"] = ":".join(install.libraries)
    if install.python_path:
        env["PYTHONPATH"] = ":".join(install.python_path)
    return tuple(env.items())
