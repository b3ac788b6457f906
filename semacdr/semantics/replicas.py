"""The replicas of one model: which is asked next, how much at a time, and what becomes of one that dies.

Each replica may have so many requests in flight: few at first, then each round as many as would still be answered soon
if twice as many took twice as long, up to the setting's limit. Once it says that it is overloaded (429, 5xx) or
answers slowly it gets half as many, and one more per round as long as all is well (AIMD). A replica that does not
answer when it is looked at is taken out, and put back when it answers again; one of ours is started anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from semacdr.errors import SemacdrError, TransientError

log = structlog.get_logger()

START_IN_FLIGHT = 32
"""More might time out on a CPU: 64 answers of SmolLM2 have taken two busy cores five minutes."""
MOST_GROWTH = 4.0
"""From one round to the next: the first answer of a round is a short one."""
LOOK_EVERY_S = 0.25
LOOK_SELDOM_S = 10.0
"""A replica that is out is looked at at first often, then ever more seldom."""
PATIENCE_AT_START_S = 8.0
"""Of a run that no endpoint has answered yet: more likely a wrong URL than a server that restarts."""


class Server(Protocol):
    """A server of ours behind a replica."""

    def revive(self, *, hung: bool) -> str:
        """Start it anew if it has ended, or is ``hung``; return its URL. Blocks until it is healthy.

        Raises:
            SemacdrError: it does not start, or has been started too often.
        """
        ...

    def give_up(self) -> None:
        """Make a ``revive`` that is under way end soon."""
        ...


@dataclass(eq=False)
class Replica:
    """One endpoint."""

    url: str
    limit: float
    most: int
    server: Server | None = None
    in_flight: int = 0
    out: bool = False
    lost: bool = False
    """Out for good."""
    overloaded: bool = False
    """Has been, once: its limit grows slowly since."""
    cut_at: float = 0.0
    grown_at: float = 0.0
    looked_at: asyncio.Task[bool] | None = None

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        return not self.out and self.in_flight < int(self.limit)

    @property
    def load(self) -> float:
        """Share of its limit that is in flight."""
        return self.in_flight / self.limit


class Replicas:
    """A pool of replicas.

    Args:
        urls: base URLs.
        most: requests in flight per replica.
        timeout_s: of a request: one that took a quarter of it shows a queue that is long enough.
        patience_s: how long all of them may be out.
        is_healthy: asks a base URL whether it works.
        servers: those of ours behind the URLs, in their order, or none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        most: int,
        timeout_s: float,
        patience_s: float,
        is_healthy: Callable[[str], Awaitable[bool]],
        servers: Sequence[Server] = (),
    ) -> None:
        behind: Sequence[Server | None] = servers or [None] * len(urls)
        self.members = [
            Replica(url.rstrip("/"), min(most, START_IN_FLIGHT), most, server)
            for url, server in zip(urls, behind, strict=True)
        ]
        self.answers = 0
        self.answered_at = time.monotonic()
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._is_healthy = is_healthy
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._out_since = 0.0
        self._end: TransientError | None = None

    @property
    def patience_s(self) -> float:
        """How long nobody may answer."""
        return self._patience_s if self.answers else min(self._patience_s, PATIENCE_AT_START_S)

    async def room(self) -> None:
        """Wait until some replica has room.

        Raises:
            TransientError: no replica is left.
        """
        await self._wait_for_room()
        self._wake()  # the place is not taken yet, and perhaps never: whoever else waits may have it

    async def _wait_for_room(self) -> None:
        while True:
            if self._end:
                raise self._end
            if any(replica.has_room for replica in self.members):
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._wake()  # it may have been woken for a place that it does not take
                raise

    async def acquire(self, avoid: Replica | None = None) -> Replica:
        """Return the replica with most room, another than ``avoid`` if there is one; wait until there is room.

        Raises:
            TransientError: no replica is left.
        """
        await self._wait_for_room()
        ready = (replica for replica in self.members if replica.has_room)
        chosen = min(ready, key=lambda replica: (replica is avoid, replica.load))
        chosen.in_flight += 1
        return chosen

    def release(self, replica: Replica) -> None:
        """Give a place back."""
        replica.in_flight -= 1
        self._wake()

    def answered(self, replica: Replica, started: float) -> None:
        """Note an answer to a request that was sent at ``started``, before its place is given back."""
        self.answers += 1
        self.answered_at = time.monotonic()
        seconds = self.answered_at - started
        if seconds > self._timeout_s / 2:
            self.congested(replica, started)
        elif seconds < self._timeout_s / 4 and replica.in_flight >= int(replica.limit):
            if replica.overloaded:
                replica.limit = min(replica.most, replica.limit + 1 / replica.limit)
            elif started >= replica.grown_at:
                replica.grown_at = self.answered_at
                growth = min(MOST_GROWTH, self._timeout_s / 4 / max(seconds, 1e-9))
                replica.limit = min(replica.most, replica.limit * growth)

    def congested(self, replica: Replica, started: float, fault: str = "slow answers") -> None:
        """Halve a replica's limit, once for all the requests that met the same congestion."""
        if started >= replica.cut_at:
            replica.cut_at = time.monotonic()
            replica.overloaded = True
            replica.limit = max(1.0, replica.limit / 2)
            log.warning("LLM endpoint asked less at a time", fault=fault, url=replica.url, limit=int(replica.limit))

    async def is_alive(self, replica: Replica, fault: str) -> bool:
        """Look at a replica that did not answer as it should; take it out unless it is healthy."""
        if replica.out:
            return False
        if replica.looked_at is None or replica.looked_at.done():
            replica.looked_at = asyncio.create_task(self._look_at(replica, fault))
        return await asyncio.shield(replica.looked_at)

    async def close(self) -> None:
        """End what is under way."""
        for replica in self.members:
            if replica.server:
                replica.server.give_up()
            if replica.looked_at:
                replica.looked_at.cancel()
        for task in self._tasks:
            task.cancel()
        looks = [replica.looked_at for replica in self.members if replica.looked_at]
        await asyncio.gather(*self._tasks, *looks, return_exceptions=True)

    async def _look_at(self, replica: Replica, fault: str) -> bool:
        if await self._is_healthy(replica.url):
            return True
        replica.out = True
        if all(member.out for member in self.members):
            self._out_since = time.monotonic()
        left = sum(not member.out for member in self.members)
        log.warning("LLM endpoint taken out", fault=fault, url=replica.url, left=left)
        task = asyncio.create_task(self._bring_back(replica))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    async def _bring_back(self, replica: Replica) -> None:
        delay_s = LOOK_EVERY_S
        since = time.monotonic()
        while self._end is None:
            if replica.server:
                hung = time.monotonic() - since > self._patience_s
                try:
                    replica.url = await asyncio.to_thread(replica.server.revive, hung=hung)
                except SemacdrError as error:
                    replica.lost = True
                    self._give_up_if_nobody_is_left(error)
                    return
            if await self._is_healthy(replica.url):
                replica.out = False
                log.info("LLM endpoint put back", url=replica.url, seconds=round(time.monotonic() - since, 1))
                self._wake()
                return
            self._give_up_if_nobody_is_left(None)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LOOK_SELDOM_S)

    def _give_up_if_nobody_is_left(self, error: SemacdrError | None) -> None:
        waited_s = time.monotonic() - self._out_since
        lost = all(member.lost for member in self.members)
        gone = all(member.out for member in self.members) and waited_s > self.patience_s
        # A server of ours that is being started is worth waiting for, as long as it takes.
        starting = any(member.server and not member.lost for member in self.members)
        if lost or (gone and not starting):
            self._end = TransientError(
                "no LLM endpoint is left",
                found=error or f"none of {', '.join(member.url for member in self.members)} for {waited_s:.0f} s",
                do="see the server's log; answers so far are kept, and a new run goes on from there",
            )
            self._wake()

    def _wake(self) -> None:
        room = sum(int(replica.limit) - replica.in_flight for replica in self.members if replica.has_room)
        wanted = len(self._waiting) if self._end else room
        while self._waiting and wanted > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wanted -= 1
