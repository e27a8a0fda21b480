"""A small transformer of English sentences, read out of its package: weights and WordPiece.

all-MiniLM-L6-v2: six layers of 384 numbers, distilled from a larger one (Wang et al. 2020,
arXiv:2002.10957) and trained to put like sentences near each other (Reimers and Gurevych 2019,
arXiv:1908.10084). It teaches; no bundle holds its weights.
"""

from __future__ import annotations

import io
import json
import re
import struct
import unicodedata
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bundle.tokenizer import Encoded
from training.data.packages import DATA_FOLDER, MINILM

_MEMBER = "all_minilm_l6_v2/model.zip"
_WORD = re.compile(r"\w+|[^\w\s]")
_INSIDE = "##"  # what a piece within a word begins with
LONGEST = 64  # pieces of a text that are read, with the marks around them


@dataclass(frozen=True)
class WordPiece:
    """BERT's tokenizer: lowercase without accents, each word cut into its longest known pieces.

    vocabulary: ids by piece (Wu et al. 2016, arXiv:1609.08144, section 4.1).
    """

    vocabulary: Mapping[str, int]
    _known: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def encode(self, text: str) -> Encoded:
        """At most LONGEST ids, those of ``[CLS]`` and ``[SEP]`` around the text's."""
        parts = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in parts if unicodedata.category(c) != "Mn")
        ids = [number for word in _WORD.findall(plain) for number in self._pieces_of(word)]
        ids = ids[: LONGEST - 2]
        unknown = ids.count(self.vocabulary["[UNK]"])
        return Encoded([self.vocabulary["[CLS]"], *ids, self.vocabulary["[SEP]"]], unknown)

    def _pieces_of(self, word: str) -> list[int]:
        if word not in self._known:
            self._known[word] = self._cut(word)
        return self._known[word]

    def _cut(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word):
            mark = _INSIDE if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if mark + word[start:e] in self.vocabulary), 0)
            if not end:
                return [self.vocabulary["[UNK]"]]
            ids.append(self.vocabulary[mark + word[start:end]])
            start = end
        return ids


def load_minilm(data: Path = DATA_FOLDER) -> tuple[dict[str, Tensor], WordPiece]:
    """Its weights by the names that BERT's have, and its tokenizer."""
    with (
        zipfile.ZipFile(MINILM.fetch(data)) as package,
        zipfile.ZipFile(io.BytesIO(package.read(_MEMBER))) as model,
    ):
        weights = read_safetensors(model.read("model.safetensors"))
        vocabulary = json.loads(model.read("tokenizer.json"))["model"]["vocab"]
    return {name.removeprefix("bert."): w for name, w in weights.items()}, WordPiece(vocabulary)


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    """Its tensors in single precision; others are left out.

    The format is a header in JSON with its length before it, then the tensors' bytes.
    """
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            numbers = np.frombuffer(content[start:end], np.float32).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(numbers.copy())
    return tensors
