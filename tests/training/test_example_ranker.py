"""Which examples are copied from, and vectors of which some values are unknown."""

import json
from math import isnan, nan

import numpy as np
import pytest
import torch

from bundle.manifest import UNKNOWN_VALUES
from tests.training.test_food import BEGIN, END, WRITER, food, teach
from training.field_dropout import FieldDropout
from training.floors.nearest import nearest_vectors
from training.models.example_ranker import RankedExamples, same_first, token_overlap
from training.models.options import DesignInvalid, RecurrentOptions
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig
from training.readers import DataInvalid
from training.splits import Splits
from training.tasks import TASKS, default_recipe
from training.tasks.vec2seq import Described, Vec2SeqTask, distinct, remember, write

MODEL = VectorToSequenceConfig(
    3, len(WRITER.vocabulary), 8, 4, RecurrentOptions("lstm", 8),
    examples=6, example_tokens=3, nearest=2, key_size=6, unknown=True, candidates=5, ranker_size=7,
)  # fmt: skip
VECTORS = torch.tensor(
    [[9.0, 1.0, 0.0], [8.0, nan, 0.1], [1.0, 5.0, 4.0], [1.2, 5.5, nan], [nan, 2.0, 3.0],
     [4.0, 4.0, 4.0]]
)  # fmt: skip


def ids(*rows):
    return torch.tensor([rows])


