"""OpenAI's API by hand: requests over HTTP/1.1, and events as they come."""

import http.client
import json
from contextlib import contextmanager

WITHIN_SECONDS = 30
COMPLETIONS = "/v1/completions"


class Answer:
    """A whole response. content: of its JSON, None for another kind of body."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        self.content = json.loads(self.body) if is_json else None

    @property
    def error(self):
        return self.content["error"]

    @property
    def texts(self):
        """Of the choices, which are in the order of their indices."""
        choices = self.content["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(choices)))
        return [choice["text"] for choice in choices]


class Api:
    def __init__(self, target):
        self.target = target

    def request(self, method, path, body=None, headers=()):
        with self._sent(method, path, body, headers) as response:
            return Answer(response)

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, body, path=COMPLETIONS, **headers):
        """body: bytes as they are, or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, headers)

    def complete(self, **fields):
        """An answer that is none is a failure of the test."""
        answer = self.post(with_defaults(fields))
        assert answer.status == 200, answer.body
        return answer

    def refuse(self, status=400, **fields):
        answer = self.post(with_defaults(fields))
        assert answer.status == status, answer.body
        assert set(answer.error) == {"message", "type", "param", "code"}
        return answer.error

    def events(self, **fields):
        """The objects of a stream, to [DONE]."""
        with self.stream(**fields) as events:
            found = list(events)
        assert found[-1] == "[DONE]", found[-1]
        return [json.loads(event) for event in found[:-1]]

    @contextmanager
    def stream(self, **fields):
        """The data of each event as it comes; the caller leaves at the end of the block."""
        body = json.dumps(with_defaults({**fields, "stream": True})).encode()
        with self._sent("POST", COMPLETIONS, body, {}) as response:
            assert response.status == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-cache"
            yield _events(response)

    @contextmanager
    def _sent(self, method, path, body, headers):
        host, _, port = self.target.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN_SECONDS)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            yield response
            response.close()
        finally:
            connection.close()


def with_defaults(fields):
    """Of the tiny generator, where no other model is named."""
    if "model" in fields:
        return fields
    return {"model": "letters", "prompt": "abc", "max_tokens": 12, "seed": 7, **fields}


def _events(response):
    while line := response.readline():
        assert line.startswith(b"data: "), line
        assert response.readline() == b"\n"
        yield line[len(b"data: ") :].decode("ascii").rstrip("\n")


def texts_of(events):
    """What the events give each choice, by index."""
    texts = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts
