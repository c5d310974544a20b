"""The embedded engine inside Triton Inference Server: a core in the process of Triton's Python backend (its "stub").

Triton calls `execute` on the stub's main thread and expects it back at once. A second thread has the core for itself and steps
the batch; a third one hands out what was made, since each send waits for the server. Tokens that are made meanwhile go out with
the next send. An answer whose client has hung up is asked after at each send, and those that are silent in turn.

An exception out of the core ends the process, as in a replica of our own: state that failed can't be trusted. Triton does not
restart a stub; the adapter (engine/triton.py) finds out and has the model loaded anew.
"""

import gc
import json
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Produced, Work
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, Sampling, TokenLogprob
from holdfast.domain.triton import ASK_LOAD, ASK_RELEASE, BAD, FAILED, OUTPUT_LEN, REFUSED, PearlPlan, Told
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions, OpenCore

DRAIN_S = 30.0  # answers under way when the model is unloaded may go on for so long
_LOOK_S = 0.05  # how often silent answers are asked after, with nothing else to do
_SPIN_S = 0.001


@dataclass(slots=True)
class _Answer:
    """One request under way: its sender, and what was made and not sent yet."""

    sender: Any
    whole: bool  # one response for all of it
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached: int = 0
    finish: Finish | None = None
    error: str = ""

    def take(self, produced: Produced) -> None:
        """Add a step's share."""
        self.ids += produced.ids
        self.logprobs += produced.logprobs or ()
        self.cached += produced.cached_tokens
        self.finish = produced.finish
        if produced.fault:
            self.error = f"{BAD}{produced.param}: {produced.fault}" if produced.param else f"{FAILED}{produced.fault}"

    @property
    def over(self) -> bool:
        return bool(self.error) or self.finish is not None


class Loop:
    """The thread that has the core. `give` gets what each step made, and `fail` the reason why one was not taken."""

    def __init__(
        self, core: OpenCore, give: Callable[[list[Produced]], None], fail: Callable[[int, str], None]
    ) -> None:
        self._core, self._give, self._fail = core, give, fail
        self._stir = threading.Condition()
        self._arrived: deque[tuple[int, Work]] = deque()
        self._aborted: deque[int] = deque()
        self._closing = False
        self.load: Load = core.load()  # as it was after the last step
        self.thread = threading.Thread(target=self._run, name="core", daemon=True)

    def put(self, ticket: int, work: Work) -> None:
        with self._stir:
            self._arrived.append((ticket, work))
            self._stir.notify()

    def abort(self, ticket: int) -> None:
        with self._stir:
            self._aborted.append(ticket)
            self._stir.notify()

    def close(self) -> None:
        """Nothing more will come; the thread ends once nothing is under way."""
        with self._stir:
            self._closing = True
            self._stir.notify()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            if not self._closing:
                sys.stderr.flush()
                os._exit(70)

    def _turn(self) -> bool:
        busy = self.load.running + self.load.queued > 0
        with self._stir:
            while not (self._arrived or self._aborted or busy):
                if self._closing:
                    return False
                self._stir.wait()
            arrived, self._arrived = self._arrived, deque()
            aborted, self._aborted = self._aborted, deque()
        for ticket, work in arrived:
            self._submit(ticket, work)
        for ticket in aborted:
            self._core.abort(ticket)
        produced = self._core.step()
        steps, self.load = self.load.step, self._core.load()
        if produced:
            self._give(produced)
        elif self.load.step == steps and self.load.queued:
            with self._stir:  # a grammar is being compiled
                self._stir.wait(_SPIN_S)
        return True

    def _submit(self, ticket: int, work: Work) -> None:
        try:
            self._core.submit(ticket, work)
        except BadRequest as bad:
            self._fail(ticket, f"{BAD}{bad.param}: {bad.why}")
        except EngineRefused as refused:
            self._fail(ticket, f"{REFUSED}{refused.why}")


