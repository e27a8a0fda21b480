"""What a load generator reads with tritonclient around a load: the difference is what was sent.

python triton_statistics.py HOST:PORT
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from refusals import refused
from tensors import batch_of_texts, is_final, one_text
from tritonclient.grpc import InferenceServerClient

REQUESTS, CLIENTS, TEXTS, TOKENS = 60, 6, 3, 8
WITHIN_SECONDS = 60

Send = Callable[[InferenceServerClient, int], None]


def classify(client: InferenceServerClient, requests: int) -> None:
    inputs = [batch_of_texts("text", "very good", "not good", "the food was cold")]
    for _ in range(requests):
        client.infer("sentiment", inputs)


def write(client: InferenceServerClient, requests: int) -> None:
    """All of them on one stream."""
    answers: queue.Queue[tuple] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for _ in range(requests):
        inputs, parameters = [one_text("prompt", "A")], {"max_tokens": TOKENS, "seed": 1}
        client.async_stream_infer("prose", inputs, parameters=parameters)
    while requests:
        result, error = answers.get(timeout=WITHIN_SECONDS)
        assert result is not None, error
        requests -= is_final(result)
    client.stop_stream()


def be_refused(client: InferenceServerClient, requests: int) -> None:
    for _ in range(requests):
        with refused("INVALID_ARGUMENT"):
            client.infer("sentiment", [batch_of_texts("text", "")])


def load(
    target: str, model: str, send: Send, requests: int = REQUESTS, clients: int = CLIENTS
) -> dict[str, int]:
    """What the model's statistics gain by so many requests of several clients at once."""
    shares = [requests // clients] * clients
    with InferenceServerClient(target) as client:
        assert client.get_model_metadata(model).name == model
        assert client.get_model_config(model).config.name == model
        before = statistics_of(client, model)
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda share: send_from(target, send, share), shares))
        after = statistics_of(client, model)
    gained = {name: after[name] - before[name] for name in before}
    print(f"{model} after {requests} requests: {gained}")
    assert after["last_inference"] >= before["last_inference"]
    return gained


def send_from(target: str, send: Send, requests: int) -> None:
    with InferenceServerClient(target) as client:
        send(client, requests)


def statistics_of(client: InferenceServerClient, model: str) -> dict[str, int]:
    (found,) = client.get_inference_statistics(model).model_stats
    stats, batches = found.inference_stats, found.batch_stats
    return {
        "success": stats.success.count,
        "fail": stats.fail.count,
        "queue": stats.queue.count,
        "compute_input": stats.compute_input.count,
        "compute_infer": stats.compute_infer.count,
        "compute_output": stats.compute_output.count,
        "nanoseconds": stats.success.ns,
        "inferences": found.inference_count,
        "executions": found.execution_count,
        "batches": sum(batch.compute_infer.count for batch in batches),
        "rows": sum(batch.batch_size * batch.compute_infer.count for batch in batches),
        "last_inference": found.last_inference,
    }


def check_answered(gained: dict[str, int], inferences: int, rows: int) -> None:
    """rows: of all batches that ran."""
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    assert {gained[name] for name in ("success", *phases)} == {REQUESTS}
    assert gained["fail"] == 0
    assert gained["inferences"] == inferences
    assert gained["rows"] == rows
    assert gained["batches"] == gained["executions"] <= rows
    assert gained["nanoseconds"] > 0


def main(target: str) -> None:
    texts = REQUESTS * TEXTS
    check_answered(load(target, "sentiment", classify), inferences=texts, rows=texts)
    tokens = REQUESTS * TOKENS
    check_answered(load(target, "prose", write), inferences=REQUESTS, rows=tokens)
    gained = load(target, "sentiment", be_refused, requests=2, clients=1)
    assert (gained["fail"], gained["success"], gained["inferences"]) == (2, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
