"""A generation is a value, not a process: the transcript is everything needed to go on with an answer elsewhere."""

from msgspec import Struct, structs

from holdfast.domain.release import Release
from holdfast.domain.request import Chunk, Finish, Generation


class Transcript(Struct):
    """(request, prompt ids, delivered ids, seed), and how the answer has travelled so far.

    The failover layer owns it: ids are written here before anybody above sees them. `begun`: the release on which its first token
    was made, as far as anybody has had to know: it is learnt when an attempt is lost.
    """

    asked: Generation
    delivered_ids: list[int]
    moves: int = 0
    epoch: int = 0  # of the attempt that may deliver now
    finish: Finish | None = None
    begun: Release | None = None

    @classmethod
    def of(cls, generation: Generation) -> "Transcript":
        """A transcript for a generation that may itself be a continuation."""
        return cls(generation, list(generation.delivered_ids), begun=generation.begun)

    def write(self, chunk: Chunk) -> None:
        """Take down what the engine said before it is passed on."""
        self.delivered_ids.extend(chunk.ids)
        if chunk.finish is not None:
            self.finish = chunk.finish

    def rest(self, tried: frozenset[str]) -> Generation:
        """The generation that continues this answer on a replica not in `tried`. From here on the last attempt is fenced."""
        self.epoch += 1
        return structs.replace(
            self.asked, delivered_ids=list(self.delivered_ids), tried=tried, epoch=self.epoch, begun=self.begun
        )
