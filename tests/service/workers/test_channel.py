"""What two processes ask of each other."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from service.engine.errors import EngineFailed, Overloaded, WrongInput
from service.workers.channel import Channel, ChannelClosed


@asynccontextmanager
async def ends(first, second):
    """Two ends, each with what it answers."""
    made = [Channel(first), Channel(second)]
    for channel, connection in zip(made, socket.socketpair(), strict=True):
        await channel.open(connection)
    yield made
    made[0].close()
    for channel in made:
        await channel.closed.wait()


async def refuse(what, arguments):
    if what == "wrong":
        raise WrongInput("a is none; send b")
    if what == "later":
        raise Overloaded("full", 2.5)
    raise ValueError("a mistake")


async def echo(what, arguments):
    await asyncio.sleep(arguments.get("seconds", 0))
    return [what, arguments]


def test_both_ask_at_once_and_answers_overtake():
    async def run():
        async with ends(echo, echo) as (one, other):
            slow = asyncio.create_task(one.ask("slow", seconds=0.2))
            big = "x" * 300_000
            quick = await asyncio.gather(one.ask("a", text=big), other.ask("b"))
            assert quick == [["a", {"text": big}], ["b", {}]]
            assert not slow.done()
            assert (await slow)[0] == "slow"

    asyncio.run(run())


def test_domain_errors_cross_as_what_they_are(caplog):
    async def run():
        async with ends(echo, refuse) as (one, _):
            with pytest.raises(WrongInput, match="a is none; send b"):
                await one.ask("wrong")
            with pytest.raises(Overloaded) as later:
                await one.ask("later")
            assert later.value.retry_after_seconds == 2.5
            with pytest.raises(EngineFailed, match="see its log"):
                await one.ask("other")

    asyncio.run(run())
    assert "what another process asked for failed" in caplog.text


def test_whoever_waits_learns_that_the_other_side_has_ended():
    async def run():
        async with ends(echo, echo) as (one, other):
            waiting = asyncio.create_task(one.ask("slow", seconds=60))
            await asyncio.sleep(0.05)
            other.close()
            with pytest.raises(ChannelClosed):
                await waiting
            await one.closed.wait()
            with pytest.raises(ChannelClosed):
                await one.ask("a")

    asyncio.run(run())
