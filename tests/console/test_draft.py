"""A table while it is edited: rows for the screen, mistakes at their cells, and the text that would be saved."""

from labbridge.mapping import Mistake
from labbridge.views.draft import Draft

TEXT = "code,test,his\nK,K,H1\nNA,NA,\n"


def draft(text: str = TEXT, file: str = "lab.csv") -> Draft:
    return Draft(file, text, "known")


def test_rows_have_names_of_ours_for_columns_and_all_columns_that_there_may_be() -> None:
    it = draft()
    assert it.columns[:4] == ("code", "test", "his", "analyzer_unit")
    assert [line["id"] for line in it.lines()] == ["1", "2"]
    assert {name: it.lines()[0][name] for name in ("c0", "c1", "c2", "c3", "wrong")} == {
        "c0": "K",
        "c1": "K",
        "c2": "H1",
        "c3": "",
        "wrong": {},
    }
    assert (it.is_changed, it.text) == (False, TEXT)


def test_an_edit_is_in_the_text_and_in_what_is_told() -> None:
    it = draft()
    assert it.edit(2, "c1", " NAT ")["c1"] == "NAT"
    assert (it.is_changed, it.text) == (True, TEXT.replace("NA,NA", "NA,NAT"))
    assert it.changes == (["3: NA,NA,"], ["3: NA,NAT,"])


def test_rows_are_added_behind_another_and_stay_while_they_are_empty() -> None:
    it = draft()
    added = it.add(1)
    assert [line["id"] for line in it.lines()] == ["1", added["id"], "2"]
    it.edit(int(added["id"]), "c0", "CL")
    empty = it.add()
    assert [line["c0"] for line in it.lines()] == ["K", "CL", "NA", ""]
    assert it.tidy() == {int(empty["id"])}
    assert empty["id"] not in [line["id"] for line in it.lines()]
    it.delete([1])
    assert it.text == "code,test,his\nCL,,\nNA,NA,\n"


def test_mistakes_stand_at_their_cells_and_go_when_they_are_mended() -> None:
    it = draft()
    found = [
        Mistake("lab.csv", 3, "test", "is nothing"),
        Mistake("lab.csv", 3, "test", "and worse"),
        Mistake("lab.csv", 2, "", "has more cells"),
        Mistake("lab.csv", 1, "his", "is not a column"),
        Mistake("tests.csv", 2, "test", "elsewhere"),
    ]
    shown = it.judge(found)
    assert {line["id"]: line["wrong"] for line in shown} == {"2": {"c1": "is nothing; and worse"}, "1": {"c0": "has more cells"}}
    assert it.mistakes == [
        (2, "test: is nothing; and worse"),
        (1, "code: has more cells"),
        (None, "lab.csv:1: column 'his': is not a column"),
        (None, "tests.csv:2: column 'test': elsewhere"),
    ]
    assert [line["id"] for line in it.judge(found[2:3])] == ["2"]
    assert [line["wrong"] for line in it.judge([])] == [{}]
    assert it.mistakes == []


def test_a_table_that_is_not_there_yet_begins_with_its_columns() -> None:
    it = draft("", "lab.values.csv")
    assert (it.columns, it.text, it.is_changed) == (("code", "value", "means", "kind"), "", False)
    it.put({"code": "*", "value": "NEG", "means": "Negative"}, ("code", "value"))
    assert it.text == "code,value,means,kind\n*,NEG,Negative,\n"
