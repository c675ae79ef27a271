"""A code that nobody knows: seen, mapped over the control socket while analyzers stay connected, and its results released."""

import getpass
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labbridge.asking import ask
from labbridge.commands import Request
from labbridge.store import Reader
from tests.e2e.helpers import RBC, Lab, fresh, observations
from tests.support import oru, wait_until

UNKNOWN = ("6690-9^NEWWBC^LN", "5.5", "10*9/L")
TABLE = "mindray-bc.csv"


@pytest.fixture(scope="module")
def mappings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mappings")


@pytest.fixture(scope="module")
def lab(lasting: Callable[..., AbstractContextManager[Lab]], mappings: Path) -> Iterator[Lab]:
    for file in mappings.iterdir():  # of the other database
        file.unlink()
    with lasting(extra=f'[library]\nmappings = "{mappings}"\n') as lab:
        yield lab


def tell(lab: Lab, command: str, **fields: Any) -> dict[str, Any]:
    """Asks the daemon as the console does."""
    return ask(lab.folder / "labbridge.sock", Request(command, **fields))


def audit(lab: Lab, *actions: str) -> list[tuple[str, ...]]:
    query = "SELECT actor, action, subject, reason, old, new FROM audit ORDER BY id"
    with closing(Reader(lab.url)) as reader, reader.snapshot() as snapshot:
        return [tuple(row) for row in snapshot.exec_driver_sql(query) if row[1] in actions]


def table(lab: Lab, name: str = TABLE) -> dict[str, Any]:
    return next(row for row in lab.rows("map", "list") if row["file"] == name)


def hold(lab: Lab, code: str, *others: tuple[str, str, str]) -> str:
    specimen = fresh()
    lab.tell(specimen, (f"{code}^{code}^LN", "5.5", "10*9/L"), *others)
    wait_until(lambda: lab.held(specimen), 5, "held")
    return specimen


def test_an_unknown_code_is_mapped_and_its_results_leave_while_the_analyzer_stays_connected(lab: Lab, mappings: Path) -> None:
    specimen = fresh()
    with lab.hl7_client() as client:
        assert b"\rMSA|AA|" in client.send(oru(specimen, 1, [UNKNOWN, RBC]))
        [one] = [row for row in lab.rows("map", "unmapped") if row["code"] == "6690-9"]
        assert (one["analyzer"], one["unit"], one["name"], one["why"]) == ("bc-1", "10*9/L", "NEWWBC", "unmapped")
        assert (one["reports"], one["examples"], one["mapped"]) == (1, ["5.5"], False)
        assert "WBC" in [test["test"] for test in one["suggestions"]]
        assert table(lab)["whose"] == "packaged"
        assert tell(lab, "release-mapped", preview=True)["answer"].get("leaves", []) == []
        said = lab.well("map", "set", "bc-1", "6690-9", "WBC", "--unit", "10*9/L", "--reason", "new assay")
        assert "1 lines changed; a copy of what comes with labbridge" in said
        packaged = lab.well("map", "show", TABLE)
        assert (mappings / TABLE).read_text("utf-8") == packaged
        assert packaged.endswith("6690-9,10*9/L,,WBC,,,,,\n")
        assert table(lab)["whose"] == "own"
        assert [row["mapped"] for row in lab.rows("map", "unmapped") if row["code"] == "6690-9"] == [True]
        answer = tell(lab, "release-mapped", preview=True)
        [leaving] = answer["answer"]["leaves"]
        assert (leaving["destination"], leaving["specimen"]) == ("his", specimen)
        assert [line[:4] for line in leaving["text"].splitlines()][:2] == ["MSH|", "PID|"]
        assert "|H001^" in leaving["text"]
        assert any("6690-9 -> WBC 5.50" in line for line in answer["said"])
        assert lab.held(specimen)
        lab.well("queue", "release-mapped", "--yes")
        _, (_, second) = lab.ward.wait(specimen, 2)
        assert observations(second)["H001"][5] == "5.50"
        assert b"\rMSA|AA|" in client.send(oru(fresh(), 2, [UNKNOWN]))  # on the connection that it had
    with closing(Reader(lab.url)) as reader:
        (first, at, _), (second, before, old) = reader.latest("bc-1", 2)
        assert (old, first > second, at >= before) == (specimen, True, True)
        assert reader.latest("xn-1", 2) == []
    line = packaged.count("\n")
    changed = (f"mapping {TABLE}", "new assay", "", f"{line}: 6690-9,10*9/L,,WBC,,,,,")
    assert audit(lab, "map")[-1] == (getpass.getuser(), "map", *changed)


def test_a_line_that_is_there_is_changed_and_the_rest_of_the_file_stays(lab: Lab, mappings: Path) -> None:
    lab.well("map", "set", "bc-1", "X1", "--action", "ignore", "--reason", "blank channel", "--comment", "first, try")
    before = (mappings / TABLE).read_bytes()
    lab.well("map", "set", "bc-1", "X1", "--action", "hold", "--reason", "after all")
    after = (mappings / TABLE).read_bytes()
    assert after == before.replace(b'X1,,,,ignore,,,,"first, try"', b'X1,,,,hold,,,,"first, try"')
    assert after != before
    assert [row[4:] for row in audit(lab, "map")][-1][0].endswith('X1,,,,ignore,,,,"first, try"')


