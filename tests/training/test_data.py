import hashlib
import random
import subprocess

import pytest

from tests.training.real import real
from training.data.cmudict import load_pronunciations, parse_dictionary, split_by_headword
from training.data.contrast import (
    HELD_OUT_WORDS,
    TRAINING_WORDS,
    VALIDATION_WORDS,
    make_sentences,
    make_swapped_pairs,
    make_unseen_pairs,
    make_validation_pairs,
    make_varied_sentences,
)
from training.data.packages import APT, NPM, PIP_SOURCE, DataPackage, DataUnavailable
from training.data.sentiment import (
    LECTURE_SENTENCES,
    NEAREST_ALLOWED,
    Example,
    fingerprint,
    is_far_from_lecture,
    load_held_out,
    load_movie_sentences,
    parse_rated_words,
    parse_reviews,
    parse_snippets,
    words_of,
)
from training.data.shakespeare import load_text, parse_play
from training.data.situations import make_situation
from training.metrics import edit_distance

PLAY = """# A Play

## Act 1

---

_Enter FIRST and SECOND_

**First Lord**
Who\\'s there? _[aside]_
  Stand, and unfold yourself.

No, answer me.

**Second Lord**
Long live the king\\!
"""


def test_a_play_becomes_speeches():
    """Headings, rules and stage directions go; a block without a speaker goes on speaking."""
    assert parse_play(PLAY) == (
        "First Lord:\nWho's there?\nStand, and unfold yourself.\nNo, answer me.\n"
        "\nSecond Lord:\nLong live the king!\n"
    )


def test_the_dictionary_keeps_variants_and_drops_stress():
    text = "hello HH AH0 L OW1\nhello(2) HH EH0 L OW1 # a comment\nhello(3) HH AH1 L OW0\n\n"
    assert parse_dictionary(text) == {
        "hello": [("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")],
    }


def test_headwords_are_split_by_themselves_alone():
    """Where a word falls does not depend on the other words, and every word falls somewhere."""
    words = {f"word{number}": [("W",)] for number in range(2000)}
    splits = split_by_headword(words)
    assert sum(len(split) for split in splits.values()) == 2000
    assert 150 < len(splits["held-out"]) < 250
    assert 60 < len(splits["validation"]) < 140
    few = dict(list(words.items())[:100])
    for name, split in split_by_headword(few).items():
        assert split.keys() <= splits[name].keys()


def test_reviews_of_one_source_are_read():
    lines = ["text,label,source", '"Fine,<br />really",1,imdb', "dull,0,rotten_tomatoes"]
    assert parse_reviews(lines, "imdb") == [Example("Fine, really", 1)]


def test_rated_words_are_those_that_people_were_sure_of():
    lines = "dull\t-1.7\t0.4\t[-2, -1]\n:-)\t2.0\t0.5\t[2]\nglad\t2.0\t0\t[2]\nodd\t-0.9\t1\t[0]"
    assert parse_rated_words(lines, least=1.0) == [
        Example("dull", 0, -1.7),
        Example("glad", 1, 2.0),
    ]


def test_snippets_are_numbered_and_rated():
    assert parse_snippets("12_3\t-1.5\tnot good\nbroken line\n7\t2\tgood") == [
        (12, -1.5, "not good"),
        (7, 2.0, "good"),
    ]


@pytest.mark.parametrize(
    ("text", "is_far"),
    [
        ("the food is not good", False),
        ("The movie is not great!", False),  # two words away
        ("the film was not great", True),  # three words away
        ("The service was not bad, great in fact", False),  # one word away
        ("the staff were not rude, lovely in fact", True),
        ("I paid too much. The 'victim' is not likable. Avoid it at all costs.", False),
        ("I paid too much. The end was not so likable. Avoid it at all costs.", True),
    ],
)
def test_sentences_near_the_lecture_are_kept_out(text, is_far):
    assert is_far_from_lecture(text) is is_far


@pytest.mark.parametrize("words", [TRAINING_WORDS, HELD_OUT_WORDS])
def test_made_sentences_stay_away_from_the_lecture(words):
    """No training sentence differs from a lecture sentence by fewer than three words."""
    made = make_sentences(words, 300, seed=5)
    for example in made:
        for sentence, _ in LECTURE_SENTENCES:
            distance = edit_distance(words_of(example.text), words_of(sentence))
            assert distance >= NEAREST_ALLOWED
    assert {example.label for example in made} == {0, 1}


def test_contrasts_that_choose_and_that_measure_use_words_of_their_own():
    lists = (TRAINING_WORDS, VALIDATION_WORDS, HELD_OUT_WORDS)
    for part in ("things", "praise", "blame"):
        words = [word for w in lists for word in getattr(w, part)]
        assert len(set(words)) == len(words)


def test_no_made_sentence_has_words_that_only_choose_or_measure():
    made = make_varied_sentences(TRAINING_WORDS, 4000, seed=2)
    used = {word for example in made for word in words_of(example.text)}
    for apart in (VALIDATION_WORDS, HELD_OUT_WORDS):
        assert not used & {*apart.things, *apart.praise, *apart.blame}


# How the ways of pairs that measure, and of those that choose, can be known.
CUES = (
    "anything but", "far from", "yet it", "rather than", "by no means", "we were told", "who says",
    "where others", "every bit as", "had warned", "it takes more", "the opposite of", "last word",
    "take back", ", now ",
)  # fmt: skip


def test_no_made_sentence_is_said_in_a_way_that_only_chooses_or_measures():
    judged = [*make_unseen_pairs(HELD_OUT_WORDS, 99, 1), *make_validation_pairs(99, 1)]
    assert sum(any(cue in pair[0].text for cue in CUES) for pair in judged) > 150
    for example in make_varied_sentences(TRAINING_WORDS, 4000, seed=3):
        assert not [cue for cue in CUES if cue in example.text]


