"""What the Brown corpus's tags stand for."""

from __future__ import annotations

# Those that many words have; punctuation speaks for itself.
_MEANINGS = {
    "abn": "all, both, half",
    "ap": "many, next, other",
    "at": "article",
    "cc": "coordinating conjunction",
    "cd": "cardinal number",
    "cs": "subordinating conjunction",
    "dt": "this, that, each",
    "in": "preposition",
    "jj": "adjective",
    "jjr": "comparative adjective",
    "jjt": "superlative adjective",
    "md": "modal verb",
    "nn": "noun",
    "nn$": "possessive noun",
    "nns": "plural noun",
    "nns$": "possessive plural noun",
    "np": "proper noun",
    "np$": "possessive proper noun",
    "nps": "plural proper noun",
    "nr": "noun as adverb: home, Monday",
    "od": "ordinal number",
    "pn": "nominal pronoun: nobody",
    "pp$": "possessive pronoun",
    "ppo": "pronoun as object",
    "pps": "he, she, it",
    "ppss": "I, we, you, they",
    "ql": "qualifier: very",
    "rb": "adverb",
    "rbr": "comparative adverb",
    "rp": "particle: up, out",
    "to": "before a verb",
    "uh": "interjection",
    "vb": "verb, base form",
    "vbd": "verb, past tense",
    "vbg": "verb in -ing",
    "vbn": "past participle",
    "vbz": "verb, third person",
    "wdt": "what, which",
    "wps": "who, that",
    "wrb": "how, when, where",
}


def meaning_of(label: str) -> str:
    """Empty where none is known, as of labels that are words themselves."""
    return _MEANINGS.get(label, "")
