"""What people do at the command line, with a daemon running and without, and the trail that it leaves."""

import base64
import getpass
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labbridge import asking, revision
from labbridge.cli import app
from labbridge.commands import Request
from labbridge.store import Reader
from tests.e2e.helpers import RBC, UNKNOWN, WBC, Lab, fresh, observations, why
from tests.support import END, START, field, his_ack, oru, wait_until

Own = Callable[..., Lab]
CRITICAL = ("6690-2^WBC^LN", "0.20", "10*9/L")
CALLED = ("--told", "Dr. Li, ward 7", "--read-back")


def _audit(lab: Lab, action: str) -> list[tuple[str, str, str, str, str]]:
    """Actor, subject, reason, old and new value of each action of this name."""
    query = f"SELECT actor, subject, reason, old, new FROM audit WHERE action = '{action}' ORDER BY id"
    with closing(Reader(lab.url)) as reader, reader.snapshot() as snapshot:
        return [(row[0], row[1], row[2], row[3], row[4]) for row in snapshot.exec_driver_sql(query)]


# -- pending, release, reject


def test_promise_8_a_release_is_sent_and_in_the_audit_trail(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL, RBC)
    [(_, first)] = shared.ward.wait(specimen)
    assert sorted(observations(first)) == ["H024"]
    assert shared.reasons(specimen) == {"critical"}
    status, said = shared.cli("release", specimen)
    assert (status, "--reason" in said) == (1, True)
    assert len(shared.ward.of(specimen)) == 1
    said = shared.well("release", specimen, "--reason", "seen and telephoned", *CALLED)
    assert "WBC release" in said
    _, (_, second) = shared.ward.wait(specimen, 2)
    assert observations(second)["H001"][5] == "0.20"
    assert not shared.held(specimen)
    report = shared.story(specimen, "report")[0]["report_id"]
    mine = [entry for entry in _audit(shared, "release") if entry[1] == f"report {report}"]
    assert [(actor, reason) for actor, _, reason, *_ in mine] == [(getpass.getuser(), "seen and telephoned")]
    new = json.loads(mine[0][4])
    called = {"told": "Dr. Li, ward 7", "told at": new["told at"], "read back": "yes"}
    assert (json.loads(mine[0][3]), json.loads(mine[0][4])) == ({"WBC": "hold"}, {"WBC": "release"} | called)
    decisions = shared.story(specimen, "decision")
    assert [row["actor"] for row in decisions] == ["rules", getpass.getuser()]
    assert shared.cli("release", specimen, "--reason", "again")[0] == 1


def test_a_rejected_result_is_kept_and_never_sent(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL)
    wait_until(lambda: shared.held(specimen), 5, "held")
    shared.well("reject", specimen, "--reason", "clotted")
    assert not shared.held(specimen)
    assert [row["state"] for row in shared.story(specimen, "report")] == ["rejected"]
    assert _audit(shared, "reject")[-1][2] == "clotted"
    assert shared.cli("release", specimen, "--reason", "after all")[0] == 1
    assert not shared.ward.of(specimen)


def test_one_test_of_several_is_released_by_name(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL, ("718-7^HGB^LN", "40", "g/L"), UNKNOWN)
    wait_until(lambda: shared.held(specimen), 5, "held")
    shared.well("release", specimen, "--test", "HGB", "--reason", "telephoned", *CALLED)
    [(_, message)] = shared.ward.wait(specimen)
    assert sorted(observations(message)) == ["H025"]
    assert [one["code"] for one in shared.held(specimen)[0]["results"]] == ["6690-2", "99999"]
    status, said = shared.cli("release", specimen, "--test", "K", "--reason", "x")
    assert (status, "nothing held was settled" in said) == (1, True)
    status, said = shared.cli("release", specimen, "--test", "99999", "--reason", "x")
    assert (status, "nothing held was settled" in said) == (1, True)


def test_promise_3_on_release_an_older_measurement_becomes_superseded(shared: Lab) -> None:
    """Held repeats released together: the later measurement leaves, the earlier is superseded, unless it is a correction."""
    specimen = fresh()
    shared.tell(specimen, stamp="20261121101500")
    shared.ward.wait(specimen)
    shared.tell(specimen, ("6690-2^WBC^LN", "7.00", "10*9/L"), stamp="20261121114500")
    shared.tell(specimen, ("6690-2^WBC^LN", "6.00", "10*9/L"), stamp="20261121110000")
    wait_until(lambda: len(shared.held(specimen)) == 2, 5, "both held")
    said = shared.well("release", specimen, "--reason", "both are right")
    assert "WBC superseded" in said
    shared.ward.wait(specimen, 2)
    time.sleep(0.1)
    arrived = [observations(message)["H001"] for _, message in shared.ward.of(specimen)]
    assert [(fields[5], fields[11]) for fields in arrived] == [("5.50", "F"), ("7.00", "C")]
    assert [row["state"] for row in shared.story(specimen, "report")] == ["released", "released", "superseded"]
    decided = shared.story(specimen, "decision")[-1]["decided"]
    assert [one["verdict"]["action"] for one in decided] == ["superseded"]
    assert "older-measurement" in [reason["code"] for reason in why(decided[0])]
    shared.tell(specimen, ("6690-2^WBC^LN", "6.10", "10*9/L"), stamp="20261121110500")
    wait_until(lambda: shared.held(specimen), 5, "held")
    shared.well("release", specimen, "--correction", "--reason", "the later one was another patient's")
    assert observations(shared.ward.wait(specimen, 3)[-1][1])["H001"][5] == "6.10"


