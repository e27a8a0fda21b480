import gc
import weakref

import pytest

from service.process.gc_tuning import collect_freed


class Thing:
    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed():
    gc.unfreeze()
    yield
    gc.freeze()  # as tests/conftest.py does


def test_what_was_set_aside_is_collected_once_it_is_gone_and_the_rest_set_aside_again():
    lost, kept = Thing(), Thing()
    seen = weakref.ref(lost), weakref.ref(kept)
    gc.freeze()
    del lost
    gc.collect()
    assert seen[0]() is not None, "a collection does not look at it"
    collect_freed()
    assert [thing() for thing in seen] == [None, kept]
    assert gc.get_freeze_count() > 0


def test_nothing_is_set_aside_where_nothing_was():
    collect_freed()
    assert gc.get_freeze_count() == 0
