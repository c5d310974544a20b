"""Rates and quotas of several machines, shared through a Redis or Valkey that no request ever waits for.

Each worker leases what it will need in the background, some forty times a second, and its requests spend the lease without
asking anybody. A script in the store keeps each account as one bucket in the store's own time, and grants from it; so all
machines together get the rate exactly, however the load falls on them. Whoever needs more than it has leased may overdraw by a
small part of what the bucket still had (a half of it, divided by all who use it, so that all overdrafts together fit); that is
charged with the next lease.

Where there is no lease yet (for a round trip, then), and while the store can't be reached, the machine's own ledger answers,
with the rate and burst divided by the number of machines that were last counted. That is what each machine does anyway to
begin with, so nothing has to be decided when the store dies (static stability): nobody needs to know that others noticed too.

In the store an account holds the inflow of eight rounds at least (a fifth of a second's), or what flows in between two leases
would be cut off where the burst is small.
"""

import asyncio
import importlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from holdfast.domain.board import Ledger, Rate
from holdfast.domain.event import Emit, SharingFound, SharingLost
from holdfast.domain.ports import Clock
from holdfast.domain.settings import BadSettings
from holdfast.store import snapshot

ROUND_S = 0.025  # from lease to lease, on average; longer with many accounts, so that they cost a worker 2 % at most
PATIENCE_S = 0.1  # when the store has not answered for so long, the machine's own share counts beside the lease
TIMEOUT_S = 0.5  # then it can't be reached
AGAIN_S = 0.5
IDLE_S = 1.0  # a lease that nobody spends goes back
FORGET_S = 60.0
COUNT_S = 10.0
LATE_S = 1.0
HELD_ROUNDS = 8  # an account of the store can hold the inflow of so many rounds at least
ACCOUNTS_MAX = 4096
BATCH_MAX = 128  # accounts in one round: a few milliseconds of the store's time
_GOLDEN = 0.618034  # steps by it spread evenly, so two workers don't ask in step

