"""When frames are handed to their engine."""

import asyncio
import math

import pytest

from service.engine.frame_stepping import Frame, FrameStream
from service.engine.requests import Sink, StepRequest
from service.serving.frame_gatherer import FrameGatherer

STREAM = FrameStream(StepRequest(0.0), Sink(), 0.0)


def add(gatherer, gap, deadline=math.inf):
    gatherer.add(STREAM, Frame((b"",), 1, asyncio.get_running_loop().time(), deadline), gap)


def gathered(main, streams=10):
    """What was pushed, by the number of frames, once ``main`` is done."""

    async def run():
        pushed = []
        gatherer = FrameGatherer(lambda frames: pushed.append(len(frames)))
        gatherer.open = streams
        await main(gatherer, pushed)
        gatherer.flush()
        return pushed

    return asyncio.run(run())


def test_frames_of_steady_streams_wait_for_one_another():
    async def main(gatherer, pushed):
        for _ in range(4):
            add(gatherer, gap=0.02)
            await asyncio.sleep(0)
        assert pushed == []
        await asyncio.sleep(0.1)

    assert gathered(main) == [4]


def test_a_caller_that_waits_for_its_answer_does_not_wait():
    async def main(gatherer, pushed):
        add(gatherer, gap=0.0)
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert pushed == [1]

    gathered(main)


def test_what_is_there_at_once_is_handed_on_together():
    async def main(gatherer, pushed):
        for _ in range(3):
            add(gatherer, gap=0.0)
        await asyncio.sleep(0.01)

    assert gathered(main) == [3]


def test_nobody_is_waited_for_once_every_stream_has_a_frame():
    async def main(gatherer, pushed):
        add(gatherer, gap=1.0)
        assert pushed == []
        add(gatherer, gap=1.0)
        assert pushed == [2]

    gathered(main, streams=2)


@pytest.mark.parametrize("gap", [0.02, 0.0])
def test_as_many_as_make_a_step_worth_its_while_wait_for_no_more(gap):
    async def main(gatherer, pushed):
        for _ in range(64):
            add(gatherer, gap)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pushed == [64]

    gathered(main, streams=1000)


def test_a_frame_whose_deadline_is_near_shortens_the_wait():
    async def main(gatherer, pushed):
        add(gatherer, gap=1.0)
        add(gatherer, gap=1.0, deadline=asyncio.get_running_loop().time())
        await asyncio.sleep(0.003)
        assert pushed == [2]

    gathered(main)
