"""A one-hot vector times the embedding is a row of it."""

import pytest
import torch
from torch.nn.functional import one_hot

from bundle.vocabulary import PADDING_ID
from training.one_hot import Cost, cost_of_lookup, cost_of_product

WORDS = 10_000


@pytest.mark.parametrize("token", [PADDING_ID, 1, 2, 3, 5_000, WORDS])
def test_a_product_with_one_hot_is_the_embeddings_row(token):
    """W · one-hot(i) bit for bit, with W (size, rows) the embedding's columns side by side."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(WORDS + 1, 48, PADDING_ID)
    vector = one_hot(torch.tensor(token), WORDS + 1).float()
    product = embedding.weight.T @ vector
    row = embedding(torch.tensor(token))
    assert torch.equal(product.view(torch.int32), row.view(torch.int32))


def test_what_ten_thousand_words_cost():
    """128 numbers a word: 1.28 million products and 5.12 MB read for one row of 512 bytes."""
    assert cost_of_product(WORDS, 128) == Cost(40_000, 5_120_000, 1_280_000)
    assert cost_of_lookup(128) == Cost(8, 512, 0)
