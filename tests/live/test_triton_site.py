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


def test_a_stub_that_dies_under_a_stream_costs_a_pause_and_no_token(tmp_path: Path) -> None:
    settings = {"engine": "triton", "count": 1, "slots": 8, "context_tokens_max": 512}
    with Site(tmp_path, replica=settings, engine={"program": str(triton_process.triton_python().absolute())}) as site:
        site.wait_ready()
        whole = [one.text for one in Streams(site, 3, 300).start().join()]
        server = server_of(site)
        replica, streams = site.pid("replica-0"), Streams(site, 3, 300).start()
        (stub,) = stubs_of(server, "holdfast")
        os.kill(stub, signal.SIGKILL)
        answers = streams.join()
        assert [one.end for one in answers] == ["length"] * 3, streams.told()
        assert [one.text for one in answers] == whole
        if "the engine was ended by SIGABRT" in (site.state / "log" / "replica-0.log").read_text():
            pytest.skip(
                "Triton 2.51 has aborted while it unloaded the model, as it does now and then; no answer has suffered"
            )
        assert (site.pid("replica-0"), server_of(site)) == (replica, server), "it was mended where it stood"
        assert stubs_of(server, "holdfast") not in ((), (stub,))
