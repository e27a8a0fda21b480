import asyncio
import threading

import pytest

from service.serving.background import in_background


def test_the_result_comes_from_a_daemon_thread():
    """One that hangs is not waited for when the process ends."""

    def work(a, b):
        thread = threading.current_thread()
        return a + b, thread.name, thread.daemon

    assert asyncio.run(in_background("load-x", work, 1, 2)) == (3, "load-x", True)


def test_what_it_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_background("load-x", lambda: 1 // 0))


def test_whoever_waits_may_leave_and_the_loop_may_close_before_it_ends():
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait(10)
        ended.set()

    async def leave():
        task = asyncio.create_task(in_background("load-y", work))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "load-y")
    assert not ended.is_set()
    go_on.set()
    thread.join(10)
    assert ended.is_set()
