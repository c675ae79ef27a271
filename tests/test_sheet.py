"""A table being edited: what is not edited stays as it was, byte for byte, and what is edited reads as it was meant."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from labbridge.mapping.sheet import Sheet, SheetError, changed, encoded
from labbridge.mapping.tables import decoded, read_table

TEXT = 'code ,"test", his\r\nK,  K ,"H,1"\r\n\r\n"N""A",NA\r\nGLU,GLU,x,beyond\r\n'

CELLS = st.text(st.sampled_from(list("aB1 ,\"\n'é钾*/")), max_size=6)
WRITTEN = st.one_of(
    CELLS.map(lambda value: '"' + value.replace('"', '""') + '"'), st.text(st.sampled_from(list("aB1 'é钾*/")), max_size=6)
)
TABLES = st.builds(
    lambda head, rows, end, last: end.join(["a,b,c", *head, *map(",".join, rows)]) + (end if last else ""),
    st.lists(st.just(""), max_size=2),
    st.lists(st.lists(WRITTEN, max_size=4), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)


def read(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]


def test_one_cell_is_written_anew_and_nothing_else() -> None:
    sheet = Sheet(TEXT)
    assert sheet.columns == ("code", "test", "his")
    assert list(sheet.rows.values()) == [
        {"code": "K", "test": "K", "his": "H,1"},
        {"code": 'N"A', "test": "NA", "his": ""},
        {"code": "GLU", "test": "GLU", "his": "x"},
    ]
    first, second, third = sheet.rows
    sheet.set(first, "test", "POT")
    sheet.set(second, "his", ' a "b" ')
    sheet.set(third, "test", "GLU")  # as it was
    assert sheet.text == TEXT.replace("  K ", "POT").replace('"N""A",NA', '"N""A",NA,"a ""b"""')


def test_rows_come_and_go_and_the_others_stay() -> None:
    sheet = Sheet(TEXT.removesuffix("\r\n"))
    first, second, _ = sheet.rows
    added = sheet.add({"code": "CL", "his": "H2"}, after=first)
    last = sheet.add({"code": "LI"})
    assert sheet.text == TEXT.replace('"H,1"\r\n', '"H,1"\r\nCL,,H2\r\n') + "LI,,"
    sheet.delete(second)
    sheet.delete(last)
    assert list(sheet.rows) == [first, added, 4]
    assert sheet.text == 'code ,"test", his\r\nK,  K ,"H,1"\r\nCL,,H2\r\n\r\nGLU,GLU,x,beyond\r\n'


def test_a_column_that_is_not_there_comes_last_when_it_is_needed() -> None:
    sheet = Sheet("code\nK\nNA\n")
    sheet.set(1, "test", "")
    assert sheet.text == "code\nK\nNA\n"
    sheet.set(2, "test", "NA")
    assert sheet.text == "code,test\nK\nNA,NA\n"
    empty = Sheet("")
    empty.set(empty.add({}), "code", "K")
    assert read(empty.text) == [["code"], ["K"]]


def test_a_mistake_finds_its_row(tmp_path: Path) -> None:
    text = 'code,test\r\n"K\r\nL",K\r\n\r\nNA,\r\n'
    (tmp_path / "a.csv").write_text(text, "utf-8", newline="")
    table = read_table("a.csv", [tmp_path], ("code", "test"), ("test",))
    [mistake] = table.errors
    assert Sheet(text).lines()[mistake.line] == 3
    assert [row.line for row in table.rows] == [3, 5]


@pytest.mark.parametrize("text", ['a,b\n"x', 'a,b\nK,1\n"x"y,1\n'])
def test_what_is_no_csv_names_the_line(text: str) -> None:
    with pytest.raises(SheetError) as caught:
        Sheet(text, "a.csv")
    assert caught.value.mistake.line == text.count("\n") - text.endswith("\n") + 1
    assert "quotation mark" in str(caught.value)


@given(TABLES)
@example("\ufeffcode\r\r\n,")
@settings(max_examples=200)
def test_a_table_that_nobody_edits_is_the_same(text: str) -> None:
    assert Sheet(text).text == text


@given(TABLES, st.data())
@settings(max_examples=300)
def test_an_edit_changes_what_is_read_there_and_no_byte_elsewhere(text: str, data: st.DataObject) -> None:
    sheet = Sheet(text)
    assume(sheet.rows)
    number = data.draw(st.sampled_from(sorted(sheet.rows)))
    column = data.draw(st.sampled_from(["a", "b", "c", "new"]))
    value = data.draw(CELLS)
    before, lines = sheet.rows, text.splitlines(keepends=True)
    sheet.set(number, column, value)
    expected = before[number] | ({column: value.strip()} if column in sheet.columns else {})
    after = Sheet(sheet.text).rows
    if any(expected.values()):
        assert after[number] == {name: expected.get(name, "") for name in sheet.columns}
    assert {n: {c: row[c] for c in "abc"} for n, row in after.items() if n != number} == {
        n: {c: row[c] for c in "abc"} for n, row in before.items() if n != number
    }
    start = text.find(lines[1]) if len(lines) > 1 else len(text)
    if column != "new":
        assert sheet.text[:start] == text[:start]
    mine = next(line for line, row in Sheet(text).lines().items() if row == number)
    assert sheet.text.endswith("".join(lines[mine:]))


@given(TABLES, st.lists(st.tuples(st.sampled_from(["add", "delete"]), st.integers(0, 9)), max_size=6))
@settings(max_examples=200)
def test_rows_added_and_taken_out_leave_every_other_row_as_written(text: str, steps: list[tuple[str, int]]) -> None:
    sheet = Sheet(text)
    model = dict(sheet.rows)
    for step, which in steps:
        there = list(sheet.rows)
        at = there[which % len(there)] if there else None
        if step == "add":
            model[sheet.add({"a": "new", "c": "x,y"}, after=at)] = {"a": "new", "b": "", "c": "x,y"}
        elif at is not None:
            sheet.delete(at)
            del model[at]
        assert sheet.rows == model
        assert list(Sheet(sheet.text).rows.values()) == list(sheet.rows.values())
        reread = Sheet(sheet.text)
        assert [reread.rows[reread.lines()[line]] for line, row in sheet.lines().items() if row in model] == list(
            sheet.rows.values()
        )


@given(st.text(st.sampled_from(list("要一些钾aé,\r\n")), max_size=12), st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]))
@example("要", "gb18030")
def test_a_text_is_read_back_from_the_encoding_that_it_is_kept_in(text: str, encoding: str) -> None:
    assert decoded(encoded(text, encoding))[0] == text


def test_a_file_that_would_be_taken_for_utf_8_becomes_utf_8_with_a_mark() -> None:
    assert encoded("钾", "gb18030") == "钾".encode("gb18030")
    assert decoded("要".encode("gb18030"))[0] != "要"
    assert encoded("要", "gb18030") == "要".encode("utf-8-sig")
    assert encoded("K", "utf-8-sig") == b"\xef\xbb\xbfK"


def test_what_changed_is_told_with_its_lines() -> None:
    assert changed("a\nb\nc\nb\n", "a\nB\nc\nb\nd\n") == (["4: b"], ["2: B", "5: d"])
    assert changed("a\nb\n", "b\na\n") == ([], [])
