"""Locally typical sampling: the graph, its twin, and the definition, written out once more."""

import numpy as np
import pytest

from export.sampler import draw_numpy
from tests.export.drawing import draw, feed_of, model_of, rows_of

ROWS = 24
SIZES = (66, 1_000, 10_000)
SHAPES = ("flat", "peaked", "banned")


def logits_of(shape, vocabulary, rows=ROWS):
    """flat: nearly uniform. peaked: a few tokens hold nearly all. banned: half cannot come."""
    random = np.random.default_rng(vocabulary)
    logits = random.normal(0, 0.01 if shape == "flat" else 2, (rows, vocabulary))
    if shape == "peaked":
        logits *= 3
    if shape == "banned":
        logits[:, 1::2] = -np.inf
    return logits.astype(np.float32)


def surprises(logits):
    """Ids that can come, their probabilities, and how far each surprise is from the entropy."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    ids = np.flatnonzero(weights)
    p = weights[ids] / weights.sum()
    information = -np.log(p)
    return ids, p, np.abs(information - (p * information).sum())


def reference(logits, uniform, typical_p):
    """Meister et al. 2023, in float64: the token, and how clear it is that it is drawn."""
    ids, p, shift = surprises(logits)
    ranking = np.lexsort((ids, -p, shift))
    reached = np.cumsum(p[ranking])
    size = int(np.searchsorted(reached, typical_p)) + 1
    chosen = ranking[:size]
    by_weight = chosen[np.lexsort((ids[chosen], -p[chosen]))]
    edges = np.cumsum(p[by_weight]) / p[by_weight].sum()
    place = min(int(np.searchsorted(edges, uniform, side="right")), size - 1)
    ordered = shift[ranking]
    gap = ordered[size] - ordered[size - 1] if size < len(ids) else 1.0
    margin = min(np.abs(reached - typical_p).min(), np.abs(edges - uniform).min(), gap)
    return int(ids[by_weight[place]]), float(margin)


EACH = pytest.mark.parametrize("typical_p", [0.05, 0.5, 0.95])


@pytest.mark.parametrize("vocabulary", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
@EACH
def test_what_is_drawn_is_typical(vocabulary, shape, typical_p):
    """Whatever is nearer to the entropy than a drawn token has less than the mass asked for."""
    logits = logits_of(shape, vocabulary)
    feed = feed_of(logits, typical_p=typical_p)
    token, log_probability, _ = draw(feed)
    twin = draw_numpy(logits, np.zeros(vocabulary, np.float32), feed)
    for drawn in (token, twin.token):
        for row, number in zip(logits, drawn, strict=True):
            ids, p, shift = surprises(row)
            (place,) = np.flatnonzero(ids == number)
            assert p[shift < shift[place] - 1e-5].sum() < typical_p + 1e-5
    exact = logits.astype(np.float64)
    known = exact[np.arange(ROWS), token] - np.logaddexp.reduce(exact, 1)
    np.testing.assert_allclose(log_probability, known, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("vocabulary", "shape"), [(66, "flat"), *((n, s) for n in SIZES for s in SHAPES[1:])]
)
@EACH
def test_graph_twin_and_definition_draw_the_same(vocabulary, shape, typical_p):
    """Where float32 can tell the surprises apart, and no sum ends at an edge."""
    logits = logits_of(shape, vocabulary, rows=100)
    feed = feed_of(logits, typical_p=typical_p)
    token, _, _ = draw(feed)
    twin = draw_numpy(logits, np.zeros(vocabulary, np.float32), feed)
    drawn = [reference(*row, typical_p) for row in zip(logits, feed["uniform"], strict=True)]
    wanted, margin = (np.array(column) for column in zip(*drawn, strict=True))
    clear = margin > 1e-5
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(token[clear], wanted[clear])
    np.testing.assert_array_equal(twin.token[clear], wanted[clear])


@pytest.mark.parametrize("vocabulary", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_alone_gets_the_bits_that_it_gets_in_a_batch(vocabulary, shape):
    """Rows that ask stand beside rows that do not, and beside nobody who does."""
    logits = logits_of(shape, vocabulary)
    asked = np.resize(np.float32([1.0, 0.3, 0.9, 0.0, 0.6]), ROWS)
    feed = feed_of(logits, typical_p=asked, temperature=np.resize([1.0, 0.7, 0.0], ROWS))
    together = draw(feed)
    nobody = draw(feed | {"typical_p": np.ones_like(asked)})
    for row in range(ROWS):
        alone = draw(rows_of(feed, [row]))
        for one, many, plain in zip(alone, together, nobody, strict=True):
            assert one[0].tobytes() == many[row].tobytes()
            if not 0 < asked[row] < 1:
                assert one[0].tobytes() == plain[row].tobytes()


@pytest.mark.parametrize(
    "cut", [{"top_k": 20}, {"top_p": 0.6}, {"min_p": 0.05}, {"temperature": 0.6}], ids=str
)
def test_it_is_taken_of_what_the_other_cuts_leave(cut):
    """The entropy is that of the tokens that are left, renormalised."""
    logits = logits_of("peaked", 66, rows=200) / 3
    feed = feed_of(logits, typical_p=0.5, **cut)
    token, _, _ = draw(feed)
    left = logits / cut.get("temperature", 1.0)
    p = np.exp(left.astype(np.float64) - np.logaddexp.reduce(left, 1, keepdims=True))
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, 1)
    inside = np.arange(66) < cut.get("top_k", 66)
    inside = inside & (ranked.cumsum(1) - ranked < cut.get("top_p", 2.0))
    inside &= ranked >= cut.get("min_p", 0.0) * ranked[:, :1]
    np.put_along_axis(left, order, np.where(inside, np.take_along_axis(left, order, 1), -np.inf), 1)
    drawn = [reference(*row, 0.5) for row in zip(left, feed["uniform"], strict=True)]
    wanted, margin = (np.array(column) for column in zip(*drawn, strict=True))
    clear = margin > 1e-4
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(token[clear], wanted[clear])
    assert (token != draw(feed_of(logits, **cut))[0]).any()


def test_of_equally_typical_tokens_the_lower_ids_are_kept():
    logits = np.zeros((500, 66), np.float32)
    feed = feed_of(logits, typical_p=0.49)
    feed["uniform"] = np.linspace(0, 1 - 1e-6, 500, dtype=np.float32)
    token, _, _ = draw(feed)
    assert sorted(set(token.tolist())) == list(range(33)), "33 of 66 are the first to reach 0.49"


def test_at_least_one_token_is_kept():
    """The nearest to the entropy, which need not be the most probable one."""
    logits = np.log(np.float32([[0.4, 0.3, 0.2, *[0.1 / 63] * 63]]))
    token, _, _ = draw(feed_of(logits, typical_p=1e-6))
    entropy = -(np.exp(logits) * logits).sum()
    assert token[0] == np.abs(-logits[0] - entropy).argmin()
    assert token[0] != 0


def test_temperature_zero_stays_the_most_probable_token():
    logits = logits_of("peaked", 1_000)
    token, _, _ = draw(feed_of(logits, typical_p=0.1, temperature=0.0))
    np.testing.assert_array_equal(token, logits.argmax(axis=1))


def test_sorts_are_in_branches():
    """A step that nobody asks runs none of them."""
    for vocabulary in (66, 1_000):
        (function,) = model_of(vocabulary).functions
        assert "TopK" not in [node.op_type for node in function.node]
        assert "TopK" in str(function)
