import pytest

from service.serving.coalescing import Coalescer, clock_of_this_thread


class World:
    """Clocks that a test moves: of the wall, of the engine's thread, of the event loop."""

    def __init__(self, **options):
        self.now = self.engine = self.loop = 0.0
        self.coalescer = Coalescer(
            0.85,
            **{"period_seconds": 1.0, "batching_delay": 2, **options},
            wall=lambda: self.now,
            cpu=lambda: self.engine,
            loop_cpu=lambda: self.loop,
        )

    def step(self, computed, sent):
        """A step of a second, of which its thread and the loop had so much of a core."""
        self.coalescer.begin()
        self.now += 1.0
        self.engine += computed
        self.loop += sent
        self.coalescer.end()
        return self.coalescer.tokens_per_message


@pytest.fixture
def world():
    return World()


def test_one_token_a_message_while_the_engine_gets_its_core(world):
    assert [world.step(0.95, 0.6) for _ in range(5)] == [1] * 5


def test_more_together_when_sending_takes_it_from_the_engine(world):
    assert [world.step(0.7, 0.5) for _ in range(4)] == [2, 3, 4, 5]


def test_sending_is_not_blamed_for_what_others_take(world):
    """Another process holds the core: larger messages would not give it back."""
    assert [world.step(0.5, 0.05) for _ in range(4)] == [1] * 4


def test_fewer_again_once_the_pressure_is_over():
    world = World(most=3)
    assert [world.step(0.5, 0.5) for _ in range(4)] == [2, 3, 3, 3]
    assert [world.step(0.95, 0.3) for _ in range(5)] == [3, 2, 2, 1, 1]


def test_after_a_rest_nothing_is_left_of_it(world):
    world.step(0.5, 0.5)
    world.coalescer.rest()
    assert world.coalescer.tokens_per_message == 1


def test_what_is_made_while_a_token_may_wait_goes_together():
    world = World(wait_seconds=3.5)
    assert [world.step(0.95, 0.0) for _ in range(3)] == [4, 4, 4]
    world.coalescer.rest()
    assert world.coalescer.tokens_per_message == 1


def test_slower_steps_are_noticed_and_so_are_faster_ones():
    world = World(wait_seconds=3.5)
    world.step(0.95, 0.0)
    world.now += 100.0  # between steps
    assert world.step(0.95, 0.0) == 4
    world.coalescer.begin()
    world.now += 10.0
    world.engine += 10.0
    world.coalescer.end()
    assert world.coalescer.tokens_per_message == 2
    assert world.step(0.95, 0.0) == 2
    assert [world.step(0.95, 0.0) for _ in range(9)][-1] == 3


def test_pressure_adds_to_what_goes_together_anyway():
    world = World(wait_seconds=2.5, most=5)
    assert [world.step(0.5, 0.5) for _ in range(4)] == [3, 4, 5, 5]
    assert [world.step(0.95, 0.3) for _ in range(8)][-1] == 3


def test_the_clock_of_a_thread_counts_its_work():
    clock = clock_of_this_thread()
    before = clock()
    assert sum(range(200_000)) > 0
    assert clock() > before
