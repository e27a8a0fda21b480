"""Sequences take turns, keep what their requests leave, and end when they should."""

import asyncio

import pytest

from service.access.memory_budget import MemoryBudget
from service.engine.errors import QueueFull, WrongInput
from service.serving.sequences import Flags, SequenceKey, Sequences

START, END, NEITHER = Flags(start=True), Flags(end=True), Flags()


class Version:
    """Counts who uses it, as a served version does."""

    state_bytes = 1024

    def __init__(self, name="letters"):
        self.name = name
        self.users = 0
        self.callbacks = []

    def take(self):
        self.users += 1

    def give(self):
        self.users -= 1

    def when_withdrawn(self, callback):
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


def key(number=1, owner=None, model="letters"):
    return SequenceKey(owner, model, number)


async def request(sequences, of, flags, version, leaves="state"):
    async with sequences.turn(of, flags, version) as turn:
        before, turn.state = turn.state, leaves
    return before


@pytest.fixture
def version():
    return Version()


def test_a_request_finds_what_the_one_before_left(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        assert await request(sequences, key(), START, version, "a") is None
        assert await request(sequences, key(), NEITHER, version, "b") == "a"
        assert await request(sequences, key(), END, version, "c") == "b"
        with pytest.raises(WrongInput, match="not under way"):
            await request(sequences, key(), NEITHER, version)
        assert (len(sequences), version.users, version.callbacks) == (0, 0, [])

    asyncio.run(run())


def test_a_request_that_fails_leaves_its_sequence_as_it_was(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(), START, version, "a")
        for failure in (WrongInput("no"), asyncio.CancelledError()):
            with pytest.raises(type(failure)):
                async with sequences.turn(key(), END, version):
                    raise failure
        assert await request(sequences, key(), NEITHER, version) == "a"

    asyncio.run(run())


def test_a_first_request_that_fails_begins_nothing(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        with pytest.raises(WrongInput):
            async with sequences.turn(key(), START, version):
                raise WrongInput("no")
        with pytest.raises(WrongInput, match="sequence_start"):
            await request(sequences, key(), NEITHER, version)
        assert version.users == 0

    asyncio.run(run())


def test_a_start_begins_anew(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(), START, version, "a")
        assert await request(sequences, key(), START, version, "b") is None
        assert await request(sequences, key(), NEITHER, version) == "b"
        assert version.users == 1

    asyncio.run(run())


def test_a_start_that_fails_leaves_the_sequence_before_it(version):
    async def run():
        sequences = Sequences(1, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(), START, version, "a")
        with pytest.raises(WrongInput):
            async with sequences.turn(key(), START, version):
                raise WrongInput("no")
        assert await request(sequences, key(), END, version) == "a"
        assert (len(sequences), version.users, version.callbacks) == (0, 0, [])

    asyncio.run(run())


def test_starts_take_turns_too(version):
    """A start that comes while others of its name are under way waits for them."""

    async def run():
        sequences, seen = Sequences(1, 60.0, MemoryBudget(1 << 20)), []

        async def slow(number, flags):
            async with sequences.turn(key(), flags, version) as turn:
                seen.append((number, turn.state))
                await asyncio.sleep(0)
                turn.state = number

        await asyncio.gather(*(slow(n, [START, END][n % 2]) for n in range(6)))
        assert seen == [(0, None), (1, 0), (2, None), (3, 2), (4, None), (5, 4)]
        assert (len(sequences), version.users) == (0, 0)

    asyncio.run(run())


def test_whoever_gives_up_waiting_changes_nothing(version):
    """Also while the first request, which has not left a state yet, is under way."""

    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        async with sequences.turn(key(), START, version) as first:
            for flags in (NEITHER, START, END):
                waiter = asyncio.ensure_future(request(sequences, key(), flags, version))
                await asyncio.sleep(0)
                waiter.cancel()
                await asyncio.gather(waiter, return_exceptions=True)
            first.state = "a"
        assert await request(sequences, key(), END, version) == "a"
        assert (len(sequences), version.users, version.callbacks) == (0, 0, [])

    asyncio.run(run())


def test_requests_that_wait_for_a_turn_when_their_model_is_unloaded_have_it(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(), START, version, "a")
        async with sequences.turn(key(), NEITHER, version) as turn:
            turn.state = "b"
            waiting = asyncio.ensure_future(request(sequences, key(), NEITHER, version, "c"))
            await asyncio.sleep(0)
            for callback in list(version.callbacks):
                callback()
            assert len(sequences) == 0
            with pytest.raises(WrongInput):
                await request(sequences, key(), NEITHER, version)
        assert await waiting == "b"
        assert (version.users, version.callbacks) == (0, [])

    asyncio.run(run())


def test_owners_models_and_kinds_of_numbers_have_sequences_of_their_own(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        keys = [key(), key("1"), key(owner="a stream"), key(model="tags")]
        for place, each in enumerate(keys):
            await request(sequences, each, START, version, place)
        for place, each in enumerate(keys):
            assert await request(sequences, each, NEITHER, version, place) == place

    asyncio.run(run())


def test_requests_of_one_sequence_take_turns_in_their_order(version):
    async def run():
        sequences, seen = Sequences(8, 60.0, MemoryBudget(1 << 20)), []

        async def slow(number):
            flags = START if number == 0 else NEITHER
            async with sequences.turn(key(), flags, version) as turn:
                seen.append((number, turn.state))
                await asyncio.sleep(0)
                turn.state = number

        await asyncio.gather(*(slow(number) for number in range(5)))
        assert seen == [(0, None), (1, 0), (2, 1), (3, 2), (4, 3)]

    asyncio.run(run())


def test_whoever_waits_for_a_turn_of_a_sequence_that_ended_is_reported(version):
    async def run():
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(), START, version)
        results = await asyncio.gather(
            request(sequences, key(), END, version),
            request(sequences, key(), NEITHER, version),
            return_exceptions=True,
        )
        assert isinstance(results[1], WrongInput)
        assert version.users == 0

    asyncio.run(run())


def test_one_too_many_is_refused_with_when_to_come_back(version):
    async def run():
        sequences = Sequences(2, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(1), START, version)
        await request(sequences, key(2), START, version)
        with pytest.raises(QueueFull) as refused:
            await request(sequences, key(3, model="letters.tensors"), START, version)
        assert refused.value.retry_after_seconds > 0
        await request(sequences, key(3, model="tags"), START, Version("tags"))
        await request(sequences, key(1), END, version)
        await request(sequences, key(3), START, version)

    asyncio.run(run())


def test_an_idle_sequence_ends_and_a_used_one_does_not(version):
    async def run():
        loop = asyncio.get_running_loop()
        sequences = Sequences(8, 60.0, MemoryBudget(1 << 20))
        await request(sequences, key(1), START, version)
        async with sequences.turn(key(2), START, version) as turn:
            turn.state = "kept"
            idle, busy = sequences._open[key(1)], sequences._open[key(2)]
            assert idle.expiry.when() == pytest.approx(loop.time() + 60, abs=5)
            assert busy.expiry is None
            idle.expiry._run()  # its time has come
            with pytest.raises(WrongInput, match="idle for too long"):
                await request(sequences, key(1), NEITHER, version)
        assert await request(sequences, key(2), NEITHER, version) == "kept"
        assert version.users == 1

    asyncio.run(run())


def test_sequences_end_with_their_owner_and_with_their_model(version):
    async def run():
        sequences, other = Sequences(8, 60.0, MemoryBudget(1 << 20)), Version()
        stream = object()
        await request(sequences, key(1, owner=stream), START, version)
        await request(sequences, key(1), START, other)
        await request(sequences, key(2), START, version)
        sequences.end_of_owner(stream)
        assert (len(sequences), version.users) == (2, 1)
        for callback in list(other.callbacks):
            callback()
        assert (len(sequences), other.users) == (1, 0)
        with pytest.raises(WrongInput):
            await request(sequences, key(1), NEITHER, other)

    asyncio.run(run())


def test_a_sequence_stays_with_the_version_it_began_on(version):
    async def run():
        sequences, newer = Sequences(8, 60.0, MemoryBudget(1 << 20)), Version()
        await request(sequences, key(), START, version, "a")
        assert sequences.version_of(key(), NEITHER) is version
        assert sequences.version_of(key(), START) is None
        await request(sequences, key(), NEITHER, version, "b")
        assert (version.users, newer.users) == (1, 0)
        await request(sequences, key(), START, newer, "c")
        assert (version.users, newer.users) == (0, 1)
        assert sequences.version_of(key(), NEITHER) is newer

    asyncio.run(run())


def test_a_start_of_a_newer_version_that_fails_leaves_the_older_one(version):
    async def run():
        sequences, newer = Sequences(8, 60.0, MemoryBudget(1 << 20)), Version()
        await request(sequences, key(), START, version, "a")
        with pytest.raises(WrongInput):
            async with sequences.turn(key(), START, newer):
                raise WrongInput("no")
        assert sequences.version_of(key(), NEITHER) is version
        assert await request(sequences, key(), NEITHER, version) == "a"

    asyncio.run(run())
