"""Tokenizers that give a text back as it was."""

import json

import pytest

from bundle.tokenizer import Tokenizer
from training.readers import DataInvalid
from training.subwords import learn_subwords, learn_words, read_tokenizer_json

TEXTS = [
    'The man went to the town.\n\n    The woman, "Ada", stayed; it\'s well-made!\n',
    "the town  and the\tman\nThe end",
]


def round_trip(tokenizer, text):
    ids = tokenizer.encode(text).ids
    # Whatever stands before: a text that goes on is no beginning.
    return "".join(tokenizer.piece(token, first=False) for token in ids)


@pytest.mark.parametrize("learn", [learn_words, learn_subwords])
@pytest.mark.parametrize("has_markers", [False, True])
def test_a_text_comes_back_as_it_was(learn, has_markers):
    tokenizer = learn(TEXTS, 200, has_markers)
    for text in (*TEXTS, "Ada went   on\n", " begins with a space"):
        known = "".join(c for c in text if c in "".join(TEXTS))
        assert round_trip(tokenizer, known) == known
    assert tokenizer.vocabulary.has_markers == has_markers


def test_words_keep_the_space_before_them():
    tokenizer = learn_words(TEXTS, 200, has_markers=False)
    assert tokenizer.split("The man, it's") == ["The", "▁man", ",", "▁it's"]


def test_a_word_that_the_vocabulary_lacks_is_spelled():
    tokenizer = learn_words(["the man the man"] * 3, 20, has_markers=False)
    assert tokenizer.split("the then") == ["the", "▁the", "n"]
    assert tokenizer.encode("the then").unknown == 0


def test_frequent_words_are_kept_within_the_vocabularys_size():
    texts = [f"word{n} often often" for n in range(100)]
    tokenizer = learn_words(texts, 40, has_markers=True)
    assert len(tokenizer.vocabulary) <= 40
    assert "▁often" in tokenizer.vocabulary


def test_a_piece_of_a_text_is_read_as_within_it():
    """Held-out texts are cut between tokens: what was read is what is read again."""
    tokenizer = learn_subwords(TEXTS * 5, 120, has_markers=False)
    symbols = tokenizer.split(TEXTS[0])
    for place in range(1, len(symbols)):
        assert tokenizer.split(tokenizer.join(symbols[place:])) == symbols[place:]


def tokenizer_json(folder, **content):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": [], **content}))
    return path


def test_the_pieces_of_a_byte_level_tokenizer_are_taken(tmp_path):
    """Ġ is a space, Ċ a line end; what is no whole character is left out."""
    path = tokenizer_json(
        tmp_path,
        model={"type": "BPE", "vocab": {"the": 0, "Ġman": 1, "Ċ": 2, "Ã": 3, "<s>": 4, "Ġgone": 5}},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
        added_tokens=[{"content": "<s>", "special": True}],
    )
    tokenizer = read_tokenizer_json(path, ["the man\nthe man"], has_markers=False)
    assert tokenizer.split("the man\n") == ["the", "▁man", "\n"]
    assert "▁gone" not in tokenizer.vocabulary  # no text holds it
    assert "<s>" not in tokenizer.vocabulary


def test_the_pieces_of_a_wordpiece_tokenizer_are_taken(tmp_path):
    path = tokenizer_json(
        tmp_path,
        model={"type": "WordPiece", "vocab": {"man": 0, "##kind": 1, "the": 2}},
        normalizer={"type": "BertNormalizer", "lowercase": True},
    )
    tokenizer = read_tokenizer_json(path, ["The mankind"], has_markers=False)
    assert tokenizer.lowercase
    assert tokenizer.split("The mankind") == ["the", "▁man", "kind"]


def test_the_pieces_of_a_unigram_tokenizer_are_taken(tmp_path):
    path = tokenizer_json(
        tmp_path,
        model={"type": "Unigram", "vocab": [["▁the", -1.0], ["▁man", -2.0], ["<0x0A>", -9.0]]},
        pre_tokenizer={"type": "Metaspace"},
    )
    tokenizer = read_tokenizer_json(path, ["see the man"], has_markers=True)
    assert tokenizer.split("see the man") == ["s", "e", "e", "▁the", "▁man"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"vocab": 3}}', '{"model": []}'])
def test_what_is_no_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataInvalid, match=r"no tokenizer\.json of Hugging Face's tokenizers"):
        read_tokenizer_json(tmp_path / "tokenizer.json", ["a"], has_markers=False)


def test_a_tokenizer_of_subwords_is_kept_in_json():
    tokenizer = learn_words(TEXTS, 100, has_markers=True)
    again = Tokenizer.from_json(tokenizer.to_json(), tokenizer.vocabulary)
    assert again.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
