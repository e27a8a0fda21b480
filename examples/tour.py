"""A short tour of the service through real gRPC calls, with a server of its own.

python -m examples.tour [--stay] [--target HOST:PORT]

Starts ``python -m service serve``, waits until it is ready, shows one call of each kind with
the command that repeats it, then stops the server (or, with --stay, serves until Ctrl-C).
Exits non-zero with the reason when anything fails. With --target it uses a running server.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import tee

from unroll.channel import DEFAULT_TARGET, target_of
from unroll.clients import Client
from unroll.output import print_stream
from unroll.types import Answer, Chunk, RequestFailed

LECTURE = (
    ("The food was not bad, great in fact", "positive"),
    ("The food was not great, bad in fact", "negative"),
    ("the food is not good", "negative"),
    (
        "The food was not good, surprisingly instead of the ratings for the restaurant being high",
        "negative",
    ),
)
SENTENCE = ("The man went to the bank", ("at", "nn", "vbd", "in", "at", "nn"))
# Each with words of which one is to be among the first told. The model chooses among words of the
# Bible in Basic English, which knows neither bank nor pharmacy.
BLANKS = (
    ("The man went to the ___ to withdraw money", ("town", "house")),
    (
        "The boy went to the ___ to purchase some medicines for his mother",
        ("town", "house"),
    ),
)
TOLD_WORDS = 6
NAMES = (("Sergei Ivanov", "Russian"), ("Hiroshi Tanaka", "Japanese"))
# 100 g of cheddar (USDA SR28), by the names of the model's vector_fields.
CHEDDAR = {
    "Protein (g)": 22.87,
    "Total lipid (fat) (g)": 33.31,
    "Carbohydrate, by difference (g)": 3.09,
    "Ash (g)": 3.71,
    "Energy (kcal)": 404,
    "Water (g)": 37.02,
    "Energy (kJ)": 1689,
    "Calcium, Ca (mg)": 710,
    "Iron, Fe (mg)": 0.14,
    "Magnesium, Mg (mg)": 27,
    "Phosphorus, P (mg)": 455,
    "Potassium, K (mg)": 76,
    "Sodium, Na (mg)": 653,
    "Zinc, Zn (mg)": 3.64,
    "Copper, Cu (mg)": 0.03,
    "Vitamin A, IU (IU)": 1242,
    "Thiamin (mg)": 0.029,
    "Riboflavin (mg)": 0.428,
    "Niacin (mg)": 0.059,
    "Vitamin B-6 (mg)": 0.066,
    "Folate, total (µg)": 27,
    "Vitamin B-12 (µg)": 1.1,
    "Cholesterol (mg)": 99,
    "Fatty acids, total saturated (g)": 18.867,
    "Fatty acids, total monounsaturated (g)": 9.246,
    "Fatty acids, total polyunsaturated (g)": 1.421,
}
WORD = "unrolled"
# The first of the verses that no translator here was trained on, with a word it is to say.
VERSE = ("In the beginning, God created the heavens and the earth.", "Dios")
PROMPT = "ROMEO:\n"
PROSE_CHARACTERS = 200
SEED = 7
START_SECONDS = 60
# Nobody else sends calls that would have to hear first that it stops.
_SERVE = (sys.executable, "-m", "service", "serve", "--propagation-seconds", "0")
STOPPED_BY_USER = 130


class TourFailed(Exception):
    pass


def tour(client: Client) -> None:
    """Raises TourFailed when an answer is wrong, RequestFailed when a call fails.

    A model that the server does not know is left out, and named at the end; one whose bundle
    it refused fails the tour.
    """
    listed = client.list_models()
    known = {model.name for model in (*listed.models, *listed.refused_models)}
    stops: tuple[tuple[str, Callable[[Client], None]], ...] = (
        ("sentiment", _classify),
        ("nationality", _place_names),
        ("pos", _tag),
        ("pos-online", _tag_as_they_come),
        ("cloze", _fill),
        ("g2p", _pronounce),
        ("translate", _translate),
        ("food", _name_food),
        ("prose", _write),
    )
    for model, show in stops:
        if model in known:
            show(client)
    missing = [model for model, _ in stops if model not in known]
    rest = f" Not here, so not shown: {', '.join(missing)}." if missing else ""
    print(f"\nThe tour is over: every call was answered.{rest}", flush=True)


def _classify(client: Client) -> None:
    texts = [text for text, _ in LECTURE]
    _show("python -m unroll classify --model sentiment " + shlex.join(texts))
    answers = client.classify("sentiment", texts)
    for (text, expected), answer in zip(LECTURE, answers, strict=True):
        label, probability = answer.best
        print(f"  {label} {probability:.3f}  {text}")
        if label != expected:
            raise TourFailed(f"sentiment calls {text!r} {label}, the lecture calls it {expected}")


def _place_names(client: Client) -> None:
    names = [name for name, _ in NAMES]
    _show("python -m unroll classify --model nationality " + shlex.join(names))
    answers = client.classify("nationality", names)
    for (name, expected), answer in zip(NAMES, answers, strict=True):
        label, probability = answer.best
        print(f"  {label} {probability:.3f}  {name}")
        if label != expected:
            raise TourFailed(f"nationality calls {name!r} {label}, not {expected}")


def _tag(client: Client) -> None:
    text, expected = SENTENCE
    _show("python -m unroll tag --model pos " + shlex.quote(text))
    (tagged,) = client.tag("pos", [text])
    print("  " + " ".join(f"{token.text}/{token.label}" for token in tagged.tokens))
    labels = tuple(token.label for token in tagged.tokens)
    if labels != expected:
        raise TourFailed(f"pos tags {text!r} {' '.join(labels)}, not {' '.join(expected)}")


def _tag_as_they_come(client: Client) -> None:
    """One word a request: each label is there before the next word is sent."""
    text, expected = SENTENCE
    words = text.split()
    _show(f"echo {shlex.quote(text)} | python -m unroll stream-tag --model pos-online")
    chunks = client.stream_tag("pos-online", ([word] for word in words))
    labels = []
    for token in (token for chunk in chunks for token in chunk.tokens):
        print(f"  {token.text}\t{token.label} {token.probability:.3f}", flush=True)
        labels.append(token.label)
    if len(labels) != len(expected):
        raise TourFailed(f"pos-online answered {len(labels)} of {len(words)} words")


def _fill(client: Client) -> None:
    texts = [text for text, _ in BLANKS]
    _show(f"python -m unroll fill --model cloze --top {TOLD_WORDS} " + shlex.join(texts))
    blanks = client.fill("cloze", texts, top=TOLD_WORDS)
    for (text, expected), blank in zip(BLANKS, blanks, strict=True):
        words = [word for word, _ in blank.words]
        print(f"  {text}\n      {' '.join(words)}")
        if not set(words).intersection(expected):
            raise TourFailed(f"cloze fills {text!r} with none of {', '.join(expected)}")


def _name_food(client: Client) -> None:
    fields = client.get_model("food").vector_fields
    vector = [CHEDDAR.get(field, 0.0) for field in fields]
    values = ",".join(f"{value:g}" for value in vector)
    _show(f"python -m unroll generate --model food --vector {values} --temperature 0")
    answer = _print(client.generate("food", vector=vector, temperature=0))
    if answer is None or answer.reason != "end":
        raise TourFailed(f"food did not come to the end of a name: {answer}")


def _pronounce(client: Client) -> None:
    _show(f"python -m unroll generate --model g2p --source {WORD}")
    answer = _print(client.generate("g2p", source=WORD))
    if answer is None or answer.reason != "end":
        raise TourFailed(f"g2p did not come to the end of {WORD!r}: {answer}")


def _translate(client: Client) -> None:
    verse, expected = VERSE
    _show(
        f"python -m unroll generate --model translate --source {shlex.quote(verse)} --temperature 0"
    )
    shown, kept = tee(client.generate("translate", source=verse, temperature=0))
    answer = _print(shown)
    written = "".join(chunk.text for chunk in kept)
    if answer is None or answer.reason != "end" or expected not in written:
        raise TourFailed(f"translate wrote {written!r}, which does not say {expected!r}: {answer}")


def _write(client: Client) -> None:
    _show(
        "python -m unroll generate --model prose "
        f"--prompt $'{PROMPT.strip()}\\n' --max-tokens {PROSE_CHARACTERS} "
        f"--temperature 0.7 --seed {SEED} --echo"
    )
    chunks = client.generate(
        "prose",
        prompt=PROMPT,
        max_tokens=PROSE_CHARACTERS,
        temperature=0.7,
        seed=SEED,
        echo=True,
    )
    answer = _print(chunks)
    if answer is None or answer.output_tokens != PROSE_CHARACTERS:
        raise TourFailed(f"prose did not write {PROSE_CHARACTERS} characters: {answer}")


def _print(chunks: Iterable[Chunk]) -> Answer | None:
    """As the command does, its note on standard output too."""
    return print_stream(chunks, notes=sys.stdout)


def _show(command: str) -> None:
    print(f"\n$ {command}", flush=True)


def refuse_another_server(client: Client, target: str) -> None:
    """Raises TourFailed where a server answers already: the tour would be about that one."""
    try:
        client.list_models()
    except RequestFailed:
        return
    raise TourFailed(f"a server answers on {target} already; stop it, or tour it with --target")


def own_address(environment: Mapping[str, str]) -> str:
    """Where a server of the tour's own listens: where UNROLL_ADDRESS says, as any server's.

    Raises TourFailed for an address at which it could not be found.
    """
    address = environment.get("UNROLL_ADDRESS") or DEFAULT_TARGET
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not int(port):
        raise TourFailed(f"UNROLL_ADDRESS is {address!r}; the tour needs HOST:PORT, no port 0")
    return address


def wait_until_ready(client: Client, server: subprocess.Popen[bytes] | None) -> None:
    """Raises TourFailed when the server ends or is not ready within START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server is not None and server.poll() is not None:
            raise TourFailed(f"the server ended with exit code {server.returncode}")
        try:
            client.list_models()
            return
        except RequestFailed as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(0.1)
    raise TourFailed(f"the server was not ready within {START_SECONDS} seconds")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Raises TourFailed unless SIGTERM makes the server exit with 0."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(START_SECONDS)
    except subprocess.TimeoutExpired as error:
        server.kill()
        raise TourFailed(f"the server did not end within {START_SECONDS} seconds") from error
    if code != 0:
        raise TourFailed(f"the server ended with exit code {code}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.tour")
    parser.add_argument("--stay", action="store_true", help="serving goes on until Ctrl-C")
    parser.add_argument("--target", help="running server, HOST:PORT (default: a server of its own)")
    chosen = parser.parse_args(arguments)
    # SIGTERM is to end the server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = None
    try:
        address = own_address(os.environ)
        target = chosen.target or target_of(address)
        with Client(target, timeout=START_SECONDS) as client:
            if not chosen.target:
                refuse_another_server(client, target)
                server = subprocess.Popen([*_SERVE, "--address", address])
            wait_until_ready(client, server)
            tour(client)
        if server is not None:
            if chosen.stay:
                print(f"Serving on {target} until Ctrl-C.", flush=True)
                server.wait()
            stop(server)
    except (TourFailed, RequestFailed) as error:
        print(f"the tour failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C reaches the server as well, which then finishes its streams.
        return 0 if chosen.stay else STOPPED_BY_USER
    finally:
        if server is not None and server.poll() is None:
            server.terminate()
            server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
