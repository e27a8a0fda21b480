"""What files hold is read again once they change, and a change that is no good changes nothing."""

import logging
import os

import pytest

from service.access.file_reload import FileUnusable, Renewed, read_file


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Reader:
    """The one file of ``folder``; ``failures`` are noted, ``reads`` counted."""

    def __init__(self, folder):
        self.file = folder / "word"
        self.file.write_text("one")
        self.clock, self.reads, self.failures = Clock(), 0, 0
        self.renewed = Renewed([self.file], self._read, self._fail, self.clock)

    def _read(self):
        self.reads += 1
        word = read_file(self.file, "word").decode()
        if " " in word:
            raise FileUnusable("word: it is two")
        return word

    def _fail(self):
        self.failures += 1

    def later(self):
        self.clock.now += 1.0
        return self.renewed.get()


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


def replace(file, text):
    """As a whole, as careful tools do."""
    other = file.with_name("other")
    other.write_text(text)
    other.rename(file)


def test_a_file_that_was_replaced_is_read_again_and_another_is_not(reader):
    assert reader.renewed.get() == "one"
    replace(reader.file, "two")
    assert [reader.later(), reader.later()] == ["two", "two"]
    assert reader.reads == 2


def test_a_file_that_was_written_in_place_is_read_again(reader):
    reader.file.write_text("three")
    assert reader.later() == "three"


def test_files_are_looked_at_once_a_second_at_most(reader):
    replace(reader.file, "two")
    reader.clock.now = 0.9
    assert reader.renewed.get() == "one"
    reader.clock.now = 1.0
    assert reader.renewed.get() == "two"


def test_a_link_that_points_elsewhere_is_a_change(tmp_path):
    """A mounted secret is a link to a link of a folder, which is swapped."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
        os.utime(tmp_path / name / "word", (1, 1))
    data, file = tmp_path / "..data", tmp_path / "word"
    data.symlink_to("first")
    file.symlink_to("..data/word")
    clock = Clock()
    renewed = Renewed([file], file.read_text, lambda: None, clock)
    (tmp_path / "new").symlink_to("second")
    (tmp_path / "new").rename(data)
    clock.now = 1.0
    assert renewed.get() == "second"


def test_what_cannot_be_used_is_reported_once_and_the_old_stays(reader, caplog):
    replace(reader.file, "two words")
    assert [reader.later(), reader.later(), reader.later()] == ["one"] * 3
    reader.file.unlink()
    assert [reader.later(), reader.later()] == ["one"] * 2
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert [error.partition(";")[0] for error in errors] == [
        "word: it is two",
        f"word: {reader.file} cannot be read (No such file or directory)",
    ]
    assert reader.failures == 2
    replace(reader.file, "three")
    assert reader.later() == "three"


def test_files_that_change_while_they_are_read_are_read_again(reader):
    """What was read may be half of the one and half of the other."""
    read = reader._read

    def torn():
        word = read()
        replace(reader.file, "three")
        return word

    replace(reader.file, "two")
    reader.renewed._read = torn
    assert reader.later() == "one"
    reader.renewed._read = read
    assert reader.later() == "three"


def test_there_must_be_something_to_begin_with(tmp_path):
    missing = tmp_path / "none"
    with pytest.raises(FileUnusable, match="cannot be read"):
        Renewed([missing], lambda: read_file(missing, "word"), lambda: None)
