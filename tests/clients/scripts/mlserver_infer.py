"""MLServer's batch client over REST: one request a call, several as one batch, binary tensors.

python mlserver_infer.py HOST:PORT
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = Path(sys.executable).with_name("mlserver")
TEXTS = {
    "The food was not bad, great in fact": "positive",
    "The food was not great, bad in fact": "negative",
}


def infer(target: str, requests: list[str], *flags: str) -> list[dict]:
    """The responses to ``requests``, a line of JSON each, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder) / "requests.jsonl", Path(folder) / "responses.jsonl"
        given.write_text("".join(f"{line}\n" for line in requests))
        command = [str(COMMAND), "infer", "-u", target, "-m", "sentiment"]
        command += ["-i", str(given), "-o", str(answers), *flags]
        subprocess.run(command, check=True, timeout=60)
        responses = [json.loads(line) for line in answers.read_text().splitlines()]
    return sorted(responses, key=lambda each: each["parameters"]["batch_index"])


def request(text: str, tensor: str = "text") -> str:
    return json.dumps(
        {"inputs": [{"name": tensor, "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}
    )


def check_answers(target: str, *flags: str) -> None:
    responses = infer(target, [request(text) for text in TEXTS], *flags)
    assert len(responses) == len(TEXTS), responses
    for response, label in zip(responses, TEXTS.values(), strict=True):
        outputs = {output["name"]: output for output in response["outputs"]}
        print(flags, outputs["label"]["data"], outputs["probability"]["data"])
        assert outputs["label"]["data"] == [label]
        assert outputs["probabilities"]["shape"] == [1, 2]


def check_refusal(target: str) -> None:
    """A tensor that the model does not have: the reason arrives where its answer would."""
    good, bad = infer(target, [request(next(iter(TEXTS))), request("a", "nobody")], "-r", "1")
    print(bad)
    assert good["outputs"][0]["data"] == ["positive"]
    assert "nobody" in bad["error"]["msg"]


def main(target: str) -> None:
    check_answers(target)
    check_answers(target, "-s", "2")
    check_answers(target, "-b")
    check_refusal(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
