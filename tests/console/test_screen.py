"""The list of Pending without a browser: rows stay, news are counted, pages and the cursor keep within what there is."""

from hypothesis import given
from hypothesis import strategies as st

from labbridge.config import Settings
from labbridge.config.settings import Site, StoreSettings
from labbridge.model import Reason
from labbridge.views.held import Held
from labbridge.views.rows import Group, Row
from labbridge.views.screen import PAGE, Screen
from tests.console.test_held import ALARM, decided, earlier
from tests.small_lab import tables


def held(*numbers: int) -> Held:
    """So many reports that are held, by their ids; every third for another cause."""
    made = Held(Settings(Site("L", "Asia/Shanghai"), StoreSettings("sqlite:///x.db")), lambda: tables()[0])
    add(made, *numbers)
    return made


def add(to: Held, *numbers: int) -> None:
    causes = [Reason("alarm", {"alarm": "OTHER"}), ALARM, ALARM]
    to.take([earlier(decided("K", causes[number % 3]), number=number, at=number) for number in numbers], [], [])


def keys(screen: Screen) -> list[str]:
    return [row["key"] for row in screen.drawn({}, "anna")]


def test_rows_stay_until_they_are_asked_for_anew_and_what_is_new_is_counted() -> None:
    rows = held(5, 6)
    screen = Screen(rows)
    add(rows, 1, 2)
    assert (keys(screen), screen.news()) == (["held-5", "held-6"], 2)
    rows.take([], [], [5])
    assert [bool(row["gone"]) for row in screen.drawn({}, "anna")] == [True, False]
    screen.choose()
    assert (keys(screen), screen.news()) == (["held-1", "held-2", "held-6"], 0)


def test_what_the_filter_keeps_out_is_no_news() -> None:
    rows = held(1)
    screen = Screen(rows)
    screen.filter.analyzer = "another"
    screen.choose()
    add(rows, 2)
    assert (keys(screen), screen.news()) == ([], 0)
    assert screen.line() is None


def test_groups_are_lines_until_one_is_opened() -> None:
    screen = Screen(held(*range(1, 7)))
    screen.grouped = True
    screen.choose()
    screen.move(1)
    group = screen.line()
    assert isinstance(group, Group)
    assert [len(line.rows) for line in screen.lines if isinstance(line, Group)] == [4, 2]
    screen.filter.cause = group.cause.key
    screen.choose()
    assert keys(screen) == ["held-3", "held-6"]


def test_others_who_have_it_open_are_named() -> None:
    [row] = Screen(held(1)).drawn({"S1": {"anna", "bo"}}, "anna")
    assert "bo" in row["others"]
    assert "anna" not in row["others"]


@given(st.integers(0, 120), st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), max_size=12))
def test_the_cursor_is_on_a_line_where_there_is_one(count: int, keys_pressed: list[tuple[bool, int]]) -> None:
    screen = Screen(held(*range(count)))
    for turned, by in keys_pressed:
        (screen.turn if turned else screen.move)(by)
        drawn = screen.drawn({}, "anna")
        assert screen.first % PAGE == 0
        assert sum(row["here"] for row in drawn) == bool(count)
        assert isinstance(screen.line(), Row) == bool(count)