def test_situations_are_labelled_by_what_happened():
    choose = random.Random(4)
    labels = {}
    for _ in range(3000):
        example = make_situation(choose)
        labels[example.text] = example.label
    assert 0.45 < sum(labels.values()) / len(labels) < 0.55
    for part, label in {
        "another free dessert": 1, "another delay": 0, "want my money back": 0,
        "worth every penny": 1, "not half bad": 1, "nothing special": 0,
    }.items():  # fmt: skip
        said = {labels[text] for text in labels if part in text}
        assert said == {label}, part
    assert not [text for text in labels if "{" in text]


def test_swapped_pairs_are_the_same_words_with_opposite_labels():
    """A bag of words sees no difference within a pair."""
    for positive, negative in make_swapped_pairs(HELD_OUT_WORDS, 50, seed=1):
        assert sorted(words_of(positive.text)) == sorted(words_of(negative.text))
        assert (positive.label, negative.label) == (1, 0)


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edit_distance(left, right, distance):
    assert edit_distance(left, right) == edit_distance(right, left) == distance


def package(content: bytes = b"data", **options: str) -> DataPackage:
    digest = hashlib.sha256(content).hexdigest()
    return DataPackage("no-such-package", "1.0", "file.whl", digest, "none", **options)


def test_a_package_that_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "file.whl").write_bytes(b"data")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert package().fetch(tmp_path) == tmp_path / "file.whl"


def test_a_package_with_another_hash_is_refused(tmp_path):
    (tmp_path / "file.whl").write_bytes(b"other")
    with pytest.raises(DataUnavailable, match="delete it and run again"):
        package().fetch(tmp_path)


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "no matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(DataUnavailable, match=r"no-such-package==1.0: no matching distribution"):
        package().fetch(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "-m pip download --quiet --no-deps no-such-package==1.0"),
        (
            {"fetched_with": PIP_SOURCE},
            "-m pip download --quiet --no-deps --no-binary no-such-package no-such-package==1.0",
        ),
        ({"fetched_with": NPM}, "pack --silent --ignore-scripts no-such-package@1.0"),
        ({"fetched_with": APT}, "download --quiet no-such-package=1.0"),
    ],
)
def test_a_package_comes_from_where_its_data_is(tmp_path, monkeypatch, options, words):
    """The tool runs in the folder of data, where it leaves the file."""

    def download(command, cwd, **_):
        assert " ".join(command[1:]) == words
        (cwd / "file.whl").write_bytes(b"data")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    assert package(**options).fetch(tmp_path / "new") == tmp_path / "new" / "file.whl"


def test_a_missing_tool_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataUnavailable, match="comes with npm, which is not installed"):
        package(fetched_with=NPM).fetch(tmp_path)


def test_a_download_that_leaves_no_file_is_an_error(tmp_path, monkeypatch):
    quiet = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: quiet)
    with pytest.raises(DataUnavailable, match=r"npm downloaded .* but not the file file.whl"):
        package(fetched_with=NPM).fetch(tmp_path)


@pytest.mark.real_data
def test_the_real_plays_have_the_known_size():
    text = real(load_text)
    assert (len(text), len(set(text))) == (1_132_211, 66)
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:")


@pytest.mark.real_data
def test_the_real_dictionary_has_the_known_size():
    words = real(load_pronunciations)
    assert len(words) == 126_052
    assert len({phone for variants in words.values() for v in variants for phone in v}) == 39


@pytest.mark.real_data
def test_the_real_sentences_are_split_without_leakage():
    """2,055 held-out sentences; none of their texts is among the 8,530 for training."""
    trained, held_out = real(load_movie_sentences), real(load_held_out)
    assert (len(trained), len(held_out)) == (8530, 2055)
    texts = {fingerprint(example.text) for example in trained}
    assert not texts & {fingerprint(example.text) for example in held_out}


def skeleton(text):
    """A made sentence without its things and its judgements: the rule that made it."""
    lists = (TRAINING_WORDS, HELD_OUT_WORDS)
    gone = {word for w in lists for words in (w.things, w.praise, w.blame) for word in words}
    gone |= {"was", "is", "it", "the"}
    return tuple(word for word in words_of(text) if word not in gone)


def test_unseen_pairs_swap_words_in_ways_that_training_does_not_know():
    """No bag of words separates a pair, and no rule of theirs makes a training sentence."""
    pairs = make_unseen_pairs(HELD_OUT_WORDS, 200, seed=1)
    assert len({positive.text for positive, _ in pairs}) == 200
    for positive, negative in pairs:
        assert sorted(words_of(positive.text)) == sorted(words_of(negative.text))
        assert (positive.label, negative.label) == (1, 0)
    trained = {skeleton(e.text) for e in make_varied_sentences(TRAINING_WORDS, 2000, seed=1)}
    unseen = {skeleton(example.text) for pair in pairs for example in pair}
    assert len(unseen) == 8
    assert not unseen & trained


def test_varied_sentences_are_labelled_by_what_they_mean():
    made = make_varied_sentences(TRAINING_WORDS, 300, seed=5)
    labels = {e.text: e.label for e in made}
    assert len(labels) == 300
    for text, label in labels.items():
        if text.startswith("instead of"):
            word = words_of(text)[-1]
            assert label == (word in TRAINING_WORDS.praise)
    assert any(text.startswith("instead of") for text in labels)
    assert all(is_far_from_lecture(text) for text in labels)
