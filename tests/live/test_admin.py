"""The admin side: who may look at the control plane, and what a site refuses to be started with."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from site_up import Site


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of it for 127.0.0.1, one for a client, and a client's of another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not here")
    folder = tmp_path_factory.mktemp("papers")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for authority in ("ca", "other"):
        files = ("-keyout", f"{authority}.key", "-out", f"{authority}.pem")
        openssl(folder, "req", "-x509", *curve, *files, "-subj", f"/CN={authority}")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


def caller(papers: Path, name: str = "") -> httpx.Client:
    context = ssl.create_default_context(cafile=str(papers / "ca.pem"))
    if name:
        context.load_cert_chain(papers / f"{name}.pem", papers / f"{name}.key")
    return httpx.Client(verify=context, trust_env=False, timeout=20)


@pytest.fixture(scope="module")
def site(papers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    files = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    tls = {name: str(papers / file) for name, file in files.items()}
    folder = tmp_path_factory.mktemp("admin")
    with Site(folder, control=tls, gateway={"workers": 2, "metrics": False}, replica={"count": 1}) as one:
        one.wait_ready()
        one.wait("the control plane", lambda: "serving" in _states(one, "control"))
        yield one


def _states(site: Site, role: str) -> list[str]:
    return [one["state"] for one in site.view()["processes"] if one["role"] == role]


def made(site: Site, *words: str) -> str:
    done = site.run("key", "create", *words, "--settings", str(site.file))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_certificates_of_ours_are_served(site: Site, papers: Path) -> None:
    url = site.control_url.replace("http:", "https:")
    with caller(papers, "client") as ours:
        assert ours.get(f"{url}/v1/site").json()["name"] == "tested"
    for name in ("", "stranger"):
        with caller(papers, name) as theirs, pytest.raises(httpx.TransportError):
            theirs.get(f"{url}/health")
    with httpx.Client(trust_env=False) as plain, pytest.raises(httpx.TransportError):
        plain.get(f"{site.control_url}/health")


def test_an_admin_key_locks_it_and_opens_it_and_metrics_of_all_workers_are_there(site: Site, papers: Path) -> None:
    url = site.control_url.replace("http:", "https:")
    with caller(papers, "client") as ours:
        admin, scraper, chat = (made(site, name, "--scope", name) for name in ("admin", "metrics", "chat"))

        def status(path: str, secret: str = "") -> int:
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            return ours.get(url + path, headers=headers).status_code

        assert [status("/v1/site", one) for one in (admin, scraper, chat, "", admin + "x")] == [200, 403, 403, 401, 401]
        assert [status("/metrics", one) for one in (admin, scraper, chat, "")] == [200, 200, 403, 401]
        assert status("/health") == 200
        page = ours.get(f"{url}/metrics", headers={"authorization": f"Bearer {scraper}"}).text
        assert set(re.findall(r'worker="([^"]+)"', page)) == {"gateway-0", "gateway-1"}
        assert page.count("# TYPE holdfast_rung ") == 1
        site.run("key", "revoke", "admin", "--settings", str(site.file))
        assert [status("/v1/site", one) for one in (admin, "")] == [401, 401]
    there = site.url.removesuffix("/v1") + "/metrics"
    assert httpx.get(there, trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"gateway": {"host": "0.0.0.0"}}, "there is no key. Make one (holdfast key create NAME)"),
        ({"control": {"host": "0.0.0.0"}}, "nobody is asked who they are. Make an admin key"),
        ({"control": {"tls_client_ca": "/ca.pem"}}, "[control] tls_client_ca needs tls_cert and tls_key"),
        ({"control": {"tls_cert": "/none.pem", "tls_key": "/none.key"}}, "[control] tls_cert, tls_key: /none.pem and"),
    ],
)
def test_what_strangers_could_reach_is_refused_before_anything_starts(
    tmp_path: Path, sections: dict[str, dict[str, object]], told: str
) -> None:
    one = Site(tmp_path, **sections)
    done = one.run("up", str(one.file))
    assert done.returncode == 2
    assert told in done.stderr
    assert one.pids() == {}


@pytest.mark.parametrize("gateway", [{"key": "sesame"}, {"open": True}])
def test_with_a_key_or_on_purpose_it_starts(tmp_path: Path, gateway: dict[str, object]) -> None:
    with Site(tmp_path, gateway={"host": "0.0.0.0", **gateway}, replica={"count": 1}) as one:
        one.wait_ready()
        served = "is served with a key" if "key" in gateway else "is served, without a key"
        assert served in one.output.read_text()
        assert httpx.get(f"{one.url}/models", trust_env=False).status_code == (401 if "key" in gateway else 200)
        metrics = one.url.removesuffix("/v1") + "/metrics"
        assert httpx.get(metrics, trust_env=False).status_code == (401 if "key" in gateway else 200)