class Outlet:
    """The thread that sends: all answers under way, by ticket."""

    def __init__(self, pb_utils: Any, numpy: Any) -> None:
        self._pb, self._numpy = pb_utils, numpy
        self._stir = threading.Condition()
        self._answers: dict[int, _Answer] = {}
        self._due: dict[int, None] = {}
        self._silent: deque[int] = deque()
        self._closing = False
        self.abort: Callable[[int], None] = lambda ticket: None
        self.thread = threading.Thread(target=self._run, name="outlet", daemon=True)

    def open(self, ticket: int, sender: Any, whole: bool) -> None:
        with self._stir:
            self._answers[ticket] = _Answer(sender, whole)
            self._silent.append(ticket)

    def give(self, produced: list[Produced]) -> None:
        """What a step has made. Whoever reads a prompt has a share without ids: a sign of life."""
        with self._stir:
            for one in produced:
                answer = self._answers.get(one.ticket)
                if answer is None:
                    continue
                answer.take(one)
                if answer.over or not answer.whole:
                    self._due[one.ticket] = None
            self._stir.notify()

    def fail(self, ticket: int, why: str) -> None:
        with self._stir:
            self._answers[ticket].error = why
            self._due[ticket] = None
            self._stir.notify()

    def close(self) -> None:
        """Fail whatever is under way, and end."""
        with self._stir:
            for ticket, answer in self._answers.items():
                answer.error = answer.error or f"{FAILED}the model was unloaded"
                self._due[ticket] = None
            self._closing = True
            self._stir.notify()
        self.thread.join(DRAIN_S)

    def _run(self) -> None:
        while True:
            with self._stir:
                if not self._due:
                    if self._closing:
                        return
                    self._stir.wait(_LOOK_S if self._answers else None)
                parcels = [(ticket, self._taken(ticket)) for ticket in self._due if ticket in self._answers]
                self._due.clear()
            for ticket, parcel in parcels:
                self._send(ticket, parcel)
            self._look()

    def _taken(self, ticket: int) -> _Answer:
        """The answer's share so far; the answer itself starts anew, or is gone with its last one."""
        answer = self._answers.pop(ticket) if self._answers[ticket].over else self._answers[ticket]
        if answer.over:
            return answer
        self._answers[ticket] = _Answer(answer.sender, answer.whole)
        return answer

    def _look(self) -> None:
        """Ask after one answer, in turn: its client may be gone."""
        with self._stir:
            while self._silent and self._silent[0] not in self._answers:
                self._silent.popleft()
            if not self._silent:
                return
            ticket = self._silent[0]
            self._silent.rotate(-1)
            sender = self._answers[ticket].sender
        if sender.is_cancelled():
            self._drop(ticket, sender)

    def _drop(self, ticket: int, sender: Any) -> None:
        """Nobody reads it any more."""
        with self._stir:
            gone = self._answers.pop(ticket, None) is not None
            self._due.pop(ticket, None)
        if gone:
            self.abort(ticket)
            sender.send(flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send(self, ticket: int, answer: _Answer) -> None:
        sender = answer.sender
        final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if answer.over else 0
        if not final and sender.is_cancelled():
            self._drop(ticket, sender)
        elif answer.error:
            sender.send(self._pb.InferenceResponse(error=self._pb.TritonError(answer.error)), flags=final)
        else:
            sender.send(self._pb.InferenceResponse(self._tensors(answer)), flags=final)

    def _tensors(self, answer: _Answer) -> list[Any]:
        pb, np = self._pb, self._numpy
        rows = (1, -1) if answer.whole else (-1,)  # the unary variant has a batch's dimension in front
        tensors = [pb.Tensor("output_ids", np.array(answer.ids, dtype=np.int32).reshape(rows))]
        if answer.cached or answer.whole:
            tensors.append(pb.Tensor("cached_tokens", np.array([answer.cached], dtype=np.int32).reshape(rows)))
        texts = {"finish": answer.finish or "", "logprobs": ""}
        if answer.logprobs:
            texts["logprobs"] = msgspec.json.encode(answer.logprobs).decode()
        for name, text in texts.items():
            if text:
                tensors.append(pb.Tensor(name, np.array([text.encode()], dtype=object).reshape(rows)))
        return tensors


def work_of(inputs: Callable[[str], list[Any]]) -> Work:
    """The attempt that a request asks for; `inputs` gives a tensor's values, none where it was not sent.

    Raises:
        BadRequest: an input is missing or is none of its kind.
    """
    ids = [int(id) for id in inputs("input_ids")]

    def one(name: str, default: Any) -> Any:
        values = inputs(name)
        return values[0] if values else default

    delivered = int(one("delivered_len", 0))
    if not 0 <= delivered < max(1, len(ids)):
        raise BadRequest(f"delivered_len is {delivered} of {len(ids)} ids", "delivered_len")
    try:
        bias = msgspec.json.decode(one("logit_bias", b"[]"), type=tuple[tuple[int, float], ...])
    except msgspec.MsgspecError as error:
        raise BadRequest(f"logit_bias is no list of [id, bias]: {error}", "logit_bias") from error
    return Work(
        prompt_ids=ids[: len(ids) - delivered],
        delivered_ids=ids[len(ids) - delivered :],
        sampling=Sampling(
            temperature=float(one("temperature", 1.0)),
            top_p=float(one("top_p", 1.0)),
            top_k=int(one("top_k", 0)),
            min_p=float(one("min_p", 0.0)),
            presence_penalty=float(one("presence_penalty", 0.0)),
            frequency_penalty=float(one("frequency_penalty", 0.0)),
            logit_bias=bias,
            logprobs=int(one("logprobs", -1)),
            ignore_eos=bool(one("ignore_eos", False)),
            grammar=one("grammar", b"").decode("utf-8", "replace"),
        ),
        max_tokens=int(one("request_output_len", OUTPUT_LEN)) + delivered,
        seed=int(one("seed", 0)),
        stop_ids=tuple(int(id) for id in inputs("stop_ids")),
    )


class PearlModel:
    """What Triton's Python backend calls. `pb_utils` is its module, there only inside the stub."""

    def __init__(self, pb_utils: Any, numpy: Any) -> None:
        self._pb, self._numpy = pb_utils, numpy
        self._ticket = 0

    def initialize(self, args: dict[str, str]) -> None:
        """Open the core; Triton reports what this raises as the reason why the model is not ready."""
        config = json.loads(args["model_config"])
        plan = msgspec.json.decode(config["parameters"]["plan"]["string_value"], type=PearlPlan)
        self._unary = not config["model_transaction_policy"]["decoupled"]
        device = plan.device
        if args["model_instance_kind"] == "GPU":
            device = f"cuda:{args['model_instance_device_id']}"
        self._core = core = open_core(
            Path(plan.model),
            CoreOptions(
                slots=plan.slots,
                context_tokens_max=plan.context_tokens_max,
                prefill_chunk_tokens=plan.prefill_chunk_tokens,
                queue_max=plan.queue_max,
                dtype=plan.dtype,
                threads=plan.threads,
                device=device,
                model=plan.serve_as,
                version=plan.version,
            ),
        )
        self._slots = plan.slots
        self._outlet = Outlet(self._pb, self._numpy)
        self._loop = Loop(core, self._outlet.give, self._outlet.fail)
        self._outlet.abort = self._loop.abort
        gc.collect()
        gc.freeze()
        self._loop.thread.start()
        self._outlet.thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Take requests and be gone: their answers come through their senders."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except BadRequest as bad:
                error = self._pb.TritonError(f"{BAD}{bad.param}: {bad.why}")
                final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                sender.send(self._pb.InferenceResponse(error=error), flags=final)

    def finalize(self) -> None:
        """Unloaded: let answers under way come to an end, for a while."""
        self._loop.close()
        self._loop.thread.join(DRAIN_S)
        self._outlet.close()

    def _take(self, request: Any, sender: Any) -> None:
        def inputs(name: str) -> list[Any]:
            tensor = self._pb.get_input_tensor_by_name(request, name)
            if tensor is None:
                return []
            values = tensor.as_numpy()
            if self._unary and values.shape[0] != 1:
                raise BadRequest(f"{name} has {values.shape[0]} rows: send each answer as a request of its own", name)
            flat: list[Any] = values.ravel().tolist()
            return flat

        asked = inputs("ask")
        if asked and asked[0]:
            self._tell(asked[0].decode("utf-8", "replace"), sender)
            return
        work = work_of(inputs)
        self._ticket += 1
        self._outlet.open(self._ticket, sender, self._unary)
        self._loop.put(self._ticket, work)

    def _tell(self, asked: str, sender: Any) -> None:
        if asked not in (ASK_RELEASE, ASK_LOAD):
            raise BadRequest(f"ask is {asked!r}; it may be {ASK_RELEASE} or {ASK_LOAD}", "ask")
        told = Told(
            release=self._core.release(),
            load=self._loop.load,
            vocab_size=self._core.vocab_size,
            context_tokens_max=self._core.context_tokens_max,
            slots=self._slots,
        )
        np, rows = self._numpy, (1, -1) if self._unary else (-1,)
        tensor = self._pb.Tensor("told", np.array([msgspec.json.encode(told)], dtype=object).reshape(rows))
        final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        sender.send(self._pb.InferenceResponse([tensor]), flags=final)


def model_class(pb_utils: ModuleType, numpy: ModuleType) -> type[PearlModel]:
    """The class that Triton looks for in a model.py, bound to what only its stub has."""

    class TritonPythonModel(PearlModel):
        def __init__(self) -> None:
            super().__init__(pb_utils, numpy)

    return TritonPythonModel
