"""A transformer of a few numbers, in BERT's names, and a tokenizer of a few pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.minilm import WordPiece

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##roll", "##ed", "cafe", "not", ",", "##s")
READER = WordPiece({piece: number for number, piece in enumerate(PIECES)})


def weights_of(
    words: int = len(PIECES), size: int = 8, inner: int = 12, layers: int = 2, longest: int = 64
) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (words, size),
        "embeddings.position_embeddings.weight": (longest, size),
        "embeddings.token_type_embeddings.weight": (2, size),
        "embeddings.LayerNorm": size,
    }
    for n in range(layers):
        layer = f"encoder.layer.{n}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes[f"{layer}.{part}"] = (size, size)
        shapes[f"{layer}.attention.output.dense"] = (size, size)
        shapes[f"{layer}.attention.output.LayerNorm"] = size
        shapes[f"{layer}.intermediate.dense"] = (inner, size)
        shapes[f"{layer}.output.dense"] = (size, inner)
        shapes[f"{layer}.output.LayerNorm"] = size
    arrays = {}
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            arrays[name] = draw.normal(size=shape)
        else:
            arrays[f"{name}.weight"] = draw.normal(size=shape)
            arrays[f"{name}.bias"] = draw.normal(size=shape if isinstance(shape, int) else shape[0])
    return {name: array.astype(np.float32) for name, array in arrays.items()}
