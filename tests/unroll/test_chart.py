from unroll.chart import chart


def test_a_chart_shows_the_past_then_the_median_between_the_quantiles():
    drawn = chart([1.0, 2.0, 3.0], [2.0, 1.0], [3.0, 3.0], [4.0, 5.0], height=5)
    assert drawn.split("\n") == [
        "         5 ┤    ░",
        "           │   ░░",
        "         3 ┤  •──",
        "           │ • ░░",
        "         1 ┤•   ░",
    ]


def test_a_gap_is_left_for_a_missing_value():
    drawn = chart([1.0, float("nan"), 1.0], [1.0], [1.0], [1.0], height=3)
    assert drawn.split("\n")[1] == "         1 ┤• •─"


def test_what_does_not_fit_is_left_out_of_the_past():
    drawn = chart(list(range(500)), [1.0] * 10, [2.0] * 10, [3.0] * 10)
    assert max(map(len, drawn.split("\n"))) == 78


def test_large_numbers_have_short_labels():
    assert "1.235e+09" in chart([1234567890.0, 0.0], [0.0], [0.0], [0.0])


def test_nothing_known_is_nothing_drawn():
    assert chart([float("nan")], [], [], []) == ""
