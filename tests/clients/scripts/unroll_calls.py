"""The installed distribution of unroll/: both clients, the console script, and tritonclient beside.

python unroll_calls.py TARGET [tritonclient]
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path

warnings.simplefilter("error")

import unroll  # noqa: E402
from unroll import AsyncClient, Client, OptionInvalid, RequestFailed, Sampling  # noqa: E402

TEXTS = ["The food was not bad, great in fact", "the food is not good"]
PROMPT = {"prompt": "ROMEO:\n", "max_tokens": 40}


def check_the_distribution() -> None:
    """It is not the clone's folder, and holds the package alone."""
    assert "site-packages" in unroll.__file__, unroll.__file__
    assert unroll.__version__ == version("unroll")
    files = distribution("unroll").files or []
    folders = {file.parts[0] for file in files if file.suffix in (".py", ".pyi", ".typed")}
    assert folders == {"unroll"}, folders
    assert {"unroll/py.typed", "unroll/v1/unroll_pb2.pyi"} <= {str(file) for file in files}


def check_the_clients(target: str) -> None:
    with Client(target, timeout=60) as client:
        labels = [answer.best[0] for answer in client.classify("sentiment", TEXTS)]
        assert labels == ["positive", "negative"], labels
        sampling = Sampling(temperature=0.8, top_p=0.9, seed=1)
        text = "".join(c.text for c in client.generate("prose", sampling=sampling, **PROMPT))
        again = client.generate("prose", temperature=0.8, top_p=0.9, seed=1, **PROMPT)
        assert text == "".join(chunk.text for chunk in again)
        assert len(text) == 40, text
        refused = failure_of(lambda: client.generate("prose", resume_token=b"...", **PROMPT))
        assert isinstance(refused, OptionInvalid), refused
        failed = failure_of(lambda: client.classify("nothing", ["x"]))
        assert isinstance(failed, RequestFailed), failed
        assert failed.code == "NOT_FOUND"
    assert asyncio.run(generated(target)) == text


def failure_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except (OptionInvalid, RequestFailed) as failure:
        return failure
    return None


async def generated(target: str) -> str:
    async with AsyncClient(target, timeout=60) as client:
        chunks = client.generate("prose", temperature=0.8, top_p=0.9, seed=1, **PROMPT)
        return "".join([chunk.text async for chunk in chunks])


def check_the_command(target: str) -> None:
    command = [str(Path(sys.executable).with_name("unroll")), "--target", target]
    words = ["generate", "--model", "g2p", "--lines", "-", "--json", "--temperature", "0"]
    done = subprocess.run(
        [*command, *words], input="unrolled\nword\n", capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["source"] for answer in answers] == ["unrolled", "word"], done
    assert answers[1]["text"].split()[0] == "W", answers
    top = subprocess.run([*command, "top", "--help"], capture_output=True, text=True, check=True)
    assert "--interval" in top.stdout


def check_tritonclient(target: str) -> None:
    """In this very process, over the same modules of protobuf and grpc."""
    from tensors import batch_of_texts, texts_of
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(target) as client:
        answer = client.infer("sentiment", [batch_of_texts("text", *TEXTS)])
        assert texts_of(answer, "label") == ["positive", "negative"]


def main() -> None:
    target, *beside = filter(None, sys.argv[1:])
    print(*(f"{name} {version(name)}" for name in ("protobuf", "grpcio", "unroll")))
    check_the_distribution()
    check_the_clients(target)
    check_the_command(target)
    if beside:
        warnings.simplefilter("default")
        check_tritonclient(target)


if __name__ == "__main__":
    main()
