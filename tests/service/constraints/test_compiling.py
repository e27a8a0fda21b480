import itertools
import random
import re
import resource

import numpy as np
import pytest

from bundle.tokenizer import WORD_BEGIN, Tokenizer
from bundle.vocabulary import ListedVocabulary, Vocabulary
from service.constraints.compiling import CompileLimits, Compiler
from service.constraints.lexicon import Lexicon
from service.constraints.patterns import check
from service.engine.automaton import CHOICES, JSON_SCHEMA, REGEX, ConstraintSpec
from service.engine.errors import ConstraintFailed, Overloaded, WrongInput

LETTERS = "abcdefghijklmnopqrstuvwxyz ,."


def lexicon(kind, symbols, has_markers=False):
    vocabulary = Vocabulary(tuple(symbols), has_markers)
    codec = Tokenizer(kind, vocabulary)
    end_id = vocabulary.end_id if has_markers else None
    return Lexicon.of(codec, len(vocabulary), end_id, vocabulary.never_sampled_ids), codec


CHARACTERS, CHARACTER_CODEC = lexicon("characters", LETTERS)


@pytest.fixture(scope="module")
def compiler():
    return Compiler(CompileLimits())


def regex(pattern):
    return ConstraintSpec(REGEX, (pattern,))


def choices(*texts):
    return ConstraintSpec(CHOICES, texts)


