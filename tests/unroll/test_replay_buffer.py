"""What a caller sends is read once, and is there for whichever call needs it."""

import asyncio

from unroll.replay_buffer import AwaitedParts


def test_a_call_that_is_cancelled_while_it_waits_loses_no_part():
    async def run():
        queue = asyncio.Queue()

        async def words():
            while (word := await queue.get()) is not None:
                yield [word]

        parts = AwaitedParts(words(), buffers=True)
        reading = asyncio.ensure_future(parts.read(0))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        for word in ("a", "b", None):
            queue.put_nowait(word)
        return [await parts.read(number) for number in (0, 1, 2, 0)]

    assert asyncio.run(run()) == [["a"], ["b"], None, ["a"]]
