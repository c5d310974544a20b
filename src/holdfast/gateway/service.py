"""The shape that every layer of the gateway has.

Whoever iterates a service's chunks closes them, come what may: what stands below ends its work by that. Chunks that came to their
end are closed already (`spent`), and are not asked again: with seven layers that would be 3 % of a request.
"""

from collections.abc import AsyncGenerator, Callable

from holdfast.domain.request import Chunk, Generation

Service = Callable[[Generation], AsyncGenerator[Chunk, None]]
Layer = Callable[[Service], Service]
