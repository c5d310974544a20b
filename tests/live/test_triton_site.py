"""A whole site whose replica's engine is a real Triton: started, spoken to, and repaired under a stream when its stub dies."""

import os
import signal
from pathlib import Path

import pytest
import triton_process
from site_up import Site
from streaming import Streams

from holdfast.host.triton_stubs import stubs_of

pytestmark = pytest.mark.skipif(bool(triton_process.absent()), reason=triton_process.absent())


def server_of(site: Site) -> int:
    """The pid of the tritonserver below the replica's process."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(site.state).encode() in _words(entry) and b"bin/tritonserver" in _words(entry)
    ]
    assert len(found) == 1, found
    return found[0]


def _words(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def mended_under_streams(folder: Path) -> bool:
    """Kills the stub in mid-answer. Whether Triton was mended where it stood; False: it has aborted, as it does now and then."""
    settings = {"engine": "triton", "count": 1, "slots": 8, "context_tokens_max": 512}
    with Site(folder, replica=settings, engine={"program": str(triton_process.triton_python().absolute())}) as site:
        site.wait_ready()
        whole = [one.text for one in Streams(site, 3, 300).start().join()]
        server = server_of(site)
        replica, streams = site.pid("replica-0"), Streams(site, 3, 300).start()
        (stub,) = stubs_of(server, "holdfast")
        os.kill(stub, signal.SIGKILL)
        answers = streams.join()
        assert [one.end for one in answers] == ["length"] * 3, streams.told()
        assert [one.text for one in answers] == whole
        if "the engine was ended by SIG" in (site.state / "log" / "replica-0.log").read_text():
            return False
        assert (site.pid("replica-0"), server_of(site)) == (replica, server), "it was mended where it stood"
        assert stubs_of(server, "holdfast") not in ((), (stub,))
        return True


def test_a_stub_that_dies_under_a_stream_costs_a_pause_and_no_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not any(mended_under_streams(tmp_path_factory.mktemp("site")) for _ in range(3)):
        pytest.skip("each of three Tritons has aborted with its stub; no answer has suffered")
