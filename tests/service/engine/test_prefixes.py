"""Prompts that others began with too: what is read of them, and that no token is another one."""

import random
from dataclasses import replace

import pytest

from service.engine.prefixes import BETWEEN_TOKENS, LEAST_TOKENS
from service.engine.requests import Finished, TokenMade
from service.engine.shares import Share
from service.serving.prefix_cache import ModelPrefixes, PrefixCache
from tests.service.engine.fakes import Reader, card, make_engine, request, run, run_alone
from tests.service.engine.test_decode import random_request
from tests.service.engine.test_handing_over import by_place

PROMPT = tuple(n % 17 + 1 for n in range(1000))


def prefixes(limit=1 << 20, per_caller=False):
    return ModelPrefixes(PrefixCache(limit), card("letters", "generate"), per_caller)


def serve(engine, wanted, caller=""):
    reader = Reader()
    engine.arrive(engine.open(wanted, reader, Share(caller)))
    run(engine)
    return reader


def read(engine):
    """Tokens that prefill has read since it was last asked."""
    calls, engine.runner.prefill_calls = engine.runner.prefill_calls, []
    return sum(map(sum, calls))


def cached(reader):
    return reader.of(Finished)[0].cached_tokens


def test_a_prompt_that_comes_again_is_not_read_again():
    """Its first token comes in the step in which it arrives."""
    engine = make_engine(prefixes=prefixes())
    first = serve(engine, request(PROMPT, seed=1))
    assert (read(engine), cached(first)) == (999, 0)
    reader = Reader()
    engine.arrive(engine.open(request(PROMPT, seed=1), reader))
    engine.step()
    assert len(reader.of(TokenMade)) == 1
    run(engine)
    assert (read(engine), cached(reader)) == (0, 999)
    assert reader.tokens == first.tokens
    assert engine.observer.found == [0, 999]


def test_a_longer_prompt_is_read_from_where_the_shorter_one_ended():
    engine = make_engine(prefixes=prefixes())
    serve(engine, request(PROMPT[:500]))
    read(engine)
    longer = serve(engine, request(PROMPT))
    assert (read(engine), cached(longer)) == (500, 499)


def test_a_state_is_kept_where_prompts_part():
    """The second that goes another way has its prompt cut there, the third finds the place."""
    engine = make_engine(prefixes=prefixes())
    ways = [(*PROMPT[:400], token, *PROMPT[401:600]) for token in (0, 1, 2)]
    wanted = [request(way, max_tokens=3) for way in ways]
    readers = [serve(engine, one) for one in wanted]
    first, second, third = (cached(reader) for reader in readers)
    assert (first, third) == (0, 400)
    assert BETWEEN_TOKENS <= second < 400
    assert [r.tokens for r in readers] == [run_alone(one).tokens for one in wanted]


def test_states_are_kept_while_a_long_prompt_is_read():
    """So that another way out of its middle is not read from the beginning."""
    engine = make_engine(prefixes=prefixes())
    serve(engine, request(PROMPT))
    read(engine)
    other = serve(engine, request((*PROMPT[:700], 0, 0)))
    assert cached(other) >= 700 - BETWEEN_TOKENS
    assert read(engine) == 701 - cached(other)


def test_a_prompt_is_not_cut_for_a_few_tokens():
    engine = make_engine(prefixes=prefixes())
    serve(engine, request(PROMPT[:100]))
    read(engine)
    serve(engine, request((*PROMPT[: LEAST_TOKENS - 1], 0, *PROMPT[:20])))
    assert engine.runner.prefill_calls == [[LEAST_TOKENS + 20 - 1]]


def test_a_short_prompt_is_neither_kept_nor_looked_up():
    cache = PrefixCache(1 << 20)
    engine = make_engine(prefixes=ModelPrefixes(cache, card("letters", "generate"), False))
    for _ in range(2):
        serve(engine, request(PROMPT[:LEAST_TOKENS]))
    assert (engine.observer.found, cache.states) == ([], 0)


def test_a_source_is_encoded_once():
    engine = make_engine(begin_id=7, prefixes=prefixes())
    first = serve(engine, request((1, 2, 3)))
    assert read(engine) == 3
    second, other = serve(engine, request((1, 2, 3))), serve(engine, request((1, 2, 3, 4)))
    assert (cached(second), cached(other), read(engine)) == (3, 0, 4)
    assert second.tokens == first.tokens == run_alone(request((1, 2, 3)), begin_id=7).tokens


def test_a_request_may_leave_the_cache_alone():
    cache = PrefixCache(1 << 20)
    engine = make_engine(prefixes=ModelPrefixes(cache, card("letters", "generate"), False))
    serve(engine, request(PROMPT, no_cache=True))
    assert cache.states == 0
    serve(engine, request(PROMPT))
    again = serve(engine, request(PROMPT, no_cache=True))
    assert (cached(again), engine.observer.found) == (0, [0])


def test_callers_that_are_told_apart_do_not_find_each_others_prompts():
    engine = make_engine(prefixes=prefixes(per_caller=True))
    readers = [serve(engine, request(PROMPT), caller) for caller in ("ann", "bob", "ann")]
    assert [cached(reader) for reader in readers] == [0, 0, 999]


def test_who_waits_for_a_row_finds_what_was_read_meanwhile():
    """Requests of one prompt that come together are read once, where there is one row."""
    engine = make_engine(capacity=1, prefixes=prefixes())
    readers = [Reader() for _ in range(5)]
    for reader in readers:
        engine.arrive(engine.open(request(PROMPT), reader))
    run(engine)
    assert read(engine) == 999
    assert [cached(reader) for reader in readers] == [0, 999, 999, 999, 999]


def test_samples_of_one_request_count_their_prompt_once():
    engine = make_engine(prefixes=prefixes())
    serve(engine, request(PROMPT))
    several = serve(engine, request(PROMPT, samples=3))
    assert cached(several) == 999
    assert engine.observer.found == [0, 999]


@pytest.mark.parametrize("begin_id", [None, 7])
@pytest.mark.parametrize("seed", range(25))
def test_no_token_depends_on_what_was_cached(seed, begin_id):
    """Random mixes of requests that share beginnings, in a cache that is mostly too small."""
    choose = random.Random(seed)
    limit = choose.choice((3_000, 20_000, 1 << 20))
    engine = make_engine(
        choose.randint(2, 6), begin_id, 11, prefixes(limit, per_caller=choose.random() < 0.5)
    )
    known = [random_request(choose).tokens for _ in range(3)]
    wanted = []
    for _ in range(60):
        if choose.random() < 0.6:
            one = random_request(choose)
            tokens = start = choose.choice(known)
            if choose.random() < 0.6:
                tokens = start[: choose.randint(1, len(start))]
                tokens += one.tokens[: choose.choice((0, 40))]
            known.append(tokens)
            one, reader = replace(one, tokens=tokens, no_cache=choose.random() < 0.2), Reader()
            progress = engine.open(one, reader, Share(choose.choice("ab")))
            engine.arrive(progress)
            wanted.append((progress, one, reader))
        if wanted and choose.random() < 0.1:
            engine.cancel(wanted.pop(choose.randrange(len(wanted)))[0])
        engine.step()
    run(engine)
    assert any(engine.observer.found) or limit == 3_000
    for _, one, reader in wanted:
        alone = run_alone(one, begin_id=begin_id, end_id=11)
        assert by_place(reader.tokens) == by_place(alone.tokens)
        assert cached(reader) <= len(one.tokens)
