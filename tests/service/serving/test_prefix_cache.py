import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from service.engine.prefix_tree import path_of
from service.serving.prefix_cache import ModelPrefixes, PrefixCache
from tests.service.engine.fakes import card

OWNER = ("digest", "fp32", "fingerprint", "")


def state(number=0, size=16):
    return {"hidden": np.full(size, number, np.float32)}


def test_a_state_is_found_after_its_prefix_by_its_owner_alone():
    cache = PrefixCache(1 << 20)
    cache.keep(OWNER, path_of([1, 2, 3]), state(7))
    found = cache.find(OWNER, path_of([1, 2, 3, 4]), whole=False)
    assert (found.count, found.shared) == (3, 3)
    assert found.state["hidden"][0] == 7
    assert cache.find(("other", *OWNER[1:]), path_of([1, 2, 3]), whole=False).state is None


def test_a_source_is_found_as_a_whole_or_not_at_all():
    cache = PrefixCache(1 << 20)
    cache.keep(OWNER, path_of([1, 2]), state())
    assert cache.find(OWNER, path_of([1, 2, 3]), whole=True).state is None
    assert cache.find(OWNER, path_of([1, 2]), whole=True).state is not None


def test_a_kept_state_cannot_be_written_to():
    cache, mine = PrefixCache(1 << 20), state()
    cache.keep(OWNER, path_of([1]), mine)
    with pytest.raises(ValueError, match="read-only"):
        mine["hidden"][0] = 1


def test_the_least_recently_used_state_goes_first():
    dropped = []
    cache = PrefixCache(3000, lambda: dropped.append(1))
    for token in (1, 2):
        cache.keep(OWNER, path_of([token]), state())
    cache.find(OWNER, path_of([1]), whole=False)
    for token in (3, 4):
        cache.keep(OWNER, path_of([token]), state())
    known = [token for token in (1, 2, 3, 4) if cache.find(OWNER, path_of([token]), False).state]
    assert known == [1, 3, 4]
    assert len(dropped) == 1
    assert cache.used <= 3000


def test_a_state_that_does_not_fit_drops_no_other():
    cache = PrefixCache(2000)
    cache.keep(OWNER, path_of([1]), state())
    cache.keep(OWNER, path_of([2]), state(size=1000))
    assert cache.states == 1


def test_nothing_is_kept_within_no_bytes():
    cache = PrefixCache(0)
    cache.keep(OWNER, path_of([1]), state())
    assert (cache.states, cache.used) == (0, 0)


def test_a_cache_gives_way_and_fills_again():
    cache = PrefixCache(1 << 20)
    for token in range(10):
        cache.keep(OWNER, path_of([token]), state())
    cache.shrink(3000)
    assert 0 < cache.used <= 3000
    cache.shrink(-1)
    assert (cache.states, cache.used) == (0, 0)
    cache.keep(OWNER, path_of([1]), state())
    assert cache.states == 1


def test_bytes_are_counted_until_the_last_state_is_gone():
    """Whatever is kept, found and dropped, nothing is left in the end."""
    choose, cache = random.Random(3), PrefixCache(20_000)
    for number in range(2000):
        owner = (*OWNER[:3], choose.choice("ab"))
        path = path_of(choose.choices(range(3), k=choose.randint(1, 9)))
        cache.keep(owner, path, state(number, choose.choice((4, 64))))
        assert 0 < cache.used <= 20_000
    cache.shrink(0)
    assert cache.used == 0


def test_engines_share_a_cache():
    """Several threads at once, as those of several models."""
    cache = PrefixCache(30_000)

    def use(seed):
        choose = random.Random(seed)
        owner = (*OWNER[:3], str(seed % 2))
        for _ in range(2000):
            path = path_of(choose.choices(range(3), k=choose.randint(1, 9)))
            found = cache.find(owner, path, whole=False)
            assert found.state is None or found.state["hidden"][0] == found.count
            cache.keep(owner, path, state(len(path) // 4))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.shrink(0)
    assert cache.used == 0


@pytest.mark.parametrize(("per_caller", "count"), [(True, 0), (False, 2)])
def test_a_caller_finds_its_own_prefixes_or_everybodys(per_caller, count):
    prefixes = ModelPrefixes(PrefixCache(1 << 20), card("letters", "generate"), per_caller)
    prefixes.keep("ann", path_of([1, 2]), state())
    assert prefixes.find("ann", path_of([1, 2]), whole=False).count == 2
    assert prefixes.find("bob", path_of([1, 2]), whole=False).count == count


@pytest.mark.parametrize(
    "change", [{"digest": "e" * 64}, {"precision": "int8"}, {"fingerprint": "0"}]
)
def test_a_state_is_of_one_bundle_precision_and_fingerprint(change):
    cache, mine = PrefixCache(1 << 20), card("letters", "generate")
    ModelPrefixes(cache, mine, False).keep("", path_of([1, 2]), state())
    other = ModelPrefixes(cache, replace(mine, **change), False)
    assert other.find("", path_of([1, 2]), whole=False).state is None
