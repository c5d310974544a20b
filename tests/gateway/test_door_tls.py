"""The door over TLS: right, new, wrong and old certificates, and clients that are slow at it. Made with the openssl command."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doorway import Client, HandClock, Place, Says, chat_body, doorway, ids_of, request, run

from holdfast.domain.event import CertificateEnding, CertificateKept, CertificateLoaded, Event
from holdfast.domain.request import Chunk
from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_door import Gateway
from holdfast.gateway.accepting import HANDSHAKES_EACH_MAX
from holdfast.gateway.needs import Limits
from holdfast.host.certificate import Certificate, ends_unix_s, load, trusting

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed: no certificates can be made")
DAY_S = 86_400.0


def openssl(*words: str) -> str:
    return subprocess.run([OPENSSL, *words], check=True, capture_output=True, text=True).stdout


def make(folder: Path, name: str, days: int = 90, signer: str = "") -> tuple[Path, Path]:
    """(certificate, key) of its own making, or signed by another one here."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days)]
    words += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    if signer:
        words += ["-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}.key")]
        words += ["-addext", "basicConstraints=critical,CA:FALSE"]
    openssl(*words)
    return cert, key


def gateway_of(cert: Path, key: Path, roots: str = "") -> Gateway:
    return Gateway(tls_cert=str(cert), tls_key=str(key), tls_client_ca=roots)


