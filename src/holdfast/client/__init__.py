"""For programs that ask Holdfast: answers that go on when a connection, or the gateway worker behind it, does not.

    from holdfast.client import OpenAI              # or AsyncOpenAI: the SDK's own objects
    client = OpenAI(base_url="http://127.0.0.1:8000/v1")

For anything else that is built on httpx, hand it a transport:

    httpx.Client(transport=ResumingTransport())     # or httpx.AsyncClient(transport=AsyncResumingTransport())

This room imports httpx and nothing of the site's own machinery; the openai package is looked for when it is asked for.
docs/resuming.md tells what other clients must do for the same.
"""

from holdfast.client.async_transport import AsyncResumingTransport
from holdfast.client.patience import Patience
from holdfast.client.pursuit import AnswerLost
from holdfast.client.sdk import AsyncOpenAI, OpenAI
from holdfast.client.transport import ResumingTransport

__all__ = ["AnswerLost", "AsyncOpenAI", "AsyncResumingTransport", "OpenAI", "Patience", "ResumingTransport"]
