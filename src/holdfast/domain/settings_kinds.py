"""The kinds of numbers that settings are made of, each with its limits."""

from typing import Annotated

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=1e7)]
Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
