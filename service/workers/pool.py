"""The workers: started, watched, started again, asked and told together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from service.child_process import how_ended
from service.config import Config
from service.engine.errors import QueueFull, RequestError, ServiceStopping
from service.workers.channel import ChannelClosed
from service.workers.process import WorkerProcess

log = logging.getLogger(__name__)

# Between two looks at each worker. It answers on a thread of its own, while the service's loop
# stands still, and hangs where it does not within the liveness limit.
_LOOK_SECONDS = 1.0
# Between two readings of what each has counted: that is what sums may lack of one that is killed.
_READ_SECONDS = 10.0
# For the metrics of a worker at a scrape; of one that is late, what it said last is shown.
_SCRAPE_SECONDS = 3.0
# Before one that ended is started again: at once, then after a pause that doubles.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _LASTING_SECONDS = 0.1, 30.0, 60.0
# So many ends in a row, while no other worker serves either, and the service gives up.
_MOST_ENDS = 6
# Beyond grace, hand-over and the engines' end, a worker that stops is killed.
_STOP_SECONDS = 20.0
_RETRY_AFTER_SECONDS = 1.0
_LOAD, _UNLOAD = "RepositoryModelLoad", "RepositoryModelUnload"


class Places(Protocol):
    """Where calls come from: is told of workers that serve, and of those that are not to."""

    def add(self, worker: WorkerProcess) -> None: ...

    def set_awake(self, number: int, is_awake: bool) -> None: ...


class Watcher(Protocol):
    """Who counts what becomes of workers."""

    def report(self, worker: int, families: Sequence[Any]) -> None: ...

    def worker_ended(self, worker: int) -> None: ...

    def restarted(self, worker: int) -> None: ...


class Slot:
    """One worker after another, under one number.

    process: None before the first. state: what it last said of itself. beside: what it was last
    sent of what others serve. is_ready: it has started
    and not ended. is_awake: it takes calls. is_leaving: it is being replaced. ends: soon after a
    start, in a row.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.state: dict[str, Any] = {}
        self.beside: frozenset[str] = frozenset()
        self.has_begun = asyncio.Event()
        self.is_ready = False
        self.is_awake = False
        self.is_leaving = False
        self.ends = 0

    @property
    def healthy(self) -> frozenset[str]:
        """What health says it serves, while it takes calls."""
        return frozenset(self.state.get("healthy", ())) if self.is_awake else frozenset()

    @property
    def calls(self) -> int:
        return int(self.state.get("calls", 0)) if self.is_ready else 0