def test_mistakes_come_back_with_their_places_and_change_nothing(lab: Lab) -> None:
    before, trail = table(lab), audit(lab, "map", "map-undone")
    text = lab.well("map", "show", TABLE) + "Y1,10*9/L,,NOPE,,,,,\n"
    answer = tell(lab, "map", file=TABLE, text=text, known=before["known"], reason="try")
    [mistake] = answer["answer"]["mistakes"]
    assert (answer["ok"], mistake["file"], mistake["line"], mistake["column"]) == (False, TABLE, text.count("\n"), "test")
    assert "NOPE" in answer["error"]
    status, said = lab.cli("map", "set", "bc-1", "Y1", "NOPE", "--unit", "10*9/L", "--reason", "try")
    assert (status, "'NOPE' is not in tests.csv" in said) == (1, True)
    assert (table(lab), audit(lab, "map", "map-undone")) == (before, trail)


def test_who_edited_an_older_text_is_refused(lab: Lab, tmp_path: Path) -> None:
    old = table(lab)["known"]
    lab.well("map", "set", "bc-1", "Z1", "--action", "ignore", "--reason", "first")
    answer = tell(lab, "map", file=TABLE, text="code\n", known=old, reason="second")
    assert (answer["ok"], "changed by somebody else meanwhile" in answer["error"]) == (False, True)
    (tmp_path / "new.csv").write_text(lab.well("map", "show", TABLE) + "Z2,,,,ignore,,,,\n", "utf-8")
    status, said = lab.cli("map", "save", TABLE, str(tmp_path / "new.csv"), "--known", old, "--reason", "x")
    assert (status, "meanwhile" in said) == (1, True)
    lab.well("map", "save", TABLE, str(tmp_path / "new.csv"), "--reason", "third")
    assert lab.well("map", "show", TABLE).endswith("Z2,,,,ignore,,,,\n")
    assert "nothing is changed" in lab.well("map", "save", TABLE, str(tmp_path / "new.csv"), "--reason", "third")
    assert lab.cli("map", "save", TABLE, str(tmp_path / "none.csv"), "--reason", "x")[0] == 2


def test_what_cannot_be_put_in_force_is_put_back(lab: Lab, mappings: Path) -> None:
    lab.well("map", "set", "bc-1", "Q0", "--action", "ignore", "--reason", "a table of its own")
    before = (mappings / TABLE).read_bytes()
    lab.edit(f'url = "{lab.url}"', f'url = "{lab.url}"\nkeep = "40000d"')
    status, said = lab.cli("map", "set", "bc-1", "Q1", "--action", "ignore", "--reason", "try")
    lab.edit(f'url = "{lab.url}"\nkeep = "40000d"', f'url = "{lab.url}"')
    assert (status, "[store] and [control] cannot change while running" in said) == (1, True)
    assert (mappings / TABLE).read_bytes() == before
    (_, first, *_), (_, second, _, why, *_) = audit(lab, "map", "map-undone")[-2:]
    assert (first, second) == ("map", "map-undone")
    assert "the file is as it was" in why
    lab.well("map", "set", "bc-1", "Q1", "--action", "ignore", "--reason", "again")


def test_only_lab_it_may_map(lab: Lab) -> None:
    for name, role in (("tina", "technician"), ("ida", "lab-it")):
        made = tell(lab, "account-add", account=name, password="long enough 1", role=role, language="en")
        assert made["ok"], made
        session = tell(lab, "login", account=name, password="long enough 1")["answer"]["session"]
        text = lab.well("map", "show", TABLE) + f"{name},,,,ignore,,,,\n"
        answer = tell(lab, "map", session=session, file=TABLE, text=text, known=table(lab)["known"], reason="mine")
        assert answer["ok"] is (role == "lab-it"), answer
    assert [row[0] for row in audit(lab, "map")][-1] == "ida"


def test_two_at_once_are_carried_out_one_after_the_other(lab: Lab) -> None:
    text, known = lab.well("map", "show", TABLE), table(lab)["known"]
    answers: list[dict[str, Any]] = []

    def one(code: str) -> None:
        answers.append(tell(lab, "map", file=TABLE, text=f"{text}{code},,,,ignore,,,,\n", known=known, reason="both"))

    both = [threading.Thread(target=one, args=(code,)) for code in ("W1", "W2")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(answer["ok"] for answer in answers) == [False, True]
    assert hashlib.sha256(lab.well("map", "show", TABLE).encode()).hexdigest() == table(lab)["known"]


def test_without_a_daemon_the_command_line_saves_it_itself(own: Callable[..., Lab], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    lab = own(started=False, hospital=False, extra=f'[library]\nmappings = "{folder}"\n')
    said = lab.well("map", "set", "bc-1", "N1", "WBC", "--unit", "10*9/L", "--reason", "before the start")
    assert "1 lines changed" in said
    assert (folder / TABLE).read_text("utf-8").endswith("N1,10*9/L,,WBC,,,,,\n")
    assert [row[:4] for row in audit(lab, "map")] == [(getpass.getuser(), "map", f"mapping {TABLE}", "before the start")]
    assert lab.cli("map", "set", "bc-1", "N1", "NOPE", "--unit", "10*9/L", "--reason", "x")[0] == 1
    assert "every code is mapped" in lab.well("map", "unmapped")
    assert [lab.cli("map", "set", "nobody", "N1", "WBC", "-r", "x")[0], lab.cli("map", "show", "x.csv")[0]] == [2, 2]
    assert msgspec.json.encode(lab.rows("map", "list")).count(b'"own"') == 1
