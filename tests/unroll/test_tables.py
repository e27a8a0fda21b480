import io
import math

import pytest

from unroll.tables import TableUnreadable, read_table

SALES = """\
month,tea,coffee,price
2024-01,10,5,1.5
2024-02,,6,1.5
2024-03,12,nan,1.4
2024-04,,,1.3
2024-05,,,1.2
"""


@pytest.fixture
def table(tmp_path):
    def write(text=SALES, *others, **options):
        path = tmp_path / "sales.csv"
        path.write_text(text)
        arguments = {"time": "month", "targets": [], "covariates": ["price"], **options}
        return read_table(str(path), **arguments)

    return write


def test_columns_become_series_up_to_the_last_known_row(table):
    found = table()
    assert found.names == ["tea", "coffee"]
    tea, coffee = found.series
    assert tea.values[0] == 10
    assert math.isnan(tea.values[1])
    assert len(coffee.values) == 3
    assert tea.start == "2024-01"


def test_rows_behind_it_are_the_steps_to_come(table):
    found = table()
    assert found.horizon == 2
    assert found.series[0].covariates == {"price": [1.5, 1.5, 1.4, 1.3, 1.2]}
    assert table(horizon=1).series[0].covariates == {"price": [1.5, 1.5, 1.4, 1.3]}


def test_targets_and_time_are_a_choice(table):
    found = table(time=None, targets=["coffee"], covariates=[])
    assert found.names == ["coffee"]
    assert found.series[0].start == ""


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("kw\n1\n2\n"))
    assert read_table("-", None, [], []).series[0].values == [1, 2]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "needs a header and at least one row"),
        ("month,tea,price\n", {}, "needs a header and at least one row"),
        (SALES, {"time": "day"}, "has no column 'day'; it has month, tea, coffee, price"),
        (SALES, {"targets": ["milk"]}, "has no column 'milk'"),
        ("month,price\n1,2\n", {}, "has no column to forecast"),
        ("month,tea,price\n2024-01,1\n", {}, "line 2: 2 cells, the header has 3"),
        ("month,tea,price\n2024-01,ten,1\n", {}, "line 2: 'tea' is 'ten', no number"),
        ("month,tea,price\n2024-01,,1\n", {}, "has no number in tea"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(table, text, options, message):
    with pytest.raises(TableUnreadable, match=message):
        table(text, **options)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TableUnreadable, match="cannot be read"):
        read_table(str(tmp_path / "none.csv"), None, [], [])
