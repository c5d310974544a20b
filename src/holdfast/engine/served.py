"""Whether a server still has the model that it had when it was learnt.

One that nobody of ours has started may end and come back as another within a moment, too short for a door to be found shut. Its
connections end with it. So what is asked over a connection that is newer than the last look at the server's list of models is
believed only when that has been looked at again: a stream before its first event is given, counters before they are told.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.engine.http import HttpDoor, fault_of

_SAID = ("id", "root", "max_model_len")  # of a model, in the list of any of these servers
_META = ("n_ctx", "n_ctx_train", "n_embd", "n_params", "n_vocab", "size")  # of llama.cpp's `meta`


class Served:
    """Looks where `outside` says so; else the server is our child, and asks nothing."""

    def __init__(self, door: HttpDoor, answer_s: float, outside: bool) -> None:
        self._door, self._answer_s, self._outside = door, answer_s, outside
        self._name, self._known = "", ()
        self._looked_at = -1  # connections that the door had made before the last look

    async def learn(self, name: str) -> None:
        """Remember what it says of the model that it calls so. Raises EngineLost."""
        if self._outside:
            self._name, self._known = name, ()
            self._known = await self._look()

    async def still(self) -> None:
        """Raises EngineLost, as of a death, where it has another model than was learnt; or where that can't be found out."""
        if not self._known or self._looked_at == self._door.dialled:
            return
        if await self._look() != self._known:
            why = f"{self._door.url} came back with another model than {self._name} as it was: that must be learnt anew"
            raise EngineLost(why, died=True)

    def events(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """The door's, the first one given when it is known whose they are."""
        return self._assured(path, body) if self._outside else self._door.events(path, body)

    async def _assured(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assured = False
        async with aclosing(self._door.events(path, body)) as events:
            try:
                async for data in events:
                    if not assured:
                        await self.still()
                        assured = True
                    yield data
            except (BadRequest, EngineRefused):
                await self.still()  # which is why it does not know what we ask for
                raise

    async def _look(self) -> tuple[Any, ...]:
        """What it says of the model now; empty where it lists none of that name."""
        made = self._door.dialled
        try:
            answer = await self._door.ask("GET", "/v1/models", None, self._answer_s)
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        try:
            listed = msgspec.json.decode(answer.body, type=dict[str, Any]).get("data") or []
        except msgspec.MsgspecError as error:
            raise EngineLost(f"{self._door.url}/v1/models answers with garbage: {error}") from error
        self._looked_at = made
        models = (one for one in listed if isinstance(one, dict) and one.get("id") == self._name)
        return next((_essence(one) for one in models), ())


def _essence(model: dict[str, Any]) -> tuple[Any, ...]:
    """What of it does not change while it is the same: not when it was made, nor what may be done with it."""
    meta = model.get("meta")
    told = meta if isinstance(meta, dict) else {}
    return (*(model.get(name) for name in _SAID), *(told.get(name) for name in _META))
