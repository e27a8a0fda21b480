"""Each way through the sampler gives a row the same bits, whoever is beside it."""

import numpy as np
import pytest

from export import draw_nodes
from export.sampler import draw_numpy
from tests.export.drawing import draw, feed_of, rows_of, session_of

SIZES = (66, 1_000, 10_000, 50_000)

# A row of each kind goes another way: all tokens, the first draw, the second, the few, all ranked.
KINDS = (
    {},
    {"temperature": 0.0},
    {"temperature": 0.8, "top_p": 0.95},
    {"top_p": 0.3},
    {"min_p": 0.2},
    {"top_k": 40},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.05},
    {"top_k": 5, "typical_p": 0.7},
    {"top_k": 300},
    {"typical_p": 0.5},
    {"temperature": 1.3, "top_p": 0.6, "min_p": 0.001, "repetition": 1.3},
)  # fmt: skip


def logits_of(shape, vocabulary, rows, random):
    """flat: as of random weights. peaked: a few tokens hold nearly all. tied: many are equal."""
    scale = {"flat": 0.1, "peaked": 5.0, "tied": 1.0}[shape]
    logits = random.normal(0, scale, (rows, vocabulary))
    return (np.round(logits) if shape == "tied" else logits).astype(np.float32)


def mixed(shape, vocabulary, rows, random):
    """Rows of every kind; some of them adjust their logits, and two ids are never drawn."""
    kinds = [KINDS[i] for i in random.integers(0, len(KINDS), rows)]
    chosen = {
        name: np.array([kind.get(name, neutral) for kind in kinds])
        for name, neutral in (
            ("temperature", 1.0), ("top_k", 0), ("top_p", 1.0), ("min_p", 0.0),
            ("typical_p", 1.0), ("repetition", 1.0),
        )
    }  # fmt: skip
    adjusted = np.flatnonzero(random.random(rows) < 0.3)
    bias = random.normal(0, 1, (len(adjusted), vocabulary)).astype(np.float32)
    bias[:, ::7] = -np.inf
    suppressed = np.zeros(vocabulary, np.float32)
    suppressed[:2] = -np.inf
    return feed_of(
        logits_of(shape, vocabulary, rows, random),
        uniform=random.random(rows, dtype=np.float32),
        retries=random.random((rows, 2), dtype=np.float32),
        suppressed=suppressed,
        adjusted=adjusted,
        seen=random.random((len(adjusted), vocabulary)) < 0.3,
        bias=bias,
        **chosen,
    )


def bits(outputs, row):
    return [output[row].tobytes() for output in outputs]


@pytest.mark.parametrize("shape", ["flat", "peaked", "tied"])
@pytest.mark.parametrize("vocabulary", SIZES)
@pytest.mark.parametrize(("seed", "rows"), [(1, 2), (2, 5), (3, 33)])
def test_a_row_is_the_same_alone_and_among_any(vocabulary, shape, seed, rows):
    random = np.random.default_rng(seed)
    rows = min(rows, 100_000 // vocabulary + 6)
    feed = mixed(shape, vocabulary, rows, random)
    together = draw(feed)
    wide = session_of(vocabulary, threads=2).run(None, feed)
    order = random.permutation(rows)
    shuffled = draw(rows_of(feed, order))
    for place, row in enumerate(order.tolist()):
        alone = draw(rows_of(feed, [row]))
        assert bits(alone, 0) == bits(together, row) == bits(shuffled, place) == bits(wide, row)


@pytest.mark.parametrize("shape", ["flat", "peaked"])
@pytest.mark.parametrize("vocabulary", SIZES)
def test_the_graph_draws_what_its_twin_draws(vocabulary, shape):
    """Where no uniform lies within rounding of an edge."""
    feed = mixed(shape, vocabulary, 60 if vocabulary > 1_000 else 300, np.random.default_rng(3))
    token, log_probability, _ = draw(feed)
    twin = draw_numpy(feed["logits"], feed["suppressed"], feed)
    clear = twin.margin > 1e-4
    assert clear.any()
    np.testing.assert_array_equal(token[clear], twin.token[clear])
    np.testing.assert_allclose(
        log_probability[clear], twin.log_probability[clear], atol=2e-5, rtol=2e-5
    )
    assert (token > 1).all()


@pytest.mark.parametrize("vocabulary", SIZES[1:])
def test_the_few_give_what_ranking_all_gives(vocabulary, monkeypatch):
    """Where the likeliest hold what is kept, the row has the bits it has by the other way."""
    random = np.random.default_rng(5)
    rows = 40
    feed = feed_of(
        logits_of("peaked", vocabulary, rows, random),
        top_k=random.choice([3, 40, 64], rows),
        top_p=random.choice([0.5, 0.9, 1.0], rows),
        min_p=random.choice([0.0, 0.1], rows),
        uniform=random.random(rows, dtype=np.float32),
    )
    few = draw(feed)
    monkeypatch.setattr(draw_nodes._Draw, "_few", ranked_all)
    session_of.cache_clear()
    every = draw(feed)
    session_of.cache_clear()
    assert all(bits(few, row) == bits(every, row) for row in range(rows))


def ranked_all(nodes, scaled):
    return nodes("TopK", scaled, np.array([nodes.vocabulary]), outputs=2, axis=1)[1]


@pytest.mark.parametrize("vocabulary", SIZES)
def test_frequencies_are_those_of_what_the_cuts_leave(vocabulary):
    """A chi-square over 12 groups of tokens, for top-p over a flat distribution."""
    rows = 2_000 if vocabulary > 1_000 else 20_000
    random = np.random.default_rng(11)
    row = logits_of("flat", vocabulary, 1, random)[0] * 10
    p = np.exp(row.astype(np.float64))
    p /= p.sum()
    order = np.argsort(-p)
    inside = np.zeros(vocabulary, bool)
    inside[order[: int((p[order].cumsum() < 0.9).sum()) + 1]] = True
    kept = np.where(inside, p, 0) / p[inside].sum()
    group = random.integers(0, 12, vocabulary)
    counts = np.zeros(12)
    for _ in range(0, rows, 500):
        feed = feed_of(
            np.tile(row, (500, 1)),
            top_p=0.9,
            uniform=random.random(500, dtype=np.float32),
            retries=random.random((500, 2), dtype=np.float32),
        )
        token = draw(feed)[0]
        assert inside[token].all() or vocabulary > 1_000  # an edge may fall by rounding
        counts += np.bincount(group[token], minlength=12)
    expected = rows * np.bincount(group, kept, minlength=12)
    assert ((counts - expected) ** 2 / expected).sum() < 35  # 11 degrees of freedom: p of 0.0003


def test_a_row_of_nan_leaves_its_neighbours_alone():
    for vocabulary in (66, 1_000):
        random = np.random.default_rng(vocabulary)
        feed = mixed("peaked", vocabulary, 30, random)
        whole = draw(feed)
        broken = feed["logits"].copy()
        broken[::3] = np.nan
        token, log_probability, _ = found = draw(feed | {"logits": broken})
        assert np.isnan(log_probability[::3]).all()
        assert ((token >= 0) & (token < vocabulary)).all()
        assert all(bits(found, row) == bits(whole, row) for row in range(30) if row % 3)