class WorkersFailed(Exception):
    """A worker did not start; it has logged why. code: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker did not start (exit code {code})")
        self.code = code


class WorkerPool:
    """config: of each worker. start: its process. others: those whose memory counts
    towards the limit beside workers. page: makes a page for whoever asks a worker for one, as JSON.
    lost: called once all are given up.
    """

    def __init__(
        self,
        config: Config,
        count: int,
        places: Places,
        watcher: Watcher,
        start: Callable[[WorkerProcess], Awaitable[None]],
        others: Callable[[], Sequence[int]],
        page: Callable[[str, str], Awaitable[Any]],
        lost: Callable[[], object],
    ) -> None:
        self.slots = [Slot(number) for number in range(count)]
        self._config = config
        self._places, self._watcher = places, watcher
        self._start, self._page, self._lost = start, page, lost
        self._wanted: dict[str, Any] = {}
        self._changing = asyncio.Lock()  # what is served
        self._waiting = 0
        self._log_level = config.log_level
        self._others = others
        self._tasks: list[asyncio.Task[None]] = []
        self._is_leaving = self._is_stopping = False

    # -- start and stop ------------------------------------------------------------------------

    async def start(self) -> None:
        """All of them. Raises WorkersFailed."""
        began = await asyncio.gather(*map(self._begin, self.slots), return_exceptions=True)
        if failures := [found for found in began if isinstance(found, BaseException)]:
            raise failures[0]
        first = self.slots[0].process
        assert first is not None, "it has started"
        self._wanted = await first.channel.ask("served")
        await self._mind()

    def supervise(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(slot)) for slot in self.slots]
        self._tasks += [loop.create_task(self._look_at(slot)) for slot in self.slots]
        self._tasks.append(loop.create_task(self._read_counts()))

    async def announce(self) -> None:
        self._is_leaving = True
        for slot in self.ready:
            if slot.process:
                with suppress(ChannelClosed):
                    await self._share_health(slot, slot.process)
        await self._tell("announce")

    async def stop(self, seconds: float) -> bool:
        """Drain all of them, for at most so long beyond what they need by themselves.

        Returns whether every call finished or was handed over.
        """
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        drained = await asyncio.gather(
            *(self._drain(slot, slot.process, seconds) for slot in self.slots if slot.process)
        )
        return all(drained)

    def kill(self) -> None:
        self._is_stopping = True
        for slot in self.slots:
            if slot.process:
                slot.process.kill()

    # -- one worker ----------------------------------------------------------------------------

    async def _begin(self, slot: Slot) -> None:
        """Raises WorkersFailed."""
        slot.process = process = WorkerProcess(slot.number, partial(self._answer, slot))
        slot.has_begun.clear()
        await self._start(process)
        begun = asyncio.ensure_future(slot.has_begun.wait())
        await asyncio.wait((begun, process.ended), return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if process.ended.done():
            raise WorkersFailed(process.ended.result())
        async with self._changing:  # so that no load passes it by
            if self._wanted:
                await process.channel.ask("serve_as", wanted=self._wanted)
                await process.channel.ask("reload", log_level=self._log_level)
            slot.state = await process.channel.ask("state")
            slot.beside = frozenset()
            slot.is_ready = slot.is_awake = True
        self._places.add(process)
        await self._mind()

    async def _keep(self, slot: Slot) -> None:
        """Start it again whenever it ends."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            assert slot.process is not None, "it was started"
            began = loop.time()
            code = await asyncio.shield(slot.process.ended)
            if loop.time() - began >= _LASTING_SECONDS:
                slot.ends, pause = 0, _FIRST_PAUSE_SECONDS
            await self._clear(slot, code)
            if slot.ends > 1:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if slot.ends >= _MOST_ENDS and not any(other.is_ready for other in self.slots):
                log.critical("workers end as soon as they start: given up")
                self._lost()
                return
            self._watcher.restarted(slot.number)
            with suppress(WorkersFailed, ChannelClosed):
                await self._begin(slot)
                log.info("worker %d serves again, process %d", slot.number, slot.process.pid)

    async def _clear(self, slot: Slot, code: int) -> None:
        """It has ended."""
        assert slot.process is not None, "it was started"
        await slot.process.close()
        slot.is_ready = slot.is_awake = False
        slot.ends += 1
        self._watcher.worker_ended(slot.number)
        was_asked, slot.is_leaving = slot.is_leaving, False
        level = logging.INFO if was_asked and not code else logging.ERROR
        how = how_ended(code)
        log.log(level, "worker %d ended %s; others go on, it is started again", slot.number, how)

    async def _look_at(self, slot: Slot) -> None:
        """Have one that stands still, or whose engine broke, be replaced."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            process = slot.process
            if process is None or not slot.is_ready or slot.is_leaving:
                continue
            try:
                async with asyncio.timeout(self._config.liveness_seconds):
                    slot.state = await process.channel.ask("state")
                    await self._share_health(slot, process)
            except ChannelClosed:
                continue
            except TimeoutError:
                slot.state = {"dead": "it does not answer"}
            if why := slot.state["dead"]:
                log.error("worker %d is killed: %s", slot.number, why)
                process.kill()
            elif slot.state["has_failed"]:
                await self._replace(slot, process)
            else:
                self._set_awake(slot, not slot.state["not_ready"])

    async def _replace(self, slot: Slot, process: WorkerProcess) -> None:
        """Its calls end or are handed over first, unless no other one could take them."""
        if not any(other.is_awake for other in self.slots if other is not slot):
            self._set_awake(slot, False)
            return
        log.error("an engine of worker %d has failed; it is replaced", slot.number)
        slot.is_leaving = True
        self._set_awake(slot, False)
        await self._drain(slot, process, 0.0)

    async def _drain(self, slot: Slot, process: WorkerProcess, seconds: float) -> bool:
        """Whether every call finished or was handed over."""
        is_drained = False
        with suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(self._config.grace_seconds + _STOP_SECONDS + seconds):
                said = await process.channel.ask("stop")
                is_drained = said["is_drained"]
                self._watcher.report(slot.number, said["metrics"])
                await asyncio.shield(process.ended)
        process.kill()
        await asyncio.shield(process.ended)
        return is_drained

    def _set_awake(self, slot: Slot, is_awake: bool) -> None:
        if slot.is_awake != is_awake:
            slot.is_awake = is_awake
            log.warning("worker %d %s", slot.number, "takes calls again" if is_awake else "rests")
            self._places.set_awake(slot.number, is_awake)

    # -- all of them ---------------------------------------------------------------------------

    @property
    def ready(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.is_ready and not slot.is_leaving]

    def why_not_ready(self) -> str:
        """Empty while one of them takes calls."""
        if any(slot.is_awake for slot in self.slots):
            return ""
        reasons = {str(slot.state.get("not_ready", "")) for slot in self.ready} - {""}
        return "; ".join(sorted(reasons)) or "no worker is ready"

    async def _mind(self) -> None:
        """Have each know whose memory counts towards the limit."""
        workers = [slot.process.pid for slot in self.ready if slot.process]
        await self._tell("mind", process_ids=[*self._others(), *workers])

    async def _share_health(self, slot: Slot, process: WorkerProcess) -> None:
        """Have it know what others serve, so that health is one verdict whichever is asked.

        Raises ChannelClosed.
        """
        others = [other.healthy for other in self.slots if other is not slot]
        beside = frozenset() if self._is_leaving else frozenset[str]().union(*others)
        if beside != slot.beside:
            slot.beside = beside
            await process.channel.ask("serve_beside", names=sorted(beside))

    async def reload(self, log_level: str | None) -> None:
        """log_level: None for the one it has."""
        self._log_level = log_level or self._log_level
        await self._tell("reload", log_level=self._log_level)

    async def collect(self) -> None:
        """Have every worker say what it has counted."""
        await asyncio.gather(*(self._read(slot) for slot in self.ready))

    async def _read(self, slot: Slot) -> None:
        process = slot.process
        assert process is not None, "it is ready"
        with suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(_SCRAPE_SECONDS):
                families = await process.channel.ask("metrics")
                if slot.process is process and slot.is_ready:
                    self._watcher.report(slot.number, families)

    async def _read_counts(self) -> None:
        while True:
            await asyncio.sleep(_READ_SECONDS)
            await self.collect()
            await self._mind()  # Envoy may be another one

    async def _tell(self, what: str, **arguments: Any) -> None:
        async def tell(process: WorkerProcess) -> None:
            with suppress(ChannelClosed, RequestError):
                await process.channel.ask(what, **arguments)

        await asyncio.gather(*(tell(slot.process) for slot in self.ready if slot.process))

    # -- what a worker asks --------------------------------------------------------------------

    async def _answer(self, slot: Slot, what: str, arguments: Mapping[str, Any]) -> Any:
        if what == "ready":
            slot.has_begun.set()
            return None
        if what == "page":
            return await self._page(arguments["path"], arguments["accept"])
        return await self._everywhere(**arguments)

    async def _everywhere(self, method: str, model: str, request: str) -> list[str]:
        """Carry a method out in every worker; their responses, without those of workers that ended
        meanwhile. Raises RequestError."""
        if self._is_stopping:
            raise ServiceStopping("the server is stopping; send the request to another one")
        if method == _UNLOAD:
            async with self._changing:
                self._wanted.pop(model, None)
                working = asyncio.ensure_future(self._carry_out(self.ready, method, request))
            return await working  # out of turn: it takes as long as the calls under way
        if method != _LOAD:
            return await self._carry_out(self.ready, method, request)
        if self._waiting >= max(1, self._config.max_waiting_loads):
            raise QueueFull(
                f"{self._waiting} loads and unloads wait already; try again later",
                _RETRY_AFTER_SECONDS,
            )
        self._waiting += 1
        try:
            async with self._changing:
                return await self._load(request)
        finally:
            self._waiting -= 1

    async def _load(self, request: str) -> list[str]:
        """One worker after the other: what the first one refuses changes nothing in any."""
        responses: list[str] = []
        for slot in self.ready:
            responses += await self._carry_out([slot], _LOAD, request)
            if len(responses) == 1 and slot.process:
                self._wanted = await slot.process.channel.ask("served")
        return responses

    async def _carry_out(self, slots: Sequence[Slot], method: str, request: str) -> list[str]:
        """Raises RequestError: the first of those that were raised."""

        async def carry_out(process: WorkerProcess) -> list[str]:
            with suppress(ChannelClosed):
                return [await process.channel.ask("carry_out", method=method, request=request)]
            return []

        processes = [slot.process for slot in slots if slot.process]
        done = await asyncio.gather(*map(carry_out, processes), return_exceptions=True)
        responses: list[str] = []
        for found in done:
            if isinstance(found, BaseException):
                raise found
            responses += found
        return responses
