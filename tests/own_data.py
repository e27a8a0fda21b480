"""Small files as users have them, made by rule: what the tasks on files are tried with."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from pathlib import Path

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
TOPICS = {
    "billing": ("invoice", "charge", "refund", "card"),
    "shipping": ("parcel", "delivery", "courier", "address"),
    "login": ("password", "account", "reset", "locked"),
}
FILLERS = ["please", "help", "with", "the", "my", "is", "not", "again", "today", "problem"]
PEOPLE, PLACES = ("Ada", "Alan", "Grace", "Edsger"), ("Paris", "London", "Oslo", "Rome")


def write_all(folder: Path, rows: int = 90) -> Path:
    """Every file that docs/own-data.md names, in ``folder``."""
    write_tickets(folder / "tickets.csv", rows)
    write_texts(folder / "texts", rows // 3)
    (folder / "lines.txt").write_text("\n".join(sentences(rows)) + "\n")
    write_pairs(folder / "pairs.tsv", rows)
    write_conll(folder / "train.conll", rows)
    write_paints(folder / "paints.csv", rows)
    write_load(folder / "load.csv", folder / "load-to-come.csv", 4 * rows)
    write_gestures(folder / "gestures.csv", folder / "new-gestures.csv", rows)
    return folder


def gesture(is_nod: bool, frames: int, tremble: float = 0.0) -> list[str]:
    """x and y of each frame: a nod goes up and down, a shake of the head to and fro."""
    moved = [f"{math.sin(0.3 * time) + tremble * (time % 2):.3f}" for time in range(frames)]
    return [f"0.0,{value}" if is_nod else f"{value},0.0" for value in moved]


def write_gestures(path: Path, new: Path, count: int) -> None:
    choose, lines = random.Random(5), ["gesture,label,x,y"]
    for number in range(count):
        is_nod = number % 2 == 0
        tremble = choose.uniform(0, 0.2) * (number > 0)
        frames = gesture(is_nod, 8 + number % 5, tremble)
        lines += [f"g{number},{'nod' if is_nod else 'shake'},{frame}" for frame in frames]
    path.write_text("\n".join(lines) + "\n")
    new.write_text("\n".join(["x,y", *gesture(False, 10, 0.1)]) + "\n")


def write_load(path: Path, to_come: Path, rows: int) -> None:
    """An hourly load that follows the hour and the temperature; then its last two days, and six
    hours of which the temperature alone is known."""
    choose = random.Random(3)
    lines = []
    for number in range(rows):
        time = datetime(2024, 3, 1) + timedelta(hours=number)
        temp = 10 + number % 24 / 2
        kw = 18 + 6 * math.sin(2 * math.pi * number / 24) + choose.uniform(-1, 1) * (number > 1)
        lines.append((f"{time:%Y-%m-%dT%H:%M:%S}", f"{kw:.1f}" if number else "18.0", temp))
    head = "time,kw,temp"
    path.write_text("\n".join([head, *(f"{t},{kw},{temp}" for t, kw, temp in lines)]) + "\n")
    last = [f"{t},{kw},{temp}" for t, kw, temp in lines[-54:-6]]
    coming = [f"{t},,{temp}" for t, _, temp in lines[-6:]]
    to_come.write_text("\n".join([head, *last, *coming]) + "\n")


def write_tickets(path: Path, rows: int) -> None:
    lines = ["text,label"]
    choose = random.Random(1)
    for number in range(rows):
        label = list(TOPICS)[number % 3]
        words = [*choose.choices(FILLERS, k=4), *choose.sample(TOPICS[label], 2)]
        choose.shuffle(words)
        lines.append(f'"{" ".join(words)}, number {number}",{label}')
    path.write_text("\n".join(lines) + "\n")


def sentences(count: int) -> list[str]:
    choose = random.Random(2)
    return [
        f"the {choose.choice(('old', 'young', 'tall'))} {choose.choice(('man', 'woman'))} "
        f"{choose.choice(('went', 'came', 'ran'))} to the {choose.choice(('town', 'sea', 'wood'))} "
        f"at {choose.choice(ONES)} , and {choose.choice(ONES)} came too ."
        for _ in range(count)
    ]


def write_texts(folder: Path, count: int) -> None:
    """A file each: a heading, a blank line, sentences with indented lines among them."""
    folder.mkdir(exist_ok=True)
    lines = sentences(count * 4)
    for number in range(count):
        first, *others = lines[4 * number : 4 * number + 4]
        text = "\n".join(
            (f"Chapter {number}", "", first.capitalize(), *(f"    {o}" for o in others))
        )
        (folder / f"{number:03}.txt").write_text(text + "\n")


def spelled(number: int) -> str:
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    count, rest = divmod(number, size)
    return f"{spelled(count)} {name}" + (f" {spelled(rest)}" if rest else "")


def write_pairs(path: Path, rows: int) -> None:
    """Four numbers below ten thousand for each row; in the tiny files those of two digits."""
    numbers = range(100) if rows < 100 else random.Random(6).sample(range(10_000), 4 * rows)
    path.write_text("".join(f"{number}\t{spelled(number)}\n" for number in numbers))


def write_conll(path: Path, sentences: int) -> None:
    choose, blocks = random.Random(3), []
    for number in range(sentences):
        first, place = choose.choice(PEOPLE), choose.choice(PLACES)
        rows = [
            (first, "B-PER"), ("Smith", "I-PER"), ("saw", "O"), (str(number), "O"),
            ("boats", "O"), ("in", "O"), (place, "B-LOC"), (".", "O"),
        ]  # fmt: skip
        blocks.append("\n".join(f"{token}\tX\t{label}" for token, label in rows))
    path.write_text("\n\n".join(blocks) + "\n")


def write_paints(path: Path, rows: int) -> None:
    choose, lines = random.Random(4), ["name,r,g,b"]
    for _ in range(rows):
        r, g, b = (choose.randrange(256) for _ in range(3))
        shade = "dark" if r + g + b < 380 else "light"
        colour = max((r, "red"), (g, "green"), (b, "blue"))[1]
        lines.append(f"{shade} {colour},{r},{g},{b}")
    path.write_text("\n".join(lines) + "\n")
