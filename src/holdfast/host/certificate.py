"""Certificates of our doors: read from files, read again when they change, and watched for the day on which it ends.

A pair that can't be used never replaces one that can: who listens goes on with what it has, and says so.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from holdfast.domain.event import CertificateEnding, CertificateKept, CertificateLoaded, Emit
from holdfast.domain.ports import Clock
from holdfast.domain.settings import BadSettings, Control
from holdfast.domain.settings_door import Gateway

LOOK_S = 1.0  # between two looks at the files
ALARM_S = 14 * 86_400.0  # before it ends
AGAIN_S = 86_400.0  # between two alarms

Stamp = tuple[tuple[int, int, int], ...]


def ends_unix_s(pem: str) -> float:
    """When the first certificate of a PEM text ends: notAfter, read out of its DER (RFC 5280, 4.1).

    Raises:
        ValueError: there is none.
    """
    begin, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
    try:
        der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)])
        signed = _inside(der, 0)[0]
        at = _inside(der, signed)[0]
        if der[at] == 0xA0:  # its version, left out in version 1
            at = _inside(der, at)[1]
        for _ in range(3):  # serial number, algorithm, issuer
            at = _inside(der, at)[1]
        first = _inside(der, at)[0]
        last = _inside(der, first)[1]
        begin, end = _inside(der, last)
        said = der[begin:end].decode("ascii")
        form = "%y%m%d%H%M%SZ" if der[last] == 0x17 else "%Y%m%d%H%M%SZ"
        return datetime.strptime(said, form).replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError) as error:
        raise ValueError(f"there is no certificate in it that can be read ({error})") from None


def _inside(der: bytes, at: int) -> tuple[int, int]:
    """Where the value at `at` begins and ends, without its tag and length."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        more = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + more], "big"), begin + more
    return begin, begin + size


class Certificate:
    """The TLS side of one door. `context` is what new connections are met with; it changes when the files do."""

    def __init__(self, gateway: Gateway, clock: Clock, unix_s: Callable[[], float], emit: Emit) -> None:
        """Raises BadSettings: the files can't be used."""
        self._gateway, self._cert = gateway, gateway.tls_cert
        self._clock, self._unix_s, self._emit = clock, unix_s, emit
        self._warned_unix_s = 0.0
        self._stamp = self._stamps()
        self.context, self._ends_unix_s = load(gateway)
        self._emit(CertificateLoaded(ends_unix_s=self._ends_unix_s, why=f"{self._cert} holds until {self._day}"))
        self._alarm()

    async def run(self) -> None:
        """Look at the files once a second, for good."""
        while True:
            await self._clock.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Take up a new pair if there is one, and sound the alarm when the time has come."""
        stamp = self._stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                context, ends_unix_s = load(self._gateway)
                if ends_unix_s <= self._unix_s() < self._ends_unix_s:
                    raise BadSettings(f"[gateway] tls_cert: the certificate in {self._cert} has ended")
            except BadSettings as bad:
                self._emit(CertificateKept(why=f"{bad}; the one before it is used on, until {self._day}"))
            else:
                self.context, self._ends_unix_s, self._warned_unix_s = context, ends_unix_s, 0.0
                self._emit(
                    CertificateLoaded(ends_unix_s=ends_unix_s, why=f"{self._cert} is new; it holds until {self._day}")
                )
        self._alarm()

    @property
    def _day(self) -> str:
        return datetime.fromtimestamp(self._ends_unix_s, UTC).strftime("%d %B %Y, %H:%M UTC")

    def _alarm(self) -> None:
        now = self._unix_s()
        left_s = self._ends_unix_s - now
        if left_s > ALARM_S or now - self._warned_unix_s < AGAIN_S:
            return
        self._warned_unix_s = now
        days = max(0, int(left_s // 86_400))
        why = (
            f"{self._cert} ends in {days} days, on {self._day}" if left_s > 0 else f"{self._cert} ended on {self._day}"
        )
        self._emit(CertificateEnding(ends_unix_s=self._ends_unix_s, why=f"{why}: put a new one in its place"))

    def _stamps(self) -> Stamp:
        """What changes when a file does."""
        found = []
        for path in (self._gateway.tls_cert, self._gateway.tls_key, self._gateway.tls_client_ca):
            try:
                said = Path(path).stat() if path else None
            except OSError:
                said = None
            found.append((0, 0, 0) if said is None else (said.st_mtime_ns, said.st_size, said.st_ino))
        return tuple(found)


def load(papers: Gateway | Control) -> tuple[ssl.SSLContext, float]:
    """What connections are met with by these settings, and when its certificate ends, in unix seconds.

    Raises:
        BadSettings: the files can't be used.
    """
    section = f"[{type(papers).__name__.lower()}]"
    cert, key = Path(papers.tls_cert), Path(papers.tls_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        ends = ends_unix_s(cert.read_text(encoding="ascii", errors="replace"))
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadSettings(f"{section} tls_cert, tls_key: {cert} and {key} can't be used: {said}") from None
    if papers.tls_client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(papers.tls_client_ca)
        except OSError as error:
            raise BadSettings(f"{section} tls_client_ca: {papers.tls_client_ca} can't be used: {error}") from None
    return context, ends


def trusting(gateway: Gateway) -> ssl.SSLContext:
    """For a program on this machine that asks its own site: whoever shows this very certificate is it, by whatever name.

    Where clients must show one, it shows the same; that helps if `tls_client_ca` has signed it.

    Raises:
        BadSettings: the file can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate says who they are outside; here they are an address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        pem = Path(gateway.tls_cert).read_text(encoding="ascii", errors="replace")
        begin, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
        context.load_verify_locations(cadata=pem[begin : end + len(ssl.PEM_FOOTER)] + "\n")
        if gateway.tls_client_ca:
            context.load_cert_chain(gateway.tls_cert, gateway.tls_key)
    except (OSError, ValueError) as error:
        raise BadSettings(f"[gateway] tls_cert: {gateway.tls_cert} can't be used: {error}") from None
    return context
