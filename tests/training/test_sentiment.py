"""What an epoch of the sentiment script reads."""

from tests import tiny
from training.data.sentiment import Example
from training.sentiment import SentimentTask


def test_each_epoch_reads_fewer_pieces_of_reviews_and_the_last_none():
    sentences = [Example("the food is good", 1)] * 10
    pieces = [Example("the food is bad", 0)] * 50
    task = SentimentTask(
        tiny.WORD_READER, sentences, pieces, sentences, 1, batch=4, pieces_per_epoch=40, epochs=5
    )
    read = [sum(len(labels) for _, _, labels in task.batches(epoch)) for epoch in range(5)]
    assert read == [50, 40, 30, 20, 10]
    pieces_read = [
        sum(int((labels == 0).sum()) for _, _, labels in task.batches(n)) for n in range(5)
    ]
    assert pieces_read == [40, 30, 20, 10, 0]