# KEYS: the machines, then each account's bucket and its users. ARGV: machine, worker, then for each account: rate, size, what
# it holds at first, at most now, charge, want, lump. Returns machines, then for each account: granted, left, users.
SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 5)
redis.call('EXPIRE', KEYS[1], 60)
local answer = {tostring(redis.call('ZCARD', KEYS[1]))}
for i = 1, (#KEYS - 1) / 2 do
  local bucket, users, at = KEYS[2 * i], KEYS[2 * i + 1], 7 * i - 4
  local rate, size, first = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local most, charge = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local want, lump = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local was = redis.call('HMGET', bucket, 'level', 'at')
  local level = tonumber(was[1] or first)
  level = math.min(size, most, level + math.max(0, now - tonumber(was[2] or now)) * rate)
  level = math.min(size, level - charge)
  if want > 0 then redis.call('ZADD', users, now, ARGV[2]) end
  redis.call('ZREMRANGEBYSCORE', users, '-inf', now - 2)
  local many = math.max(1, redis.call('ZCARD', users))
  local grant = math.max(0, math.min(want, level / many))
  if grant < lump and level >= lump then grant = lump end
  level = level - grant
  local full_s = math.ceil((size - level) / rate) + 60
  redis.call('HSET', bucket, 'level', string.format('%.17g', level), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', bucket, full_s)
  redis.call('EXPIRE', users, 10)
  table.insert(answer, string.format('%.17g', grant))
  table.insert(answer, string.format('%.17g', level))
  table.insert(answer, tostring(many))
end
return answer
"""


class Here(Struct, frozen=True, kw_only=True):
    """Who we are: the site whose machines share, this machine and this process among them, and where their number is kept."""

    site: str
    machine: str
    worker: str
    memory: Path | None = None


class Machines(Struct):
    """How many machines shared when they were last counted; a worker that starts without the store divides by it."""

    count: int = 1


class _Lease(Struct):
    """What this worker may spend of one account. `open`: the store has answered for it once."""

    account: str
    rule: Rate
    share: Rate
    balance: float = 0.0  # below zero: overdrawn, and charged with the next round
    credit: float = 0.0
    debt: float = 0.0  # spent from the machine's share meanwhile
    asked: float = 0.0  # since the last round, what was refused too
    lump: float = 0.0  # the largest single amount lately
    demand: float = 0.0  # in one round, lately
    used_at: float = 0.0
    left: float = 0.0  # in the store, after the last round
    users: float = 1.0
    served_at: float = 0.0
    late_s: float = 0.0  # since the round before, where there was one lately
    open: bool = False
    fallen: bool = False  # the machine's share has been spent since the store was lost


class SharedLedger:
    """Implements Ledger over `inner`, the machine's own. `run` must run beside it.

    Raises:
        BadSettings: the address is none, or the client library is missing.
    """

    def __init__(self, url: str, inner: Ledger, emit: Emit, clock: Clock, here: Here) -> None:
        self._client, self._errors = _client(url)
        self._where = urlsplit(url).netloc.rpartition("@")[2] or url
        self._inner, self._emit, self._clock, self._here = inner, emit, clock, here
        kept = snapshot.take(here.memory, Machines) if here.memory is not None else None
        self._machines = max(kept.count, 1) if kept else 1
        self._leases: dict[str, _Lease] = {}
        self._lost = True
        self._why = "it was not asked yet"
        self._told: bool | None = None  # the last event: True found, False lost
        self._asking_since = float("inf")
        self._round_s = ROUND_S
        self._counted_at = clock.now()
        self._resting: asyncio.Future[None] | None = None
        self._phase = int(here.worker.encode().hex(), 16) % 997 / 997

    def take(self, account: str, amount: float, rule: Rate, now: float) -> float:
        """See the port."""
        lease = self._leases.get(account)
        if lease is None or lease.rule != rule:
            lease = self._open(account, rule)
            if lease is None:
                return self._inner.take(account, amount, self._share(rule), now)
        need = amount if amount < rule.burst else rule.burst
        lease.asked += amount
        lease.used_at = now
        lease.lump = max(lease.lump, need)
        if lease.balance + lease.credit >= need:
            lease.balance -= amount
            return 0.0
        if lease.open and not self._lost and now < self._asking_since + PATIENCE_S:
            lacking = need - lease.balance - lease.credit - max(lease.left, 0.0)
            return max(lacking * lease.users / rule.per_s, ROUND_S)
        if lease.open and not lease.fallen:
            self._fall(lease, now)
        wait_s = self._inner.take(account, amount, lease.share, now)
        if wait_s == 0.0:
            lease.debt += amount
        return wait_s

    def give(self, account: str, amount: float, rule: Rate, now: float) -> None:
        """See the port."""
        lease = self._leases.get(account)
        if lease is None or lease.rule != rule:
            lease = self._open(account, rule)
        if lease is None or self._lost or not lease.open:
            self._inner.give(account, amount, self._share(rule) if lease is None else lease.share, now)
            if lease is not None:
                lease.debt -= amount
        else:
            lease.balance += amount
            lease.used_at = now

    def level(self, account: str, rule: Rate, now: float) -> float:
        """See the port: what this worker has leased, and what the store had left."""
        lease = self._leases.get(account)
        if lease is None or self._lost or not lease.open or lease.rule != rule:
            return self._inner.level(account, self._share(rule), now)
        return min(lease.balance + lease.left, rule.burst)

    @property
    def sharing(self) -> str:
        """See the port."""
        if self._lost:
            return f"each machine for itself, at 1/{self._machines} of each rate: {self._where}: {self._why}"
        return f"machines: {self._machines}, through {self._where}"

    async def run(self) -> None:
        """Lease ahead until cancelled; then give back what is left."""
        asking: asyncio.Future[float] | None = None
        try:
            while True:  # in a task of its own: the client's time-outs have been seen to swallow a cancellation
                asking = asyncio.ensure_future(self._try())
                await asyncio.wait({asking})
                await self._rest(asking.result())
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.wait({asking})
            await self._leave()
            self._lost, self._why = True, "leasing has ended"

    async def _try(self) -> float:
        """One round. Returns the seconds until the next."""
        try:
            accounts = await self._round()
        except self._errors as error:
            self._lose(str(error) or type(error).__name__)
            return AGAIN_S
        self._phase = (self._phase + _GOLDEN) % 1.0
        return self._round_s * (0.5 + self._phase) * (1 if accounts else 4)

    async def _rest(self, seconds: float) -> None:
        """Until the next round is due, or an account is asked for that has no lease yet."""
        rest = self._resting = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({rest})
        finally:
            rest.cancel()

    async def _round(self) -> int:
        """Ask the store once for all accounts that need something. Returns how many did. Raises the client's errors."""
        now = self._clock.now()
        batch = self._due(now)
        self._round_s = ROUND_S * (1 + len(batch) / 32)
        back = self._lost and self._told is not None
        words = [word for lease in batch for word in self._words(lease, now, back)]
        self._asking_since = now
        try:
            said = await self._ask(batch, words)
        finally:
            self._asking_since = float("inf")
        for place, lease in enumerate(batch):
            granted, lease.left, lease.users = (float(word) for word in said[1 + 3 * place : 4 + 3 * place])
            lease.balance += granted
            lease.credit = max(lease.left, 0.0) / (2 * lease.users)
            lease.open, lease.fallen = True, False
        self._count(int(said[0]), now)
        self._find()
        return len(batch)

    def _due(self, now: float) -> list[_Lease]:
        """The leases that have something to ask or to give back; the long unused leave."""
        due, old = [], []
        for lease in self._leases.values():
            idle_s = now - lease.used_at
            if lease.asked or lease.debt or lease.balance < 0 or (lease.balance > 0 and idle_s > IDLE_S):
                due.append(lease)
            elif idle_s > FORGET_S:
                old.append(lease.account)
        for account in old:
            del self._leases[account]
        if len(due) > BATCH_MAX:
            due.sort(key=lambda lease: lease.served_at)
        for lease in due[:BATCH_MAX]:
            since_s, lease.served_at = now - lease.served_at, now
            lease.late_s = since_s if since_s < LATE_S else 0.0
        return due[:BATCH_MAX]

    def _words(self, lease: _Lease, now: float, back: bool) -> tuple[float, ...]:
        """What the script is told of one lease. From here on what it says is the store's, whether it answers or not."""
        rule, most = lease.rule, float("inf")
        lease.demand = max(lease.asked, 0.8 * lease.demand)
        charge = lease.debt
        if back:  # what was used meanwhile shows in the machine's share, which was spent in its place
            charge, most = 0.0, self._machines * self._inner.level(lease.account, lease.share, now)
        elif lease.balance < 0:
            charge -= lease.balance
        kept = max(2 * lease.demand, lease.lump) if lease.asked else 0.0
        excess = lease.balance - 2 * kept
        if excess > 0:
            charge -= excess
            lease.balance -= excess
        lease.balance = max(lease.balance, 0.0)
        want = max(kept - lease.balance, 0.0)
        lump = lease.lump if want > 0 else 0.0
        lease.debt = lease.asked = 0.0
        lease.lump *= 0.98
        size = max(rule.burst, HELD_ROUNDS * self._round_s * rule.per_s)
        if want > 0:
            size += lease.late_s * rule.per_s  # a worker that was late itself must find what flowed in meanwhile
        return rule.per_s, size, min(rule.burst, most), most, charge, want, lump

    async def _ask(self, batch: list[_Lease], words: list[float]) -> list[str]:
        site, here = f"{{holdfast:{self._here.site}}}", self._here
        keys = [f"{site}:machines"]
        for lease in batch:
            keys += (f"{site}:level:{lease.account}", f"{site}:users:{lease.account}")
        said: list[str] = await self._client.eval(SCRIPT, len(keys), *keys, here.machine, here.worker, *words)
        return said

    async def _leave(self) -> None:
        """Give back what is leased: nobody else could use it."""
        for lease in self._leases.values():
            lease.asked, lease.demand, lease.used_at = 0.0, 0.0, -float("inf")
        try:
            if not self._lost:
                await self._round()
            await self._client.aclose()
        except self._errors as error:
            self._lose(str(error) or type(error).__name__)

    def _open(self, account: str, rule: Rate) -> _Lease | None:
        """A lease for an account; None when there are too many."""
        if len(self._leases) >= ACCOUNTS_MAX and account not in self._leases:
            return None
        lease = self._leases[account] = _Lease(account, rule, self._share(rule))
        if self._resting is not None and not self._lost:
            self._resting.cancel()
        return lease

    def _share(self, rule: Rate) -> Rate:
        """This machine's part of a rule."""
        return Rate(rule.per_s / self._machines, rule.burst / self._machines)

    def _fall(self, lease: _Lease, now: float) -> None:
        """The store is silent: the machine's share of the account holds no more than its part of what was left there."""
        lease.fallen = True
        there = self._inner.level(lease.account, lease.share, now)
        ours = max(lease.left, 0.0) / self._machines
        if there > ours:
            self._inner.give(lease.account, ours - there, lease.share, now)

    def _count(self, machines: int, now: float) -> None:
        """Believe a greater number at once, a smaller one after a while: after a restart of the store they come one by one."""
        if machines >= self._machines:
            self._counted_at = now
        if machines == self._machines or (machines < self._machines and now < self._counted_at + COUNT_S):
            return
        self._machines = machines
        for lease in self._leases.values():
            lease.share = self._share(lease.rule)
        if self._here.memory is not None:
            try:
                snapshot.put(self._here.memory, Machines(machines))
            except OSError:
                return  # a full disk: the number is asked for again when the store answers

    def _lose(self, why: str) -> None:
        self._lost, self._why = True, why
        for lease in self._leases.values():
            lease.credit = 0.0
        if self._told is not False:
            self._told = False
            self._emit(SharingLost(why=f"{self._where}: {why}; this machine keeps to 1/{self._machines} of each rate"))

    def _find(self) -> None:
        self._lost = False
        if self._told is not True:
            self._told = True
            self._emit(
                SharingFound(why=f"{self._where} answers; machines that share rates through it: {self._machines}")
            )


def _client(url: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """The client, not yet connected, and what it raises when the store can't be reached."""
    try:
        redis = importlib.import_module("redis.asyncio")
        retry, backoff = importlib.import_module("redis.asyncio.retry"), importlib.import_module("redis.backoff")
    except ModuleNotFoundError as error:
        raise BadSettings(f"[admission] shared_url needs {error.name}: pip install 'holdfast[shared]'") from error
    patience = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    once = retry.Retry(backoff.NoBackoff(), 0)
    try:
        client = redis.from_url(url, decode_responses=True, retry=once, **patience)
    except ValueError as error:
        raise BadSettings(f"[admission] shared_url: {url!r}: {error}") from error
    return client, (redis.RedisError, OSError)
