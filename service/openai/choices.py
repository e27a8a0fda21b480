"""Choices as JSON: written piece by piece, with what never changes written once."""

from __future__ import annotations

import json
from base64 import b64encode

from unroll.v1 import unroll_pb2 as pb

# A string as JSON, ASCII alone: whatever splits lines, nothing in it does.
quoted = json.JSONEncoder().encode
NO_REASON = "null"
# The others are null: a stream that is handed over has not come to an end.
_REASONS = {
    pb.FINISH_REASON_END: '"stop"',
    pb.FINISH_REASON_STOP: '"stop"',
    pb.FINISH_REASON_LENGTH: '"length"',
    pb.FINISH_REASON_UNFINISHED: '"length"',
}
# What stands for minus infinity, which JSON has not; OpenAI's own.
_LEAST_LOG_PROBABILITY = -9999.0


def reason_of(end: pb.SampleEnd) -> str:
    return _REASONS.get(end.finish_reason, NO_REASON)


def number(value: float) -> str:
    """A log-probability, with the digits that a float32 has."""
    return f"{max(value, _LEAST_LOG_PROBABILITY):.9g}"


class LogProbabilities:
    """``logprobs`` of a choice. most: of the likeliest tokens beside each; 0 for none.

    offset: of the first token, in characters of the choice's text.
    """

    __slots__ = ("_most", "_numbers", "_offsets", "_texts", "_top", "offset")

    def __init__(self, most: int, offset: int = 0) -> None:
        self._most, self.offset = most, offset
        self._texts: list[str] = []
        self._numbers: list[str] = []
        self._top: list[str] = []
        self._offsets: list[str] = []

    def add(self, token: pb.Token) -> None:
        text = quoted(token.text)
        is_known = token.HasField("log_probability")
        value = number(token.log_probability) if is_known else "null"
        self._texts.append(text)
        self._numbers.append(value)
        self._offsets.append(str(self.offset))
        self.offset += len(token.text)
        if self._most:
            self._top.append(_top(token, text, value) if token.top else "null")

    def json(self) -> str:
        top = f"[{','.join(self._top)}]" if self._most else "null"
        return (
            f'{{"tokens":[{",".join(self._texts)}],"token_logprobs":[{",".join(self._numbers)}]'
            f',"top_logprobs":{top},"text_offset":[{",".join(self._offsets)}]}}'
        )


def _top(token: pb.Token, text: str, value: str) -> str:
    """The likeliest tokens and the one that was made; of those with one text, the likeliest."""
    found: dict[str, str] = {}
    for likely in token.top:
        found.setdefault(quoted(likely.text), number(likely.log_probability))
    found.setdefault(text, value)
    return "{" + ",".join(f"{key}:{each}" for key, each in found.items()) + "}"


class Choice:
    """One choice, or what one event brings of it."""

    __slots__ = ("_index", "_logprobs", "_reason", "_resume", "_texts")

    def __init__(self, index: int, logprobs: LogProbabilities | None) -> None:
        self._index, self._logprobs = index, logprobs
        self._texts: list[str] = []
        self._reason = NO_REASON
        self._resume: pb.ResumePoint | None = None

    def add(self, token: pb.Token) -> None:
        self._texts.append(token.text)
        if self._logprobs is not None:
            self._logprobs.add(token)

    def end(self, end: pb.SampleEnd) -> None:
        self._reason = reason_of(end)

    def resume(self, point: pb.ResumePoint) -> None:
        """The last one counts."""
        self._resume = point

    def json(self) -> str:
        logprobs = "null" if self._logprobs is None else self._logprobs.json()
        resume = "" if self._resume is None else _resume(self._resume)
        return (
            f'{{"index":{self._index},"text":{quoted("".join(self._texts))},"logprobs":{logprobs}'
            f',"finish_reason":{self._reason}{resume}}}'
        )


def _resume(point: pb.ResumePoint) -> str:
    token = b64encode(point.token).decode()
    return f',"resume_token":"{token}","next_position":{point.next_position}'


class Usage:
    """Tokens of all prompts' calls together."""

    def __init__(self) -> None:
        self._prompt = self._completion = self._cached = 0

    def add(self, usage: pb.Usage) -> None:
        self._prompt += usage.input_tokens
        self._completion += usage.output_tokens
        self._cached += usage.cached_tokens

    def json(self) -> str:
        return (
            f'{{"prompt_tokens":{self._prompt},"completion_tokens":{self._completion}'
            f',"total_tokens":{self._prompt + self._completion}'
            f',"prompt_tokens_details":{{"cached_tokens":{self._cached}}}}}'
        )
