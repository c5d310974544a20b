"""Finds a Triton Inference Server on this machine: in NVIDIA's container layout, or inside the wheel nvidia-pytriton.

The wheel keeps the Python backend's stub apart from its library, one for each version of Python; Triton wants them side by side.
"""

from ctypes.util import find_library
from pathlib import Path

from msgspec import structs

from holdfast.policy.triton_launch import TritonInstall

_PARTS = ("libtriton_python.so", "triton_python_backend_utils.py")
_STUB = "triton_python_backend_stub"


def find_triton(program: str) -> TritonInstall:
    """`program` is a tritonserver, or the Python of an environment with nvidia-pytriton in it.

    Raises:
        ValueError: it is neither, or what its stub is linked to is missing; the sentence says what was looked for.
    """
    path = Path(program)
    if path.name == "tritonserver" and path.is_file():
        root = path.resolve().parent.parent
        return TritonInstall(binary=str(path), backends=str(root / "backends"), libraries=(str(root / "lib"),))
    found = sorted(path.parent.parent.glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    if not found:
        raise ValueError(f"{program} is no tritonserver, and no Python of an environment with nvidia-pytriton in it")
    site = found[0].parents[3]
    python = site.parent.name
    library = _own_library(path.parent.parent, python)
    if not library and find_library(python) is None:
        raise ValueError(
            f"Triton's Python backend needs lib{python}.so.1.0, and there is none: apt install lib{python}"
        )
    return TritonInstall(
        binary=str(found[0]),
        backends=str(found[0].parents[1] / "backends"),
        libraries=(str(site / "nvidia_pytriton.libs"), *library),
        path=(str(path.parent.absolute()), "/usr/bin", "/bin"),
        python_path=(str(site),),
    )


def lay_out_backends(install: TritonInstall, folder: Path) -> TritonInstall:
    """Put the stub beside its library, by links in a folder of ours, where the installation does not have it so.

    Raises:
        ValueError: there is no stub for this version of Python.
    """
    backend = Path(install.backends) / "python"
    if (backend / _STUB).exists() or not backend.is_dir():
        return install
    version = Path(install.python_path[0]).parent.name.removeprefix("python") if install.python_path else ""
    stub = backend.parents[1] / "python_backend_stubs" / version / _STUB
    if not stub.exists():
        raise ValueError(f"Triton has no Python backend for Python {version}: {stub} is missing")
    ours = folder / "backends" / "python"
    ours.mkdir(parents=True, exist_ok=True)
    for source in (*(backend / name for name in _PARTS), stub):
        link = ours / source.name
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return structs.replace(install, backends=str(ours.parent))


def _own_library(environment: Path, python: str) -> tuple[str, ...]:
    """Where libpython of the environment's own interpreter lies: the system's would go with another standard library."""
    try:
        lines = (environment / "pyvenv.cfg").read_text().splitlines()
    except OSError:
        return ()
    homes = [line.partition("=")[2].strip() for line in lines if line.startswith("home")]
    libraries = [Path(home).parent / "lib" for home in homes]
    name = f"lib{python}.so.1.0"
    return tuple(str(folder) for folder in libraries if folder != Path("/usr/lib") and (folder / name).exists())