class Papers:
    """A certificate under watch, and what it told."""

    def __init__(self, folder: Path, roots: str = "", days: int = 90) -> None:
        self.events: list[Event] = []
        self.now_unix_s = datetime.now(UTC).timestamp()
        self.settings = gateway_of(*make(folder, "door", days), roots)
        self.certificate = Certificate(self.settings, HandClock(), lambda: self.now_unix_s, self.events.append)

    def replace(self, cert: Path, key: Path) -> None:
        """As a tool that renews certificates would."""
        cert.replace(self.settings.tls_cert)
        key.replace(self.settings.tls_key)

    def context(self) -> ssl.SSLContext:
        return self.certificate.context

    def told(self, kind: type[Event]) -> list[str]:
        return [event.why for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def client_of(place: Place, context: ssl.SSLContext) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def name_of(client: Client) -> str:
    """What the other side's certificate says that it is."""
    der = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return next(name for name in ("door", "fresh") if name.encode() in der)


def test_answers_come_over_tls_1_3(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        context = trusting(papers.settings)
        async with doorway(Says("One two."), tls=papers.context) as place, client_of(place, context) as client:
            assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert (await client.chat()).json["choices"][0]["message"]["content"] == "One two."
            assert (await client.chat(stream=True)).events()[-1] == "[DONE]"
            assert (await client.ask(None, "/health/live")).json == {"live": True}
            plain = await asyncio.open_connection("127.0.0.1", place.port)
            plain[1].write(request(None, "/health/live"))
            assert b"200" not in await plain[0].read()
            plain[1].close()
            assert (await client.chat()).status == 200

    run(story())


def test_a_new_certificate_is_taken_up_under_load(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        says = Says(hold=True)
        old = trusting(papers.settings)
        async with doorway(says, tls=papers.context) as place, client_of(place, old) as busy:
            busy.write(request(chat_body(stream=True)))
            await says.begun.wait()
            papers.replace(*make(tmp_path, "fresh"))
            papers.certificate.look()
            async with client_of(place, trusting(papers.settings)) as new:
                assert (name_of(busy), name_of(new)) == ("door", "fresh")
                with pytest.raises(ssl.SSLCertVerificationError):
                    async with client_of(place, old):
                        pass
                says.go.set()
                assert (await busy.answer()).events()[-1] == "[DONE]"
                assert (await new.chat()).status == 200
        assert "is new; it holds until" in papers.told(CertificateLoaded)[-1]

    run(story())


def test_a_pair_that_can_not_be_used_changes_nothing(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    context, (cert, key) = papers.context(), make(tmp_path, "fresh")
    Path(papers.settings.tls_cert).write_text("garbage")
    papers.certificate.look()
    papers.certificate.look()
    assert len(papers.told(CertificateKept)) == 1
    assert (
        "no certificate in it" in papers.told(CertificateKept)[0]
        and "used on, until" in papers.told(CertificateKept)[0]
    )
    cert.replace(papers.settings.tls_cert)  # its key has not come yet
    papers.certificate.look()
    assert "KEY_VALUES_MISMATCH" in papers.told(CertificateKept)[1]
    assert papers.context() is context
    key.replace(papers.settings.tls_key)
    papers.certificate.look()
    assert papers.context() is not context and len(papers.told(CertificateLoaded)) == 2


def test_one_that_has_ended_does_not_replace_one_that_has_not(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    context = papers.context()
    papers.now_unix_s += 30 * DAY_S
    papers.replace(*make(tmp_path, "fresh", days=20))
    papers.certificate.look()
    assert papers.context() is context and "has ended" in papers.told(CertificateKept)[0]


def test_its_end_is_told_two_weeks_ahead_and_then_daily(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    papers.now_unix_s += 75.9 * DAY_S
    papers.certificate.look()
    assert papers.told(CertificateEnding) == []
    papers.now_unix_s += 0.2 * DAY_S
    papers.certificate.look()
    papers.certificate.look()
    assert len(papers.told(CertificateEnding)) == 1 and "ends in 13 days" in papers.told(CertificateEnding)[0]
    papers.now_unix_s += DAY_S
    papers.certificate.look()
    assert len(papers.told(CertificateEnding)) == 2
    papers.now_unix_s += 20 * DAY_S
    papers.certificate.look()
    assert "ended on" in papers.told(CertificateEnding)[2]


@pytest.mark.parametrize("days", [1, 400, 30_000])
def test_the_end_is_read_as_openssl_reads_it(days: int, tmp_path: Path) -> None:
    cert, _ = make(tmp_path, "door", days)
    said = openssl("x509", "-in", str(cert), "-noout", "-enddate").strip().partition("=")[2]
    assert (
        ends_unix_s(cert.read_text())
        == datetime.strptime(said, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp()
    )


def test_what_can_not_be_used_at_the_start_is_refused_by_name(tmp_path: Path) -> None:
    cert, key = make(tmp_path, "door")
    other = make(tmp_path, "fresh")[1]
    for settings, words in (
        (gateway_of(cert, other), "KEY_VALUES_MISMATCH"),
        (gateway_of(key, key), "no certificate in it"),
        (gateway_of(tmp_path / "none", key), "No such file"),
        (gateway_of(cert, key, str(key)), "tls_client_ca"),
    ):
        with pytest.raises(BadSettings, match=words):
            load(settings)


def test_without_a_certificate_that_the_roots_have_signed_nobody_comes_in(tmp_path: Path) -> None:
    make(tmp_path, "roots")
    papers = Papers(tmp_path, str(tmp_path / "roots.pem"))
    known, unknown = make(tmp_path, "known", signer="roots"), make(tmp_path, "unknown")

    async def story() -> None:
        async with doorway(Says(), tls=papers.context) as place:
            context = ssl.create_default_context(cafile=papers.settings.tls_cert)
            for pair in (None, unknown):
                if pair is not None:
                    context.load_cert_chain(*pair)
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    async with client_of(place, context) as client:
                        await client.chat()
            context.load_cert_chain(*known)
            async with client_of(place, context) as client:
                assert (await client.chat()).status == 200

    run(story())


def test_a_handshake_has_a_deadline(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        async with doorway(Says(), Limits(head_s=0.3), tls=papers.context) as place:
            silent = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(20)]
            async with client_of(place, trusting(papers.settings)) as client:
                assert (await client.chat()).status == 200
            for reader, writer in silent:
                assert await reader.read() == b""
                writer.close()

    run(story())


def test_a_refusal_reaches_a_client_that_is_still_sending(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        async with (
            doorway(Says(), Limits(body_bytes_max=10_000), tls=papers.context) as place,
            client_of(place, trusting(papers.settings)) as client,
        ):
            client.write(request(chat_body("x" * 400_000)))
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (413, "request_too_large")

    run(story())


def test_one_that_does_not_read_is_cut_and_its_work_stopped(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        closed, made = asyncio.Event(), 0
        long_word = ids_of(" backwards")

        async def flood(generation: object) -> AsyncIterator[Chunk]:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield Chunk(long_word * 1000)
            finally:
                closed.set()

        async with doorway(flood, tls=papers.context) as place, client_of(place, trusting(papers.settings)) as client:
            client.writer.transport.pause_reading()
            client.write(request(chat_body(stream=True)))
            before = -1
            while before != made or not made:
                before = made
                await place.clock.pass_s(1)
            assert not closed.is_set()
            await place.clock.pass_s(61)
            await closed.wait()
            assert place.door.tally.stalled == 1

    run(story())


def test_one_address_that_only_begins_handshakes_keeps_nobody_else_out(tmp_path: Path) -> None:
    papers = Papers(tmp_path)

    async def story() -> None:
        async with doorway(Says(), Limits(head_s=60.0), tls=papers.context) as place:
            begun = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(HANDSHAKES_EACH_MAX + 1)]
            assert await begun[-1][0].read() == b""
            # from another address of this machine
            context, elsewhere = trusting(papers.settings), ("127.0.0.2", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context, local_addr=elsewhere)
            assert (await Client(reader, writer).chat()).status == 200
            begun[0][1].transport.abort()
            begun[1][1].transport.abort()
            for _ in range(1000):  # until the door has heard of it
                await asyncio.sleep(0)
            async with client_of(place, context) as client:
                assert (await client.chat()).status == 200
            for _, held in begun:
                held.transport.abort()
            writer.transport.abort()

    run(story())
