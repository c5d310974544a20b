"""Where a Triton is looked for, in folders made up for it."""

from pathlib import Path

import pytest

from holdfast.host.triton_install import find_triton, lay_out_backends
from holdfast.host.triton_stubs import end_stubs, stubs_of


def wheel(folder: Path, stub: str = "3.11") -> Path:
    """An environment with nvidia-pytriton in it, as far as it is looked at; its Python is shared."""
    site = folder / "lib/python3.11/site-packages"
    server = site / "pytriton/tritonserver"
    home = folder / "home"
    for path in (
        server / "bin/tritonserver",
        server / "backends/python/libtriton_python.so",
        server / "backends/python/triton_python_backend_utils.py",
        server / f"python_backend_stubs/{stub}/triton_python_backend_stub",
        home / "lib/libpython3.11.so.1.0",
        folder / "bin/python",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "pyvenv.cfg").write_text(f"home = {home}/bin\n")
    return folder / "bin/python"


def test_the_wheels_parts_are_found_and_its_stub_is_laid_beside_its_library(tmp_path: Path) -> None:
    python = wheel(tmp_path / "venv")
    found = find_triton(str(python))
    site = tmp_path / "venv/lib/python3.11/site-packages"
    assert found.binary == str(site / "pytriton/tritonserver/bin/tritonserver")
    assert found.python_path == (str(site),)
    assert found.path[0] == str(python.parent)
    assert found.libraries == (str(site / "nvidia_pytriton.libs"), str(tmp_path / "venv/home/lib"))
    for _ in range(2):  # a second life finds the links of the first
        laid = lay_out_backends(found, tmp_path / "r0")
        parts = {path.name for path in (Path(laid.backends) / "python").iterdir() if path.exists()}
        assert parts == {"libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"}


def test_a_container_has_everything_in_its_place(tmp_path: Path) -> None:
    for path in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find_triton(str(tmp_path / "bin/tritonserver"))
    assert found.backends == str(tmp_path / "backends")
    assert lay_out_backends(found, tmp_path / "r0") == found


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no tritonserver, and no Python of an environment with nvidia-pytriton"):
        find_triton(str(tmp_path / "bin/python"))
    found = find_triton(str(wheel(tmp_path / "venv", stub="3.9")))
    with pytest.raises(ValueError, match=r"no Python backend for Python 3\.11"):
        lay_out_backends(found, tmp_path / "r0")


def test_a_server_without_stubs_has_none_to_end() -> None:
    assert stubs_of(1, "holdfast") == ()
    assert end_stubs(1, "holdfast") == "no process of holdfast was left"
