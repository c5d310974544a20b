"""The openai SDK's own clients, over transports that resume. The SDK is looked for only when a client is made."""

import importlib
import os
from typing import TYPE_CHECKING, Any

import httpx

from holdfast.client.async_transport import AsyncResumingTransport
from holdfast.client.patience import PATIENT, Patience
from holdfast.client.transport import ResumingTransport

if TYPE_CHECKING:
    import openai

BASE_URL = "http://127.0.0.1:8000/v1"  # where `holdfast up` listens unless told otherwise
NO_KEY = "none"  # the SDK insists on one; a site without a key reads none
TIMEOUT = httpx.Timeout(600.0, connect=5.0)  # the SDK's own
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)  # the SDK's own
MISSING = "holdfast.client.{} needs the openai package, 2.0 or later: pip install openai"


def blocking(*, patience: Patience = PATIENT, **options: Any) -> "openai.OpenAI":
    """An `openai.OpenAI` whose answers survive their connections. `options` are the SDK's own.

    Without `base_url` and OPENAI_BASE_URL it asks a site on this machine. The environment's proxies are not used; for one,
    hand in `http_client=httpx.Client(transport=ResumingTransport(httpx.HTTPTransport(proxy=...)))`.

    Raises:
        ImportError: the openai package is not installed.
    """
    sdk = _sdk("OpenAI")
    if options.get("http_client") is None:
        transport = ResumingTransport(httpx.HTTPTransport(limits=LIMITS), patience)
        options["http_client"] = httpx.Client(
            transport=transport, timeout=TIMEOUT, follow_redirects=True, trust_env=False
        )
    made: openai.OpenAI = sdk.OpenAI(**_addressed(options))
    return made


def asynchronous(*, patience: Patience = PATIENT, **options: Any) -> "openai.AsyncOpenAI":
    """An `openai.AsyncOpenAI` whose answers survive their connections; otherwise as `OpenAI`.

    Raises:
        ImportError: the openai package is not installed.
    """
    sdk = _sdk("AsyncOpenAI")
    if options.get("http_client") is None:
        transport = AsyncResumingTransport(httpx.AsyncHTTPTransport(limits=LIMITS), patience)
        options["http_client"] = httpx.AsyncClient(
            transport=transport, timeout=TIMEOUT, follow_redirects=True, trust_env=False
        )
    made: openai.AsyncOpenAI = sdk.AsyncOpenAI(**_addressed(options))
    return made


def _sdk(wanted: str) -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise ImportError(MISSING.format(wanted)) from error


def _addressed(options: dict[str, Any]) -> dict[str, Any]:
    """Address and key, where neither the caller nor the environment names them."""
    if options.get("base_url") is None:
        options["base_url"] = os.environ.get("OPENAI_BASE_URL") or BASE_URL
    if options.get("api_key") is None:
        options["api_key"] = os.environ.get("OPENAI_API_KEY") or NO_KEY
    return options


# The names that the SDK's users know, for what is a function here.
OpenAI = blocking
AsyncOpenAI = asynchronous