def processor_seconds_of_children():
    """Of those that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def walk(automaton, codec, seed, most=200):
    """A random text, and its tokens: it ends where it must, or may by the throw of a coin."""
    choose, state, tokens = random.Random(seed), 0, []
    while not automaton.is_complete(state) and len(tokens) < most:
        if automaton.accepts(state) and choose.random() < 0.3:
            break
        tokens.append(int(choose.choice(np.flatnonzero(automaton.mask(state) == 0))))
        if tokens[-1] == automaton.end_id:
            tokens.pop()
            break
        state = automaton.next(state, tokens[-1])
    return codec.decode(tokens), automaton.accepts(state)


PATTERNS = (
    "ab+c?", "(foo|bar)( (foo|bar)){0,3}", "[a-f]{3,5}", "^the (cat|dog)s?\\.$", ".{2,4}",
    "(a|b,)c", "\\w+(, \\w+)*", "(?i)Hello", "a\\.b|c", "x{2}y*z",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_texts_match_as_a_whole(compiler, pattern):
    automaton = compiler.compile(regex(pattern), CHARACTERS)
    texts = [walk(automaton, CHARACTER_CODEC, seed) for seed in range(60)]
    assert any(is_whole for _, is_whole in texts)
    for text, is_whole in texts:
        assert not is_whole or re.fullmatch(pattern, text), text


@pytest.mark.parametrize("pattern", ["a|ab|abc", "(a|ab)(c|bcd)?", "a*?", "(b??|bb)a*"])
def test_no_alternative_hides_another(compiler, pattern):
    """Every text that matches as a whole can be made, whichever way would be taken first."""
    automaton = compiler.compile(regex(pattern), CHARACTERS)
    made = {walk(automaton, CHARACTER_CODEC, seed)[0] for seed in range(300)}
    every = ("".join(letters) for n in range(5) for letters in itertools.product("abcd", repeat=n))
    assert made >= {text for text in every if re.fullmatch(pattern, text) and len(text) < 4}


def test_words_keep_their_spaces(compiler):
    """The first word of a text has none before it, wherever the pattern begins again."""
    words, codec = lexicon("words", ("yes", "no", "maybe", "and"), has_markers=True)
    automaton = compiler.compile(regex("(yes|no)( and (yes|no))*"), words)
    texts = {walk(automaton, codec, seed)[0] for seed in range(40)}
    assert {"yes", "no", "yes and no"} <= texts
    again = compiler.compile(regex("(yes ?)+"), words)
    assert {walk(again, codec, seed)[0] for seed in range(20)} >= {"yes", "yes yes"}


def test_pieces_spell_a_text_in_every_way(compiler):
    symbols = (f"{WORD_BEGIN}un", "roll", "r", "o", "l", f"{WORD_BEGIN}", "u", "n")
    pieces, codec = lexicon("pieces", symbols, has_markers=True)
    automaton = compiler.compile(choices("unroll", "un roll"), pieces)
    texts = [walk(automaton, codec, seed)[0] for seed in range(60)]
    assert set(texts) == {"unroll", "un roll"}
    assert len(np.flatnonzero(automaton.mask(0) == 0)) > 1


def test_a_vocabulary_from_elsewhere_keeps_its_ids(compiler):
    vocabulary = ListedVocabulary(("<s>", "b", "a", "</s>"), special=(("bos", 0), ("eos", 3)))
    codec = Tokenizer("characters", vocabulary)
    listed = Lexicon.of(codec, 4, 3, vocabulary.never_sampled_ids)
    automaton = compiler.compile(regex("a+"), listed)
    assert automaton.mask(0).tolist() == [-np.inf, -np.inf, 0, -np.inf]
    assert automaton.mask(automaton.next(0, 2)).tolist() == [-np.inf, -np.inf, 0, 0]


def test_tokens_that_are_banned_are_no_part_of_it(compiler):
    a = CHARACTER_CODEC.encode("a").ids[0]
    automaton = compiler.compile(regex("(a|b)c"), CHARACTERS, frozenset({a}))
    assert walk(automaton, CHARACTER_CODEC, 0) == ("bc", True)
    with pytest.raises(WrongInput, match=r"less what the request bans, .* lacks 'a'"):
        compiler.compile(regex("ac"), CHARACTERS, frozenset({a}))


def test_ways_that_cannot_end_are_left_out(compiler):
    """b is followed by what the vocabulary lacks."""
    automaton = compiler.compile(regex("(a|b1)c"), CHARACTERS)
    assert {walk(automaton, CHARACTER_CODEC, seed)[0] for seed in range(20)} == {"ac"}


@pytest.mark.parametrize(
    ("pattern", "lacks"),
    [
        ("a;b", "';'"),
        ("caf(é|ée)", "'é'"),
        ("[0-9]{2}", "'0'"),
        ('\\{"x": [a-z]+\\}', "'{', '\"', ':', '}'"),
        ("[a-z]+!", "'!'"),
    ],
)
def test_what_cannot_be_spelt_is_refused_with_the_symbols(compiler, pattern, lacks):
    with pytest.raises(WrongInput, match=f"lacks {re.escape(lacks)};"):
        compiler.compile(regex(pattern), CHARACTERS)


def test_words_that_are_missing_are_named(compiler):
    words, _ = lexicon("words", ("yes", "no"), has_markers=True)
    with pytest.raises(WrongInput, match="lacks 'maybe'"):
        compiler.compile(choices("maybe"), words)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("[^\\s\\S]", "can never be satisfied"),
        ("a[^\\s\\S]", "can never be satisfied"),
        ("()", "no text through but the empty one"),
        ("[a-z", "cannot be compiled"),
        ("a(?=b)", "no looking around"),
        ("(a)\\1", "backreferences"),
        ("^a$|^b$", "an anchor within"),
        ("a\\z", "an anchor within"),
    ],
)
def test_what_is_no_pattern_is_refused(compiler, pattern, says):
    with pytest.raises(WrongInput, match=says):
        compiler.compile(regex(pattern), CHARACTERS)


@pytest.mark.parametrize(
    "pattern",
    ["[ab]*a[ab]{25}", "((a{100}){100}){100}", "(.{1,1000}){1000}", "(\\w{1,500} ?){1,500}"],
)
def test_an_evil_pattern_is_refused_in_bounded_processor_time(pattern):
    """However long that takes on the clock of a busy machine."""
    before = processor_seconds_of_children()
    with pytest.raises(WrongInput, match="too many states"):
        Compiler(CompileLimits(seconds=1, patience=100)).compile(regex(pattern), CHARACTERS)
    assert processor_seconds_of_children() - before < 1.5


def test_a_pattern_that_gets_no_processor_is_no_wrong_one():
    """Nobody can tell what it would have taken, so its caller may try again."""
    with pytest.raises(Overloaded, match="no time to compile") as caught:
        Compiler(CompileLimits(patience=0.001)).compile(regex("a"), CHARACTERS)
    assert caught.value.retry_after_seconds > 0


def test_more_transitions_than_allowed_are_refused():
    with pytest.raises(WrongInput, match="too many states"):
        Compiler(CompileLimits(transitions=100)).compile(regex("[a-z]{10}"), CHARACTERS)


def test_a_compiler_that_is_closed_compiles_nothing_more():
    one = Compiler(CompileLimits())
    one.close()
    with pytest.raises(WrongInput):
        one.compile(regex("a"), CHARACTERS)


def test_a_process_that_breaks_says_so(monkeypatch, tmp_path):
    broken = tmp_path / "child.py"
    broken.write_text("raise SystemExit('no library')\n")
    monkeypatch.setattr("service.constraints.compiling._CHILD", broken)
    with pytest.raises(ConstraintFailed, match="no library"):
        Compiler(CompileLimits()).compile(regex("a"), CHARACTERS)


def test_the_same_pattern_has_the_same_states_in_every_process(compiler):
    one, other = (compiler.compile(regex("(ab|cd)+e?"), CHARACTERS) for _ in range(2))
    assert one.digest == other.digest


def test_a_choice_that_begins_another_needs_an_end_symbol(compiler):
    with pytest.raises(WrongInput, match="'yes' begins the choice 'yes, sir'"):
        compiler.compile(choices("yes", "yes, sir"), CHARACTERS)
    marked, codec = lexicon("characters", LETTERS, has_markers=True)
    automaton = compiler.compile(choices("yes", "yes, sir"), marked)
    assert {walk(automaton, codec, n)[0] for n in range(40)} == {"yes", "yes, sir"}


def test_the_longest_text_is_known(compiler):
    assert compiler.compile(regex("a{2,5}b?"), CHARACTERS).longest[0] == 6
    assert compiler.compile(regex("a{2,}b?"), CHARACTERS).longest[0] == 2**31 - 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (choices(), "holds 0 texts"),
        (choices(*"ab" * 600), "holds 1200 texts"),
        (choices("a", ""), "an empty text"),
        (choices("a" * 70_000), "has 70000 characters"),
        (regex(""), "is empty"),
        (regex("a" * 20_000), "has 20000 characters"),
        (ConstraintSpec(JSON_SCHEMA, ("",)), "is empty"),
    ],
)
def test_what_is_too_much_is_refused_before_it_is_compiled(spec, says):
    with pytest.raises(WrongInput, match=says):
        check(spec)


def test_marks_of_a_choice_stand_for_themselves(compiler):
    symbols = sorted(set("a+b*c?.^$|()[]{}\\-&&~#/\"' "))
    marks, codec = lexicon("characters", symbols)
    text = "(a+b)*[c?]{.}^$|\\-&&~#/\"'"
    automaton = compiler.compile(choices(text), marks)
    assert walk(automaton, codec, 0) == (text, True)
