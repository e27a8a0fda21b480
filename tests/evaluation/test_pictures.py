"""What stands behind each picture of a card, and that a picture comes of it."""

import struct
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.confusion import (
    caption_of_confusion,
    draw_confusion,
    most_confused,
    shares,
    side_by_side,
)
from evaluation.losses import draw_losses, has_losses
from evaluation.pages import Evaluated, card_of
from evaluation.plots import Plot, draw_plots
from evaluation.results import Floor, Result
from evaluation.unit_picture import (
    UnitActivity,
    activity_over,
    caption_of_units,
    draw_units,
    drawn_of,
    lines_after,
)
from evaluation.units import (
    FEATURES,
    areas_under_roc,
    correlations,
    find_followers,
)
from tests import tiny
from training.checkpoint import Figure
from training.config import CardSettings, Published
from training.held_out import FigureName, HeldOut
from training.measurements import Measurement

LOSSES = {"train_loss": [3.0, 2.0, 1.5], "validation_loss": [2.5, 2.25, 2.375], "best_epoch": 2}
FACTS = {"seed": 1, "command": "none", "seconds": 90, "threads": 1, "parameters": 1_000}
NO_CARD = CardSettings()
NOTHING = HeldOut([], lambda answers: [])
PLAY = (
    "and so.\n\n" + "ROMEO:\nI say, go not!\n\nJULIET OF VERONA:\nO Romeo, stay\na while.\n\n" * 6
)