def test_commands_without_a_daemon_take_the_store_themselves(own: Own) -> None:
    lab = own()
    specimen, other, unread = fresh(), fresh(), fresh()
    lab.tell(specimen, CRITICAL)
    lab.tell(other, CRITICAL)
    with lab.hl7_client() as client:
        client.send(oru(unread, 1, [WBC]).replace(b"|ORU^R01|", b"||"))
    assert lab.stop() == 0
    assert {row["specimen"] for row in lab.rows("pending") if "specimen" in row} == {specimen, other}
    assert "WBC release" in lab.well("release", specimen, "--reason", "telephoned", *CALLED)
    lab.well("reject", other, "--reason", "clotted")
    [message] = lab.messages("unreadable")
    lab.well("reject", f"#{message['id']}", "--reason", "seen")
    assert [row["state"] for row in lab.queue(specimen)] == ["queued"]
    status, said = lab.cli("queue", "pause", "his")
    assert (status, "no daemon runs" in said) == (1, True)
    assert "nothing waits for a person" in lab.well("pending")
    lab.start()
    lab.ward.wait(specimen)
    assert not lab.ward.of(other)
    assert "as written" in lab.well("verify")


# -- what a destination wants


def test_partial_wait_joins_what_is_released_later(own: Own) -> None:
    lab = own(extra='[destination.oru]\npartial = "wait:30m"\n')
    joined, whole = fresh(), fresh()
    lab.tell(joined, CRITICAL, RBC)
    lab.tell(whole, WBC, RBC)
    lab.ward.wait(whole)
    assert not lab.ward.of(joined)
    [row] = lab.queue(joined)
    assert row["state"] == "queued"
    lab.tell(joined, ("777-3^PLT^LN", "210", "10*9/L"))
    time.sleep(0.2)
    assert not lab.ward.of(joined), "the lane keeps its order"
    lab.well("release", joined, "--test", "WBC", "--reason", "telephoned", *CALLED)
    first, second = lab.ward.wait(joined, 2)
    assert sorted(observations(first[1])) == ["H032"]
    assert sorted(observations(second[1])) == ["H001", "H024"]
    assert [row["state"] for row in lab.story(joined, "delivery")].count("superseded") == 1
    wait_until(lambda: not lab.queue(), 5, "nothing waits")


def test_partial_wait_ends_when_its_time_is_up(own: Own) -> None:
    lab = own(extra='[destination.oru]\npartial = "wait:1s"\n')
    specimen = fresh()
    began = time.monotonic()
    lab.tell(specimen, CRITICAL, RBC)
    [(_, message)] = lab.ward.wait(specimen)
    assert time.monotonic() - began > 0.9
    assert sorted(observations(message)) == ["H024"]
    lab.well("release", specimen, "--reason", "telephoned", *CALLED)
    _, (_, message) = lab.ward.wait(specimen, 2)
    assert sorted(observations(message)) == ["H001"]


def test_resend_cumulative_repeats_what_was_released_before(own: Own) -> None:
    lab = own(extra='[destination.oru]\nresend = "cumulative"\n', repeat="latest-measured")
    specimen = fresh()
    lab.tell(specimen, WBC)
    lab.tell(specimen, RBC, stamp="20261121102500")
    lab.tell(specimen, ("6690-2^WBC^LN", "6.66", "10*9/L"), stamp="20261121103500")
    arrived = [observations(message) for _, message in lab.ward.wait(specimen, 3)]
    assert [{code: fields[5] for code, fields in one.items()} for one in arrived] == [
        {"H001": "5.50"},
        {"H024": "4.50", "H001": "5.50"},
        {"H001": "6.66", "H024": "4.50"},
    ]