def remembering(config=MODEL):
    torch.manual_seed(0)
    model = VectorToSequence(config)
    model.standardise(VECTORS)
    model.remember(VECTORS, BEGIN, [[1 + n % 4, 1 + n // 2, END] for n in range(6)])
    return model


def test_overlap_is_the_f1_of_tokens_and_padding_is_none():
    some, others = ids([1, 2, 3, 0], [4, 5, 0, 0]), ids([3, 2, 1], [1, 6, 0], [0, 0, 0])
    torch.testing.assert_close(
        token_overlap(some, others), torch.tensor([[[1.0, 0.4, 0.0], [0.0, 0.0, 0.0]]])
    )
    assert same_first(some, ids([1, 9, 9], [4, 0, 0])).tolist() == [[[1, 0], [0, 1]]]


def test_the_gain_of_a_choice_is_that_of_its_examples_by_their_chances():
    ranked = RankedExamples(
        ids([1, 2], [3, 2]), torch.tensor([[0.0, torch.log(torch.tensor(3.0))]])
    )
    # A quarter of 1 and a half, three quarters of a half.
    torch.testing.assert_close(
        ranked.expected_overlap(ids([1, 2])[0]), torch.tensor([0.25 * 1.5 + 0.75 * 0.5])
    )


def test_an_example_gains_by_agreeing_with_likely_others():
    """Of three that are equally near, the two whose names are alike, once agreement counts."""
    ranker = remembering().examples.ranker.eval()
    tokens, nothing = ids([5, 6, 7], [1, 2, 3], [1, 2, 4]), torch.zeros(1, 3, 3)
    asked = torch.zeros(1, 3), torch.ones(1, 3)
    scores = ranker(torch.zeros(1, 3), nothing, *asked, tokens)
    assert (scores == scores[0, 0]).all()
    ranker.agreement.data[0] = 2.0
    lonely, *alike = ranker(torch.zeros(1, 3), nothing, *asked, tokens)[0].tolist()
    assert min(alike) > lonely


def test_an_unknown_value_changes_neither_condition_nor_neighbours():
    """Nor does what stands where a value is hidden."""
    model = remembering().eval()
    hidden = torch.tensor([[True, False, True]])
    asked = [torch.tensor([[1.0, value, 4.0]]) for value in (nan, 0.0, 7.0)]
    states = [model.read(vector, hidden)[0] for vector in asked]
    for state in states[1:]:
        assert all(map(torch.equal, state, states[0]))
    assert all(map(torch.equal, model.encode(asked[0]), states[0]))
    assert not torch.equal(model.encode(asked[1])[0], states[0][0])
    assert all(part.isfinite().all() for part in model.encode(torch.full((1, 3), nan)))


def test_distance_is_of_known_values_and_as_large_for_few_of_them():
    config = VectorToSequenceConfig(
        3, len(WRITER.vocabulary), 8, 4, RecurrentOptions("lstm", 8),
        examples=6, example_tokens=3, nearest=2, key_size=6, unknown=True,
    )  # fmt: skip
    model = remembering(config).eval()
    _, _, ranked = model.examples.nearest_to(*model._standard(torch.tensor([[nan, 5.0, nan]])))
    assert ranked.tokens[0, :, 0].tolist() == [3, 4]  # of the 5 and the 5.5
    vector, known = model._standard(torch.tensor([[9.0, 9.0, 9.0]]))
    _, whole, _ = model.examples.nearest_to(vector, known)
    for field in range(3):
        one = torch.zeros(1, 3)
        one[0, field] = 1
        same = torch.full((1, 3), vector[0, field].item()) * one
        model.examples.vectors.copy_(torch.zeros(3, 6))
        model.examples.known.fill_(True)
        _, alone, _ = model.examples.nearest_to(same, one)
        expected = 4 * vector[0, field].abs() * 3**0.5  # sharpness, and a third of the fields
        torch.testing.assert_close(-alone[0, 0], expected, rtol=1e-3, atol=1e-3)
    assert whole.isfinite().all()


def test_moments_are_of_the_known_values():
    model = VectorToSequence(MODEL)
    model.standardise(VECTORS)
    roots = VECTORS.sqrt().sqrt().numpy()
    np.testing.assert_allclose(model.mean, np.nanmean(roots, axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.scale, np.nanstd(roots, axis=0, ddof=1), rtol=1e-5)


def test_a_food_with_hidden_values_is_not_copied_from_itself_while_training():
    model = remembering().train()
    shown = torch.tensor([[True, False, False]]).expand(6, -1)
    _, ranked = model.read(VECTORS, shown)
    own = model.examples.tokens[:, 1:].long()
    for name, candidates in zip(own, ranked.tokens, strict=True):
        assert not (candidates == name).all(dim=1).any()


@pytest.mark.parametrize(
    "ranking",
    [{"candidates": 5}, {"candidates": 2, "ranker_size": 3}, {"candidates": 6, "ranker_size": 3},
     {"candidates": 5, "ranker_size": 3, "unknown": False}],
)  # fmt: skip
def test_a_ranking_is_given_whole_or_not_at_all(ranking):
    given = {"ranker_size": 0, "candidates": 0, "unknown": True, **ranking}
    with pytest.raises(DesignInvalid, match="candidates and ranker_size"):
        VectorToSequenceConfig(**{**vars(MODEL), **given})


def test_a_model_learns_to_write_from_what_is_shown():
    """Each field alone names the food, and training hides the others half of the time."""
    foods = [food("Butter, salted", (80.0 + n, nan if n == 1 else 0.1, 9.0)) for n in range(4)]
    foods += [food("Figs, raw", (0.3, 2.9 + n / 10, 1.0)) for n in range(4)]
    torch.manual_seed(0)
    config = VectorToSequenceConfig(
        **{**vars(MODEL), "examples": 8, "candidates": 6, "ranker_size": 5}
    )
    model, vectors = VectorToSequence(config), torch.tensor([each.values for each in foods])
    model.standardise(vectors)
    remember(model, WRITER, foods)
    task = Vec2SeqTask(WRITER, foods, foods, 1, fields=FieldDropout(3, 0.7), ranking=1.0)
    before = model.examples.ranker.weights.clone()
    teach(model, task, 60)
    assert not torch.equal(before, model.examples.ranker.weights)
    asked = torch.tensor([[81.5, nan, nan], [nan, 3.0, nan], [nan, nan, 9.0], [0.2, 3.1, 1.0]])
    names = ["Butter, salted", "Figs, raw", "Butter, salted", "Figs, raw"]
    assert write(model, asked, WRITER, 9) == names
    assert task.validate(model) < 1.0


def test_equal_vectors_are_remembered_once_with_what_they_lack():
    same = [food("Figs", (1.0, float("nan"))), food("Figs, raw", (1.0, float("nan")))]
    assert distinct(same) == same[:1]


def test_the_nearest_row_is_so_by_what_both_know():
    rows = [(1.0, nan, 1.0), (5.0, 5.0, nan), (nan, 9.0, 2.0)]
    asked = [(nan, 5.5, 9.0), (1.0, nan, nan), (nan, nan, 2.0)]
    assert nearest_vectors(rows, asked) == [1, 0, 2]


# -- a file of one's own ----------------------------------------------------------------------


def rows(count=60, gaps=True):
    return [
        Described(("a", "b"), (float(n), nan if gaps and n % 5 == 0 else n / 2), f"text {n}")
        for n in range(count)
    ]


def prepared(examples, *assignments):
    recipe = default_recipe("vec2seq").with_value("data.files", "a.csv").overridden(assignments)
    splits = Splits(examples, examples[:5], examples[5:10])
    return TASKS["vec2seq"].prepare(recipe, splits, seed=1)


def test_empty_cells_make_a_model_that_reads_unknown_values():
    found = prepared(rows())
    assert found.limits[UNKNOWN_VALUES] == 1
    assert found.recipe.task["unknown_fields"] == 0.3
    assert found.training.fields == FieldDropout(2, 0.3)
    assert (
        "rows have empty cells, and some values of 30% are hidden" in dict(found.facts)["unknown"]
    )
    model = found.build(found.config)
    assert found.training.validate(model.eval()) > 0


def test_without_empty_cells_none_is_read_unless_the_recipe_says_so():
    found = prepared(rows(gaps=False))
    assert UNKNOWN_VALUES not in found.limits
    assert not found.config.unknown
    assert prepared(rows(gaps=False), "task.unknown_fields=0.5").limits[UNKNOWN_VALUES] == 1


def test_empty_cells_that_the_recipe_excludes_are_refused():
    with pytest.raises(DataInvalid, match="unknown_fields is 0, and 14 rows have an empty number"):
        prepared(rows(), "task.unknown_fields=0")
    with pytest.raises(DataInvalid, match="choose a share from 0 to 1"):
        prepared(rows(), "task.unknown_fields=2")


def test_what_is_held_out_is_kept_with_what_it_lacks():
    task, example = TASKS["vec2seq"], rows(1)[0]
    back = task.example_from_json(json.loads(json.dumps(task.example_to_json(example))))
    assert (back.names, back.text, back.values[0]) == (example.names, example.text, 0.0)
    assert isnan(back.values[1])
    assert task.shown(example.values, "said") == ("0, unknown", "said")
