"""The model manager: loading, replacing and unloading while the service runs."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from service.access.memory_budget import MODELS, Reservation
from service.engine.errors import (
    ControlDisabled,
    ModelNotFound,
    ModelRefused,
    Overloaded,
    RequestError,
    ServiceStopping,
    WrongInput,
)
from service.failpoints import failpoint
from service.process.gc_tuning import collect_freed
from service.refused_model import RefusedModel
from service.runtime.repository import LoadedModel, Repository
from service.serving.background import in_background
from service.serving.control_types import IndexEntry, VersionPolicy
from service.serving.load_queue import LoadQueue
from service.serving.model_factory import ReadyModel, ServerContext
from service.serving.model_loading import make_ready, others_of, run_once
from service.serving.model_version import ServedVersion
from service.serving.registry import ModelRegistry
from service.serving.repository_index import VersionFacts, index_of

log = logging.getLogger(__name__)

# Resident bytes of a version for each of its bundle's: each of its graphs packs the weights for
# itself, for one thread and for several.
_LOAD_FACTOR = 8

Result = TypeVar("Result")

# Models that are loaded side by side; each takes a core.
_LOADS_AT_ONCE = 2
# All engines together have so long to end the step under way, at a stop or when they are freed.
_STOP_SECONDS = 10.0
# Calls on a version that was replaced end when they end: nobody knows when.
_VERSIONS_RETRY_SECONDS = 5.0


class ModelControl:
    """Changes the registry; for the event loop alone.

    on_change: called with a model's name after what is served of it has changed.
    is_on: whether callers may load and unload.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        repository: Repository,
        context: ServerContext,
        on_change: Callable[[str], Awaitable[None]],
        is_on: bool = True,
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.context = context
        self.on_change = on_change
        self.is_on = is_on
        self._policies: dict[str, VersionPolicy] = {}
        self._loading: dict[str, Sequence[int]] = {}
        # Every version whose engines run, and what is set once they have stopped.
        self._live: dict[ServedVersion, asyncio.Event] = {}
        self._queue = LoadQueue(_LOADS_AT_ONCE, context.config.max_waiting_loads)
        context.metrics.waiting_loads.set_function(lambda: self._queue.waiting)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    # -- start and stop ------------------------------------------------------------------------

    def begin(
        self, loaded: Sequence[LoadedModel], refused: Sequence[RefusedModel]
    ) -> list[ReadyModel]:
        """Serve what runs of ``loaded``; the caller starts its threads."""
        turned_away = list(refused)
        begun: list[ReadyModel] = []
        for model in loaded:
            tried = run_once(model, self.context)
            if isinstance(tried, ReadyModel):
                begun.append(tried)
            else:
                turned_away.append(tried)
        for assembled in begun:
            self.registry.replace(assembled.card.name, [self._serve(assembled)])
        for bundle in turned_away:
            self._refuse(bundle)
        return begun

    def hand_over(self) -> None:
        """Have every stream that still runs end with what others go on from."""
        for served in self._live:
            for thread in served.threads:
                thread.hand_over()

    def shrink_buffers(self, are_small: bool) -> None:
        """Of every stream: what its reader may leave unread; or as before."""
        for served in self._live:
            for thread in served.threads:
                thread.are_buffers_small = are_small

    def drop_loads(self) -> None:
        """Refuse every load and unload that has not begun, and those that come from now on."""
        self._is_stopping = True
        self._queue.close(_stopping)

    async def stop(self) -> int:
        """End every engine; loads that are under way are given up.

        An engine or a load that hangs is left behind, on a daemon thread, after _STOP_SECONDS
        for all of them.

        Returns how many requests the engines still held: none, once every call has ended.
        """
        self.drop_loads()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _STOP_SECONDS
        for served in self._live:
            for thread in served.threads:
                thread.close()
        left_over = 0
        for served, ended in list(self._live.items()):
            left_over += await _stop_threads(served, deadline)
            ended.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=max(0.1, deadline - loop.time()))
            if late:
                log.error("%d loads or ends of versions hang and are left behind", len(late))
        return left_over

    # -- as another process has it -------------------------------------------------------------

    def served(self) -> dict[str, dict[str, Any]]:
        """By name: the versions that are served, and the policy that the last load gave."""
        names = {served.name for served in self.registry.served}
        return {
            name: {
                "versions": sorted(self._served(name)),
                "policy": self._policies.get(name, VersionPolicy()).as_json(),
            }
            for name in names
        }

    async def serve_as(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Serve what ``served()`` of another process said; what cannot be is logged and left."""
        for name in self.served().keys() - wanted.keys():
            await self._unload(name)
        for name, facts in wanted.items():
            versions = facts["versions"]
            try:
                if sorted(self._served(name)) != versions:
                    await self._load(name, VersionPolicy(specific=tuple(versions)))
            except RequestError as error:
                log.error("versions %s of model %s are not served here: %s", versions, name, error)
            else:
                self._policies[name] = VersionPolicy.of_json(facts["policy"])

    # -- what callers ask for ------------------------------------------------------------------

    async def load(self, name: str, policy: VersionPolicy | None = None) -> None:
        """As engine.control_types.Control.load()."""
        self._check_may_change()
        await self._queue.enter(name, is_load=True)
        await self._to_the_end(name, self._load(name, policy))

    async def unload(self, name: str) -> None:
        """As engine.control_types.Control.unload()."""
        self._check_may_change()
        await self._queue.enter(name, is_load=False)
        ends = await self._to_the_end(name, self._unload(name))
        # Out of turn: a long stream holds up nobody who wants the model loaded again.
        for ended in ends:
            await ended.wait()

    def index(self) -> list[IndexEntry]:
        names = self.repository.versions()
        live: dict[str, list[ServedVersion]] = {}
        for served in self._live:
            live.setdefault(served.name, []).append(served)
        entries: list[IndexEntry] = []
        for name in sorted(names.keys() | live.keys()):
            known = VersionFacts(
                on_disk=names.get(name, {}).keys(),
                live=live.get(name, []),
                loading=self._loading.get(name, ()),
                refused={bundle.version: bundle for bundle in self.registry.refused_of(name)},
                policy=self._policies.get(name, VersionPolicy()),
                was_unloaded=self.registry.was_unloaded(name),
            )
            entries.extend(index_of(name, known))
        return entries

    def _check_may_change(self) -> None:
        if not self.is_on:
            raise ControlDisabled(
                "model control is off; start the server with --model-control explicit"
            )
        if self._is_stopping:
            raise _stopping()

    async def _to_the_end(self, name: str, work: Coroutine[Any, Any, Result]) -> Result:
        """A caller that leaves does not take back what has begun; its turn ends with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._queue.leave(name))
        return await asyncio.shield(task)

    # -- loading -------------------------------------------------------------------------------

    async def _load(self, name: str, policy: VersionPolicy | None) -> None:
        policy = policy or self._policies.get(name, VersionPolicy())
        folders = self._chosen(name, policy)
        before = self._live_versions(name)
        held = self.context.budget.reserve(MODELS, self._load_bytes(folders.values()))
        try:
            await self._replace(name, policy, folders)
            ends = [self._live[v] for v in before if v.is_retired and v in self._live]
        except BaseException:
            held.release()
            raise
        del before
        self._release_after(held, ends)
        await self.on_change(name)

    async def _replace(self, name: str, policy: VersionPolicy, folders: Mapping[int, Path]) -> None:
        self._loading[name] = list(folders)
        self.context.metrics.report_loading(name, list(folders))
        try:
            ready = await self._prepare(name, folders)
        finally:
            del self._loading[name]
            self.context.metrics.report_loading(name, ())
        if isinstance(ready, RefusedModel):
            await self._turn_away(ready)
        self._take_over(name, ready)
        self._policies[name] = policy

    def _load_bytes(self, folders: Iterable[Path]) -> int:
        """What versions take at most while they are loaded, beside those that they replace.

        Never more than half of the budget, so that any can be loaded while little else is held.
        """
        files = (file for folder in folders for file in folder.glob("*"))
        size = sum(file.stat().st_size for file in files if file.is_file())
        return min(_LOAD_FACTOR * size, self.context.budget.limit // 2)

    def _release_after(self, held: Reservation, ends: Sequence[asyncio.Event]) -> None:
        """Once the replaced versions have ended: until then both are in memory."""

        async def release() -> None:
            try:
                for ended in ends:
                    await ended.wait()
            finally:
                held.release()

        if not ends:
            held.release()
            return
        task = asyncio.get_running_loop().create_task(release())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _turn_away(self, refused: RefusedModel) -> NoReturn:
        """Raises ModelRefused."""
        name = refused.name
        self._refuse(refused)
        await self.on_change(name)
        still = "; what was served before still is" if self.registry.versions(name) else ""
        raise ModelRefused(f"model {name!r} was not loaded: {refused.reason}{still}")

    def _chosen(self, name: str, policy: VersionPolicy) -> dict[int, Path]:
        names = self.repository.versions()
        if name not in names:
            known = ", ".join(names) or "none"
            raise ModelNotFound(f"the models folder holds no model {name!r}; it holds: {known}")
        folders = names[name]
        if missing := [number for number in policy.specific if number not in folders]:
            raise ModelNotFound(
                f"the models folder holds no version {missing[0]} of model {name!r}; it holds: "
                f"{', '.join(map(str, sorted(folders)))}"
            )
        chosen = {number: folders[number] for number in policy.choose(folders)}
        if len(chosen) > (most := self.context.config.max_live_versions):
            raise WrongInput(
                f"{policy} of model {name!r} are {len(chosen)}, and at most {most} versions of a "
                "model are in memory at once (max_live_versions); choose fewer"
            )
        return chosen

    async def _prepare(
        self, name: str, folders: Mapping[int, Path]
    ) -> dict[int, ReadyModel | None] | RefusedModel:
        """Each version, ready to take over; None for one that is served as it lies there.

        Or the first that is refused.
        """
        known = {
            int(served.version): served.model.card.digest
            for served in self._served(name).values()
            if not served.has_failed
        }
        await self._check_room(name, folders, known)
        ready: dict[int, ReadyModel | None] = {}
        for number, folder in folders.items():
            tried = await in_background(
                f"load-{name}", make_ready, self.repository, folder, self.context, known.get(number)
            )
            if self._is_stopping:
                raise ServiceStopping("the server is stopping; load the model on another one")
            if isinstance(tried, RefusedModel):
                return tried
            ready[number] = tried
        return ready

    async def _check_room(
        self, name: str, folders: Mapping[int, Path], known: Mapping[int, str]
    ) -> None:
        """Raises Overloaded where more versions would be in memory than may, once these are
        served; no weight is read for that. ``known`` are the digests of those that are."""
        live, most = self._live_versions(name), self.context.config.max_live_versions
        if len(live) + len(folders) <= most:
            return
        others = await in_background(f"load-{name}", others_of, self.repository, folders, known)
        kept = folders.keys() - others
        held = [v for v in live if v.is_retired or (v.users and int(v.version) not in kept)]
        if others and len(held) + len(folders) > most:
            holders = ", ".join(f"version {v.version} by {v.users}" for v in held)
            raise Overloaded(
                f"model {name!r} may have {most} versions in memory (max_live_versions), and "
                f"calls and sequences still use {holders}; end those, or load it again later",
                _VERSIONS_RETRY_SECONDS,
            )

    def _live_versions(self, name: str) -> list[ServedVersion]:
        return [served for served in self._live if served.name == name]

    def _take_over(self, name: str, ready: Mapping[int, ReadyModel | None]) -> None:
        failpoint("model.take_over")
        served = self._served(name)
        for assembled in ready.values():
            if assembled is None:
                self._count(name, "kept")
            else:
                assembled.start()
        versions = [
            self._serve(assembled) if assembled else served[number]
            for number, assembled in ready.items()
        ]
        self.registry.replace(name, versions)
        # What was refused is so until it is served or its folder is gone.
        on_disk = self.repository.versions().get(name, {}).keys() - ready.keys()
        left = [b for b in self.registry.refused_of(name) if int(b.version) in on_disk]
        self.registry.refuse(name, left)
        now = " and ".join(self.registry.versions(name))
        log.info("model %s is served in version %s", name, now)

    def _serve(self, assembled: ReadyModel) -> ServedVersion:
        card = assembled.card
        served = ServedVersion(
            assembled.model, assembled.statistics, assembled.threads, self._end_soon
        )
        self._live[served] = asyncio.Event()
        self._update_live(card.name)
        self._count(card.name, "loaded")
        self.context.metrics.load_seconds.labels(card.name).observe(assembled.seconds)
        log.info(
            "model %s version %s loaded in %s on %s",
            card.name,
            card.version,
            card.precision,
            card.provider,
        )
        return served

    def _refuse(self, refused: RefusedModel) -> None:
        log.error("model %s version %s refused: %s", refused.name, refused.version, refused.reason)
        self._count(refused.name, "refused")
        others = [b for b in self.registry.refused_of(refused.name) if b.version != refused.version]
        self.registry.refuse(refused.name, [*others, refused])

    # -- unloading -----------------------------------------------------------------------------

    async def _unload(self, name: str) -> list[asyncio.Event]:
        """What is set once each of its versions has ended."""
        if not self._served(name):
            known = ", ".join(sorted({served.name for served in self.registry.served}))
            raise ModelNotFound(f"no model {name!r} is served; served are: {known or 'none'}")
        self._count(name, "unloaded", len(self._served(name)))
        self.registry.withdraw(name)
        # Those too that were replaced before, and that a sequence or a long call still uses.
        live = self._live_versions(name)
        for served in live:
            served.withdraw()
        ends = [self._live[served] for served in live]
        del live, served
        log.info("model %s unloaded", name)
        await self.on_change(name)
        return ends

    def _end_soon(self, served: ServedVersion) -> None:
        """Nobody uses it any more."""
        for thread in served.threads:
            thread.close()
        task = asyncio.get_running_loop().create_task(self._end(served))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, served: ServedVersion) -> None:
        await _stop_threads(served, asyncio.get_running_loop().time() + _STOP_SECONDS)
        log.info("model %s version %s stopped", served.name, served.version)
        ended, model = self._live.pop(served), weakref.ref(served.model)
        self._update_live(served.name)
        del served
        if model() is not None:
            # Something holds it in a cycle. To look at everything takes the interpreter from all
            # who run, for many steps' time, so it is not done where nothing does.
            await asyncio.to_thread(collect_freed)
        ended.set()

    # -- what both need ------------------------------------------------------------------------

    def _served(self, name: str) -> dict[int, ServedVersion]:
        numbers = self.registry.versions(name)
        return {int(number): self.registry.find(name, number) for number in numbers}

    def _count(self, name: str, outcome: str, versions: int = 1) -> None:
        self.context.metrics.loads.labels(name, outcome).inc(versions)

    def _update_live(self, name: str) -> None:
        self.context.metrics.live_versions.labels(name).set(len(self._live_versions(name)))


def _stopping() -> ServiceStopping:
    return ServiceStopping("the server is stopping; send the request to another one")


async def _stop_threads(served: ServedVersion, deadline: float) -> int:
    """End its engines; one that hangs in a step is left behind at the ``deadline``, which is a
    time of the event loop.

    Returns how many requests they still held.
    """
    left_over = 0
    for thread in served.threads:
        seconds = max(0.0, deadline - asyncio.get_running_loop().time())
        if await asyncio.to_thread(thread.stop, seconds):
            left_over += thread.left_over
            continue
        # It cannot be asked what it holds; its callers know what they have not given back.
        left_over += thread.open_work
        log.error(
            "engine %s of model %s version %s hangs in a step, and is left behind",
            thread.purpose,
            served.name,
            served.version,
        )
    return left_over