def test_hold_panel_keeps_the_panel_back_and_hold_report_everything(own: Own) -> None:
    for mode in ("panel", "report"):
        lab = own(changes=[('hold = "result"', f'hold = "{mode}"')])
        specimen, last = fresh(), fresh()
        lab.tell(specimen, CRITICAL, RBC)
        lab.tell(last)
        lab.ward.wait(last)
        assert not lab.ward.of(specimen)
        assert lab.reasons(specimen) == {"critical", "held-with"}
        assert "kept back with" in lab.well("pending")
        lab.well("release", specimen, "--reason", "telephoned", *CALLED)
        assert sorted(observations(lab.ward.wait(specimen)[0][1])) == ["H001", "H024"]


def test_automatic_release_switched_off_holds_everything(own: Own) -> None:
    lab = own(changes=[("auto_release = true", "auto_release = false")])
    specimen = fresh()
    lab.tell(specimen, WBC, RBC)
    wait_until(lambda: lab.reasons(specimen) == {"auto-release-off"}, 5, "held")
    lab.well("release", specimen, "--reason", "looks well")
    assert len(observations(lab.ward.wait(specimen)[0][1])) == 2


# -- looking


def test_pending_and_trace_tell_in_words_and_in_chinese(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL, UNKNOWN, RBC)
    shared.ward.wait(specimen)
    told = shared.well("pending", "--limit", "1000")
    assert specimen in told
    assert "code 99999 (g) is not mapped" in told
    assert "未对照" in shared.well("pending", "--zh", "--limit", "1000")
    wait_until(lambda: shared.story(specimen, "answer"), 5, "answered")
    told = shared.well("trace", specimen)
    for word in ("message", "report", "mapping", "verdict", "delivery", "his accepted delivery", "(AA)", "RBC", "critical"):
        assert word in told
    status, said = shared.cli("trace", "NOSUCH")
    assert (status, "nothing is known" in said) == (1, True)
    assert "nothing waits for the hospital" in shared.well("queue", "list", "--destination", "nobody")


def test_trace_tells_what_was_edited_by_hand_at_the_analyzer(shared: Lab) -> None:
    specimen = fresh()
    with shared.hl7_client() as client:
        assert b"\rMSA|AA|" in client.send(oru(specimen, 1, [WBC, RBC]).replace(b"|F|||", b"|F||E|", 1))
    shared.ward.wait(specimen)
    assert [row["edited"] for row in shared.story(specimen, "report")] == [["6690-2"]]
    assert "Changed by hand at the analyzer: WBC" in shared.well("trace", specimen)


NASTY = "\x1b[2J\x9b31m\u202e\x07\x08\x7f"  # clears the screen, changes the colour, turns the text round


def _harmless(said: str) -> bool:
    return all(line.isprintable() for line in said.split("\n"))


def test_trace_shows_a_message_byte_for_byte_and_nothing_that_a_terminal_obeys(shared: Lab) -> None:
    message = oru(fresh(), 1, [WBC]).replace(b"|ORU^R01|", b"||").replace(b"DOE", NASTY.encode() + b"\xff")
    before = {row["id"] for row in shared.messages("unreadable")}
    with shared.hl7_client() as client:
        client.send(message)
    [number] = {row["id"] for row in shared.messages("unreadable")} - before
    told = shared.well("trace", f"#{number}")
    assert _harmless(told)
    printed = told.rstrip("\n").split("\n")
    head, lines = printed[:-4], printed[-4:]
    for word in (f"Message {number} from bc-1 (unreadable)", f"{len(message)} bytes over bc-1/", "MSH-9"):
        assert word in "\n".join(head)
    assert [line[:4] for line in lines] == ["MSH|", "PID|", "OBR|", "OBX|"]
    assert all(line.endswith(r"\r") for line in lines)
    assert r"\x1b[2J\x9b31m\u202e\x07\x08\x7f\xff^JO" in lines[1]
    assert "MSH-9" in shared.well("trace", f"#{number}", "--zh")
    assert "消息未说明类型" in shared.well("trace", f"#{number}", "--zh")
    [row] = shared.rows("trace", f"#{number}")
    assert base64.b64decode(row["body"]) == message
    assert (row["kind"], row["note"][0]["code"]) == ("unreadable", "no-message-type")
    for unknown in ("#999999999", "#99999999999999999999", "#"):
        assert shared.cli("trace", unknown)[0] == 1