def size_of(path):
    """Width and height in pixels, from the header of a PNG file."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def feature(name):
    (found,) = (f for f in FEATURES if f.name == name)
    return found


@pytest.fixture(scope="module")
def mood(tmp_path_factory):
    trained = replace(tiny.classifier("mood"), training=FACTS)
    return tiny.export(trained, tmp_path_factory.mktemp("models") / "mood" / "1")


def card_with(bundle, pictures=(), card=NO_CARD, **fields):
    return card_of(Evaluated(bundle, NOTHING, (), card, **fields), pictures)


def having(bundle, **changes):
    """A bundle whose manifest says otherwise."""
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_losses_are_drawn(tmp_path, epochs):
    curve = [3.0 / (1 + epoch) for epoch in range(epochs)]
    training = {"train_loss": curve, "validation_loss": curve, "best_epoch": epochs}
    draw_losses(training, tmp_path / "loss.png")
    width, height = size_of(tmp_path / "loss.png")
    assert width > height > 100


def test_each_stage_has_a_plot_beside_the_last_ones(tmp_path):
    draw_losses(LOSSES, tmp_path / "one.png")
    draw_losses(LOSSES | {"earlier_stages": {"first": LOSSES}}, tmp_path / "two.png")
    (one, height), (two, same) = size_of(tmp_path / "one.png"), size_of(tmp_path / "two.png")
    assert two > one
    assert height == same


def test_a_card_shows_the_losses_and_does_not_print_them(mood, tmp_path):
    bundle = having(mood, training=FACTS | LOSSES)
    pictures = draw_plots(bundle, NO_CARD, Counter(), NOTHING, tmp_path)
    assert [picture.file for picture in pictures] == ["mood-loss.png"]
    assert min(size_of(tmp_path / "mood-loss.png")) > 100
    card = card_with(bundle, pictures)
    assert "](mood-loss.png)\n\nThe mean loss of each epoch" in card
    assert "parameters 1000, best_epoch 2" in card
    assert "train_loss" not in card
    assert "2.375" not in card


def test_a_card_says_what_an_earlier_stage_did_otherwise(mood):
    before = LOSSES | {"epochs": 5, "learning_rate": 0.003, "seed": 1}
    last = {"epochs": 2, "learning_rate": 0.001, "seed": 1, "earlier_stages": {"capped": before}}
    card = card_with(having(mood, training=FACTS | LOSSES | last))
    assert "Stage capped, before that: epochs 5, learning_rate 0.003\n" in card
    older = last | {"earlier_stages": {"capped": LOSSES}}
    assert "Stage" not in card_with(having(mood, training=FACTS | LOSSES | older))


def test_without_losses_there_is_nothing_to_draw(mood, tmp_path):
    assert not has_losses(FACTS | {"train_loss": [1.0]})
    assert draw_plots(mood, NO_CARD, Counter(), NOTHING, tmp_path) == []
    assert "## Pictures" not in card_with(mood)


def test_a_card_has_what_others_report_beside_what_was_served(mood):
    claim = Figure("MASE", 0.95, "", "M3: the 18 values", 9, "none")
    published = [
        Published("MASE", "M3", 0.863, "AutoETS", "somewhere"),
        Published("sMAPE", "M3", 13.85, "Theta", "elsewhere"),
    ]
    card = card_with(
        mood, results=[Result(claim, Measurement(0.949, 9, 0.9, 1.0, "bootstrap"))],
        published=published,
    )  # fmt: skip
    assert "| MASE | 0.863 | AutoETS | 0.9490 | M3: the 18 values | somewhere |" in card
    assert "| sMAPE | 13.85 | Theta | not measured | M3 | elsewhere |" in card


def test_floors_that_were_measured_now_stand_for_those_of_the_training(mood):
    kept = {"figure": "accuracy", "value": 1.0, "floor": "a guess", "split": "all"}
    known = having(mood, training=FACTS | {"floors": [kept]},
                   figures=(Figure("accuracy", 2.0, "%", "all", 9, "none"),))  # fmt: skip
    assert "| accuracy (%) | 1.00 | a guess | all |" in card_with(known)
    floor = Floor(FigureName("accuracy", "%", "all"), "ETS", Measurement(3.0, 9, 2.0, 4.0, "m"))
    card = card_with(known, floors=[floor])
    assert "| accuracy (%) | 3.00 | 2.00 to 4.00 | ETS | all |" in card
    assert "a guess" not in card


def test_a_card_goes_from_figures_to_pictures_weaknesses_data_and_training(mood):
    weak = CardSettings(weaknesses="It knows four words.")
    pictures = [Plot("One", "one.png", "First."), Plot("Two", "two.png", "Second.")]
    card = card_with(mood, pictures, weak)
    parts = (
        "## Figures", "## Pictures", "![One](one.png)\n\nFirst.", "![Two](two.png)\n\nSecond.",
        "## Known weaknesses", "## Data", "## Training",
    )  # fmt: skip
    places = [card.index(part) for part in parts]
    assert places == sorted(places)


# a is taken for b, b for c, and d and e for each other; f never for anything.
CONFUSION = Counter(
    {
        ("a", "a"): 6, ("a", "b"): 2, ("b", "b"): 7, ("b", "c"): 1, ("c", "c"): 5,
        ("d", "d"): 4, ("d", "e"): 4, ("e", "d"): 3, ("e", "e"): 1, ("f", "f"): 90,
    }
)  # fmt: skip


def test_the_most_confused_labels_are_not_the_most_frequent():
    """d and e take part in seven mistakes each, b in three, a in two, c in one, f in none."""
    assert most_confused(CONFUSION) == ["d", "e", "b", "a", "c"]
    assert most_confused(CONFUSION, 2) == ["d", "e"]


def test_shares_are_of_the_true_label():
    """The last column is of labels that are not shown, and a row that is not there is zero."""
    rows = shares(CONFUSION, ["a", "b", "x"])
    np.testing.assert_allclose(rows, [[6 / 8, 2 / 8, 0, 0], [0, 7 / 8, 0, 1 / 8], [0, 0, 0, 0]])


def test_labels_mistaken_for_each_other_stand_side_by_side():
    confusion = Counter({(label, label): 10 for label in "abcdef"})
    for pair in ("ad", "be", "cf"):
        confusion[pair[0], pair[1]] = 6
    confusion["d", "b"] = confusion["e", "c"] = 1
    assert side_by_side(confusion, list("abcdef")) == list("adbecf")
    assert side_by_side(confusion, ["d", "a"]) == ["a", "d"]


def test_a_confusion_is_described_and_drawn(tmp_path):
    confusion = Counter(
        {("nn", "jj"): 1_200, ("nn", "nn"): 3_600, ("``", "pp$$"): 3, ("jj", "jj"): 1}
    )
    text = caption_of_confusion(confusion)
    assert "| nn (noun) | jj (adjective) | 1,200 | 25.0% |\n| \\`\\` | pp$$ | 3 | 100.0% |" in text
    assert "| nn (noun) | nn (noun) |" not in text
    assert "Of 4 labels the 4 that" in text
    assert "100% of the 1,203 mistakes among 4,804 answers" in text
    draw_confusion(confusion, tmp_path / "confusion.png")
    assert min(size_of(tmp_path / "confusion.png")) >= 900


def test_a_card_shows_a_confusion_where_one_was_counted(mood, tmp_path):
    (picture,) = draw_plots(mood, NO_CARD, CONFUSION, NOTHING, tmp_path)
    assert picture.file == "mood-confusion.png"
    assert min(size_of(tmp_path / picture.file)) >= 900
    assert f"](mood-confusion.png)\n\n{picture.caption}" in card_with(mood, [picture])


def test_no_more_than_the_ten_most_frequent_confusions_are_listed():
    confusion = Counter({(f"true{n}", f"said{n}"): 100 + n for n in range(12)})
    rows = [
        line for line in caption_of_confusion(confusion).splitlines() if line.startswith("| true")
    ]
    assert rows[1].startswith("| true11 | said11 | 111 |")
    assert len(rows) == 1 + 10


def marked(name, text):
    """The characters of which a feature is so."""
    return "".join(c for c, so in zip(text, feature(name).measure(text), strict=True) if so)


def test_features_of_a_text():
    text = "so.\n\nROMEO:\nI say, go\nnow: well?\n\nTHE END\n"
    assert marked("inside a speaker's name", text) == "ROMEO:"
    assert marked("last character of a line", text) == ".\n:o?\nD"
    assert marked("inside a word", "'tis, I") == "'tisI"
    assert marked("after a sentence's end", "so. And") == ". "
    assert marked("in a clause after a comma", "I say, go\nnow: well") == ", go\nnow"
    assert list(feature("place in the line").measure("ab\n\nc")) == [0, 1, 2, 0, 0]
    assert list(feature("place in the clause").measure("ab,c\nd. e")) == [0, 1, 2, 0, 1, 2, 3, 0, 1]


def test_a_text_that_begins_with_a_speaker():
    assert marked("inside a speaker's name", "A:\nno\n\nB:\n\nC: so") == "A:B:"


def test_an_area_counts_pairs():
    """A unit in order, one against it, one that is constant, one that ranks 2.5 of 4 pairs."""
    is_so = np.array([True, False, True, False])
    activity = np.array([[1, 0, 5, 0.5], [0, 1, 5, 0.0], [1, 0, 5, 0.1], [0, 1, 5, 0.1]])
    np.testing.assert_allclose(areas_under_roc(activity, is_so), [1, 0, 0.5, 0.875])


def test_a_correlation_is_pearson_s():
    activity = np.random.default_rng(0).normal(size=(50, 3))
    quantity = activity @ [1.0, -2.0, 0.0]
    wanted = [np.corrcoef(unit, quantity)[0, 1] for unit in activity.T]
    np.testing.assert_allclose(correlations(activity, quantity), wanted)
    assert correlations(np.ones((50, 1)), quantity) == [0.0]


def made_up(text):
    """(characters, 6): unit 1 follows speakers, 3 falls along a line, 4 does the half it can."""
    random = np.random.default_rng(0)
    activity = random.uniform(-0.1, 0.1, (len(text), 6))
    activity[:, 1] += 0.8 * feature("inside a speaker's name").measure(text)
    activity[:, 3] -= 0.04 * feature("place in the line").measure(text)
    words = feature("inside a word").measure(text)
    activity[: len(text) // 2, 4] += 0.8 * words[: len(text) // 2]
    return activity


def test_the_unit_that_follows_a_feature_is_found():
    found = {f.feature.name: f for f in find_followers(PLAY, made_up(PLAY))}
    speaker, place = found["inside a speaker's name"], found["place in the line"]
    assert (speaker.unit, speaker.direction, speaker.score) == (1, "high", 1.0)
    assert (place.unit, place.direction) == (3, "falling")
    assert place.score < -0.9


def test_a_unit_is_not_scored_on_what_it_was_chosen_by():
    """Unit 4 follows words on the first half alone, which the second half shows."""
    found = {f.feature.name: f for f in find_followers(PLAY, made_up(PLAY))}
    word = found["inside a word"]
    assert word.unit == 4
    assert word.chosen_by == 1.0
    assert word.score == pytest.approx(0.5, abs=0.2)


def test_what_does_not_vary_has_no_follower():
    text = "ab ab ab ab"
    names = {f.feature.name for f in find_followers(text, made_up(text))}
    assert "inside a word" in names
    assert not names & {"inside a speaker's name", "last character of a line"}


def test_a_unit_is_drawn_once():
    followers = find_followers(PLAY, made_up(PLAY))
    twice = [followers[0], replace(followers[1], unit=followers[0].unit), *followers[2:]]
    units = [follower.unit for follower in drawn_of(twice)]
    assert len(units) == len(set(units)) > 1
    assert drawn_of(twice)[0] is followers[0]
    assert len(drawn_of(followers, 2)) == 2


def test_lines_begin_with_the_first_speaker():
    begin = PLAY.index("JULIET") - 5
    (start, first), (_, second), *_ = lines_after(PLAY, begin)
    assert (first, second) == ("JULIET OF VERONA:\n", "O Romeo, stay\n")
    assert PLAY[start:].startswith(first)
    assert lines_after("one\ntwo\nthree", 1, 1) == [(4, "two\n")]


def test_units_are_described_and_drawn(tmp_path):
    activity = made_up(PLAY)
    units = UnitActivity(PLAY, activity, 3, find_followers(PLAY, activity))
    text = caption_of_units(units)
    wanted = "| inside a speaker's name | layer 1, unit 2 | high | area under the ROC curve | 1.000"
    assert wanted in text
    assert "| place in the line | layer 2, unit 1 | falling | correlation |" in text
    assert "Of all 6 units" in text
    draw_units(units, tmp_path / "units.png")
    width, height = size_of(tmp_path / "units.png")
    assert 900 < width < 1400
    assert height > 500


def test_a_models_activity_is_of_all_its_layers():
    """The last character's outputs are the h of each layer that the model carries on."""
    trained = tiny.generator("letters")
    units = activity_over(trained, "abc def")
    assert units.size == 13
    assert units.activity.shape == (7, 26)
    tokens = torch.tensor([tiny.LETTER_READER.encode("abc def").ids])
    with torch.no_grad():
        _, (h_0, _, h_1, _) = trained.build()(tokens)
    wanted = torch.cat((h_0, h_1), dim=1)[0]
    torch.testing.assert_close(torch.from_numpy(units.activity[-1]), wanted)


def test_only_what_writes_on_has_an_activity():
    with pytest.raises(TypeError, match="mood"):
        activity_over(tiny.classifier("mood"), "good food")
