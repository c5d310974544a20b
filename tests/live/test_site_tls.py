"""A whole site over TLS: asked, talked to, given a new certificate while it serves, and refused with a wrong one."""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from site_up import Site

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed: no certificates can be made")


def make(folder: Path, name: str) -> dict[str, str]:
    """A certificate of its own making, as the settings name it."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"]
    words += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([OPENSSL, *words], check=True, capture_output=True)
    return {"tls_cert": str(cert), "tls_key": str(key)}


def test_a_site_serves_over_tls_and_takes_up_a_new_certificate(site: Callable[..., Site], tmp_path: Path) -> None:
    papers = make(tmp_path, "first")
    one = site(gateway=papers)
    one.wait_ready()
    url = one.url.replace("http://", "https://")
    context = ssl.create_default_context(cafile=papers["tls_cert"])
    with httpx.Client(verify=context, trust_env=False, timeout=20) as client:
        assert client.get(f"{url}/models").status_code == 200
        assert one.wait_event("certificate_loaded")["ends_unix_s"] > 0
        talk = one.run("chat", "--settings", str(one.file), "What is there?")
        assert (talk.returncode, bool(talk.stdout.strip())) == (0, True), talk.stderr
        assert "ready: https://" in one.output.read_text()

        Path(papers["tls_cert"]).write_text("nothing of use")
        assert "can't be used" in one.wait_event("certificate_kept")["why"]
        assert client.get(f"{url}/models").status_code == 200

        fresh = make(tmp_path, "second")
        Path(fresh["tls_key"]).replace(papers["tls_key"])
        Path(fresh["tls_cert"]).replace(papers["tls_cert"])
        one.wait("a new certificate", lambda: sum(e["event"] == "certificate_loaded" for e in one.events()) > 1)
        assert client.get(f"{url}/models").status_code == 200  # on the connection that it had
    with (
        httpx.Client(verify=context, trust_env=False, timeout=20) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get(f"{url}/models")
    context = ssl.create_default_context(cafile=papers["tls_cert"])
    assert httpx.get(f"{url}/models", verify=context, trust_env=False, timeout=20).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{one.url}/models", trust_env=False, timeout=20)


def test_a_site_with_a_wrong_key_does_not_start(tmp_path: Path) -> None:
    papers = make(tmp_path, "first") | {"tls_key": make(tmp_path, "second")["tls_key"]}
    one = Site(tmp_path, gateway=papers)
    told = one.run("up", str(one.file))
    assert (told.returncode, told.stdout) == (2, "")
    assert "[gateway] tls_cert, tls_key" in told.stderr and "KEY_VALUES_MISMATCH" in told.stderr