def test_what_is_looked_at_moves_no_cursor(shared: Lab) -> None:
    """Ids, codes and the hospital's words are shown escaped wherever a command prints them."""
    specimen = fresh() + NASTY
    shared.ward.plans[specimen] = lambda message, _: START + his_ack("AR", field(message, b"MSH", 9), f"ERR|{NASTY}\r") + END
    with shared.hl7_client() as client:
        client.send(oru(specimen, 1, [RBC, (f"X{NASTY}^x", "1", "g"), CRITICAL]))
    shared.ward.wait(specimen)
    wait_until(lambda: shared.story(specimen, "answer"), 5, "answered")
    shown = r"\x1b[2J\x9b31m\u202e\x07\x08\x7f"
    for arguments in (["pending"], ["queue", "list"]):
        told = shared.well(*arguments, "--limit", "1000")
        assert shown in told
        assert _harmless(told)
    told = shared.well("trace", specimen)
    assert f"ERR|{shown}" in told
    assert _harmless(told)
    assert _harmless(shared.well("trace", specimen, "--json"))
    assert shared.story(specimen, "answer")[0]["reply"].endswith(f"ERR|{NASTY}\r")
    status, said = shared.cli("release", specimen + "?", "--reason", "x")
    assert (status, shown in said, _harmless(said)) == (1, True, True)
    said = shared.well("reject", specimen, "--reason", "x")
    assert _harmless(said)
    [delivery] = [str(row["id"]) for row in shared.queue(specimen)]
    shared.well("queue", "cancel", delivery, "--reason", "x")


# -- exit statuses, and commands that need no daemon


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["pending"], 78),
        (["check"], 78),
        (["release", "X", "--reason", "y"], 78),
        (["nosuchcommand"], 2),
        (["pending", "--nosuch"], 2),
        (["release"], 2),
        (["try", "sysmex-xn", "nosuchfile"], 1),
        (["try", "nosuchprofile", __file__], 78),
        (["test", "nosuchprofile"], 78),
    ],
)
def test_exit_statuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    assert result.output.strip()


def test_a_daemon_that_ends_before_it_answers_is_not_taken_for_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "control"))
        daemon.listen(1)
        ending = threading.Thread(target=lambda: daemon.accept()[0].close())
        ending.start()
        with pytest.raises(OSError, match="ended before it answered") as caught:
            asking.ask(tmp_path / "control", Request("release"))
        ending.join(10)
    assert not isinstance(caught.value, ConnectionError)


def test_commands_on_a_store_that_is_not_there_say_so(own: Own) -> None:
    lab = own(started=False, hospital=False)
    for arguments in (["pending"], ["queue", "list"], ["trace", "X"], ["verify"]):
        status, said = lab.cli(*arguments)
        assert (status, "there is no store at" in said) == (1, True)


def test_init_check_and_run_of_a_new_folder(tmp_path: Path, new_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    folder = tmp_path / "lab"
    assert runner.invoke(app, ["init", str(folder)]).exit_code == 0
    assert runner.invoke(app, ["init", str(folder)]).exit_code == 1
    monkeypatch.chdir(folder)
    checked = runner.invoke(app, ["check"])
    assert checked.exit_code == 0, checked.output
    assert "OFF" in checked.output
    written = (folder / "labbridge.toml").read_text()
    assert "auto_release = false" in written
    assert "sqlite:///labbridge.db" in written
    (folder / "labbridge.toml").write_text(written.replace("sqlite:///labbridge.db", new_url))
    assert runner.invoke(app, ["db", "migrate"]).exit_code == 0
    assert "nothing waits for a person" in runner.invoke(app, ["pending"]).output


def test_check_names_every_mistake_and_changes_nothing(shared: Lab) -> None:
    said = shared.well("check")
    assert "4 analyzers, 1 destinations" in said


def test_test_runs_the_cases_kept_beside_the_profiles() -> None:
    result = CliRunner().invoke(app, ["test", "sysmex-xn", "mindray-bc", "-c", "/nonexistent.toml"])
    assert result.exit_code == 0, result.output
    assert " 0 failed" in result.output


def test_try_explains_a_message_and_shows_the_bytes_to_be_sent(shared: Lab, tmp_path: Path) -> None:
    sample = revision.packaged("analyzers") / "sysmex-xn" / "samples" / "patient_cbc_diff.astm"
    told = shared.well("try", "sysmex-xn", str(sample))
    for word in ("specimen", "WBC", "MSH|^~\\&|", "OBX|1|", "hl7apy: valid"):
        assert word in told
    [row] = shared.rows("try", "xn-1", str(sample))
    assert row["reports"][0]["role"] == "patient"
    assert row["reports"][0]["results"]
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    status, said = shared.cli("try", "sysmex-xn", str(garbage))
    assert (status, "not read" in said) == (1, True)
    status, said = shared.cli("try", "sysmex-xn", str(garbage), "--json")
    assert (status, json.loads(said)["error"]) == (1, "no header: this is no message")


def test_the_command_itself_runs_as_a_process(shared: Lab) -> None:
    """Once as a process of its own, for the entry point, both outputs and the exit status."""
    specimen = fresh()
    shared.tell(specimen, CRITICAL)
    refused = shared.run("release", specimen)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--reason" in refused.stderr
    done = shared.run("release", specimen, "--reason", "seen", *CALLED)
    assert (done.returncode, done.stderr) == (0, "")
    shared.ward.wait(specimen)
    assert field(shared.ward.of(specimen)[0][1], b"OBX", 5) == "0.20"
