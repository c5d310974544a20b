"""Triton's command line. That a real Triton takes it is in tests/live/test_triton.py."""

from msgspec import structs

from holdfast.policy.triton_launch import TritonInstall, TritonPlan, launch_triton

INSTALL = TritonInstall(
    binary="/t/bin/tritonserver", backends="/t/backends", libraries=("/t/lib",), python_path=("/t/site",)
)
PLAN = TritonPlan(
    install=INSTALL, folder="/run/r0", files=(("m/config.pbtxt", "x"),), models=("m", "n"), grpc_port=4001, key="k9"
)


def test_it_listens_on_loopback_and_loads_what_is_named() -> None:
    launch = launch_triton(PLAN)
    assert launch.argv[0] == "/t/bin/tritonserver"
    assert launch.url == "grpc://127.0.0.1:4001"
    for word in (
        "--model-repository=/run/r0/models",
        "--model-control-mode=explicit",
        "--load-model=m",
        "--load-model=n",
        "--grpc-address=127.0.0.1",
        "--grpc-port=4001",
        "--allow-http=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=10",
    ):
        assert word in launch.argv
    assert launch.files == (("models/m/config.pbtxt", "x"),)
    assert launch.leave.grace_s > 10


def test_every_word_has_its_reason_in_order() -> None:
    launch = launch_triton(PLAN)
    assert [flag for flag, _ in launch.why] == [word.partition("=")[0] for word in launch.argv[1:]]
    assert all(why for _, why in launch.why)


def test_loading_models_needs_the_key_and_that_it_can_be_seen_is_said() -> None:
    launch = launch_triton(PLAN)
    restricted = next(word for word in launch.argv if word.startswith("--grpc-restricted-protocol="))
    assert "model-repository" in restricted
    assert restricted.endswith(":holdfast-key=k9")
    assert any("every user of this machine" in one for one in launch.warnings)
    assert "restricted" not in " ".join(launch_triton(structs.replace(PLAN, key="")).argv)


def test_the_environment_is_whole_and_has_only_what_it_needs() -> None:
    env = dict(launch_triton(structs.replace(PLAN, gpus=(2, 3))).env)
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert env["LD_LIBRARY_PATH"] == "/t/lib"
    assert env["PYTHONPATH"] == "/t/site"
    assert set(env) <= {
        "PATH", "LANG", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH", "PYTHONPATH",
    }  # fmt: skip


def test_doors_that_are_asked_for_are_on_loopback_too() -> None:
    argv = launch_triton(structs.replace(PLAN, http_port=1, metrics_port=2)).argv
    assert any(word.startswith("--http-restricted-api=inference,model-repository,") for word in argv)
    assert {"--http-address=127.0.0.1", "--http-port=1", "--metrics-address=127.0.0.1", "--metrics-port=2"} <= set(argv)
