"""States by name: whose they are, how many, how long, in memory and in a folder."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from service.access.memory_budget import STATES, MemoryBudget
from service.engine.errors import (
    Overloaded,
    StateExists,
    StateNotFound,
    StateRefused,
    TooManyStates,
    WrongInput,
)
from service.engine.rng import digest_of
from service.serving.named_states import (
    MadeState,
    MemoryStates,
    NamedState,
    NamedStates,
    of_known_tokens,
)
from service.serving.resume_token import ServedBundle
from service.serving.state_files import StateFiles, read_state, written_state

BUNDLE = ServedBundle("letters", "d" * 64, "fp32", "f" * 64)
STATE = {
    "hidden_0": np.array([0.5, -0.0, 1e-40], np.float32),
    "pointer": np.array([[3, 4]], np.int64),
}
MADE = MadeState(BUNDLE, (1, 2, 3), STATE, digest=2**64 - 1)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "folder"])
def states(request, tmp_path, clock):
    if request.param == "memory":
        return NamedStates(MemoryStates(MemoryBudget(1 << 20), clock), 3, 100.0, clock=clock)
    return NamedStates(StateFiles(tmp_path / "states", clock), 3, 100.0, True, clock)


def run(work):
    return asyncio.run(work)


def create(states, name, owner="ann", ttl=None, replaces=False, made=MADE):
    return run(states.create(owner, name, made, ttl, replaces))


def names(states, owner="ann"):
    return [state.name for state in run(states.all_of(owner))]


def test_a_state_is_what_was_kept_bit_for_bit(states):
    create(states, "a.b-c_1")
    found = run(states.get("ann", "a.b-c_1"))
    assert (found.bundle, found.tokens, found.digest) == (BUNDLE, (1, 2, 3), 2**64 - 1)
    assert (found.created, found.expires) == (1000.0, 1100.0)
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.state.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in STATE.items()
    }


def test_nobody_reaches_anothers_state(states):
    create(states, "one")
    create(states, "one", owner="bob")
    assert names(states, "eve") == []
    with pytest.raises(StateNotFound, match="no state 'one' of yours"):
        run(states.get("eve", "one"))
    run(states.delete("ann", "one"))
    assert names(states, "bob") == ["one"]


def test_a_name_is_taken_unless_it_is_replaced(states):
    create(states, "one")
    with pytest.raises(StateExists, match="you have a state 'one'"):
        create(states, "one")
    create(states, "one", replaces=True, made=replace(MADE, tokens=(7,)))
    assert run(states.get("ann", "one")).tokens == (7,)


def test_a_caller_has_so_many_and_no_more(states):
    for name in ("one", "two", "three"):
        create(states, name)
    with pytest.raises(TooManyStates, match="you have 3 states, and may have 3"):
        create(states, "four")
    create(states, "two", replaces=True)
    create(states, "four", owner="bob")
    assert names(states) == ["one", "three", "two"]


def test_one_too_many_is_refused_before_anything_is_read(states):
    for name in ("one", "two", "three"):
        create(states, name)
    with pytest.raises(TooManyStates, match="may have 3"):
        run(states.check_new("ann", "four", None))
    run(states.check_new("ann", "three", None))
    run(states.check_new("bob", "four", None))


def test_a_state_that_expires_gives_its_bytes_back_unasked():
    budget = MemoryBudget(1 << 20)
    states = NamedStates(MemoryStates(budget), 8, 100.0)

    async def live():
        await states.create("ann", "long", MADE, 100.0, False)
        each = budget.used_of(STATES)
        await states.create("ann", "short", MADE, 0.05, False)
        await states.create("ann", "shorter", MADE, 0.01, False)
        for _ in range(500):
            if budget.used_of(STATES) == each:
                break
            await asyncio.sleep(0.01)
        assert (len(states), budget.used_of(STATES)) == (1, each)

    run(live())


def test_a_state_ends_with_its_time(states, clock):
    create(states, "short", ttl=10.0)
    create(states, "long")
    clock.now += 10.0
    assert names(states) == ["long"]
    with pytest.raises(StateNotFound):
        run(states.get("ann", "short"))
    create(states, "short")
    clock.now += 99.0
    assert names(states) == ["short"]


@pytest.mark.parametrize("ttl", [0.0, -1.0, 101.0, float("nan")])
def test_a_life_is_within_the_servers(states, ttl):
    with pytest.raises(WrongInput, match="choose more than 0 and up to 100"):
        create(states, "one", ttl=ttl)


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "-a", "a" * 65, "a\n", "ä"])
def test_a_name_is_plain(states, name):
    for work in (states.get("ann", name), states.delete("ann", name)):
        with pytest.raises(WrongInput, match="is no name of a state"):
            run(work)
    with pytest.raises(WrongInput):
        create(states, name)


def test_what_is_deleted_is_gone(states):
    create(states, "one")
    run(states.delete("ann", "one"))
    with pytest.raises(StateNotFound):
        run(states.delete("ann", "one"))
    assert names(states) == []


def test_states_in_memory_are_counted(clock):
    budget = MemoryBudget(1 << 20)
    states = NamedStates(MemoryStates(budget, clock), 8, 100.0, clock=clock)
    create(states, "one", ttl=1.0)
    create(states, "two")
    each = budget.used_of(STATES) // 2
    assert each > sum(array.nbytes for array in STATE.values())
    clock.now += 1.0
    assert names(states) == ["two"]
    create(states, "two", replaces=True)
    assert budget.used_of(STATES) == each
    run(states.delete("ann", "two"))
    assert budget.used_of(STATES) == 0


def test_a_state_that_finds_no_room_takes_nobodys_place(clock):
    budget = MemoryBudget(3000)
    states = NamedStates(MemoryStates(budget, clock), 8, 100.0, clock=clock)
    create(states, "one")
    with pytest.raises(Overloaded):
        create(states, "one", replaces=True, made=replace(MADE, tokens=tuple(range(500))))
    assert run(states.get("ann", "one")).tokens == (1, 2, 3)


def test_several_processes_keep_none_in_memory():
    states = NamedStates(None, 8, 100.0)
    with pytest.raises(StateRefused, match=r"several processes .*--state-store"):
        run(states.check_new("ann", "one", None))
    with pytest.raises(StateRefused, match="--state-store"):
        run(states.get("ann", "one"))


# -- the folder -------------------------------------------------------------------------------


def in_folder(folder, clock):
    return NamedStates(StateFiles(folder, clock), 8, 100.0, is_slow=True, clock=clock)


def test_a_folder_outlives_the_process(tmp_path, clock):
    create(in_folder(tmp_path, clock), "one")
    assert names(in_folder(tmp_path, clock)) == ["one"]
    clock.now += 100.0
    in_folder(tmp_path, clock)  # looks for what has expired
    assert not list(tmp_path.glob("*/*"))


def test_processes_share_a_folder(tmp_path, clock):
    one, other = in_folder(tmp_path, clock), in_folder(tmp_path, clock)
    create(one, "mine")
    with pytest.raises(StateExists):
        create(other, "mine")
    run(other.delete("ann", "mine"))
    assert names(one) == []


def test_only_the_service_reads_the_folder(tmp_path, clock):
    folder = tmp_path / "deep" / "states"
    create(in_folder(folder, clock), "one")
    (file,) = folder.glob("*/*")
    assert [path.stat().st_mode & 0o777 for path in (folder, file.parent, file)] == [
        0o700, 0o700, 0o600,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:40] + b"x" + content[41:],
        lambda content: b"URS9" + content[4:],
    ],
)
def test_a_file_that_is_not_whole_is_refused_and_replaced(tmp_path, clock, spoil):
    states = in_folder(tmp_path, clock)
    create(states, "one")
    (file,) = tmp_path.glob("*/*")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(StateRefused, match=r"'one' cannot be read .*create it again"):
        run(states.get("ann", "one"))
    assert names(states) == []
    create(states, "one")
    assert names(states) == ["one"]


def test_nothing_is_left_of_a_write_that_fails(tmp_path, clock, monkeypatch):
    states = in_folder(tmp_path, clock)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.serving.state_files.os.fsync", full)
    with pytest.raises(StateRefused, match=r"cannot write its states .No space left on device"):
        create(states, "one")
    assert not list(tmp_path.glob("*/*"))


def test_what_was_being_written_when_a_process_ended_is_removed(tmp_path, clock):
    create(in_folder(tmp_path, clock), "one")
    (file,) = tmp_path.glob("*/*")
    (file.parent / "0011.writing").write_bytes(b"half")
    in_folder(tmp_path, clock)
    assert list(tmp_path.glob("*/*")) == [file]


def test_a_file_is_read_as_it_was_written():
    state = NamedState("one", "ann", BUNDLE, (1.5, 0.1), 7, STATE, 1.5, 2.5)
    read = read_state(written_state(state))
    assert (read.tokens, read.created, read.expires) == (state.tokens, 1.5, 2.5)


def test_of_many_tokens_a_digest_is_kept():
    made = replace(MADE, digest=5)
    assert of_known_tokens(made, 3) is made
    short = of_known_tokens(made, 2)
    assert short.tokens == (3,)
    assert short.digest == 5 ^ digest_of((1, 2))
