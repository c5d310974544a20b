"""The shape that every layer of the gateway has."""

from collections.abc import AsyncGenerator, Callable

from holdfast.domain.request import Chunk, Generation

Service = Callable[[Generation], AsyncGenerator[Chunk, None]]
Layer = Callable[[Service], Service]
