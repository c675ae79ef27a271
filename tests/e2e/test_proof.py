"""What a laboratory can prove at the command line, and what retention leaves of what is old."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import passport as verifier
from tests.e2e.helpers import Lab, fresh
from tests.store.support import behind
from tests.support import wait_until
from tests.torture.fill import fill

Own = Callable[..., Lab]
HEAD = re.compile(r"ledger head.*?([0-9]+:[0-9a-f]{64})")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def heads(lab: Lab) -> list[str]:
    """The ledger's heads that the daemon has logged."""
    return HEAD.findall(COLOURS.sub("", lab.log.read_text()))


def test_a_head_that_was_logged_proves_the_chain(own: Own) -> None:
    """At the start and at the stop; a chain that was written anew, or cut off, is found by it."""
    lab = own()
    specimen = fresh()
    lab.tell(specimen)
    lab.ward.wait(specimen)
    assert lab.stop() == 0
    noted = heads(lab)[-1]
    assert f"head {noted}" in lab.well("verify")
    assert json.loads(lab.well("verify", "--json", "--head", noted))["head"] == noted
    assert specimen not in lab.log.read_text()
    sequence, _, digest = noted.partition(":")
    status, said = lab.cli("verify", "--head", f"{sequence}:{digest[::-1]}")
    assert (status, "the chain was written anew" in said, "find out before going on" in said) == (1, True, True)
    status, said = lab.cli("verify", "--head", f"{int(sequence) + 1}:{digest}")
    assert (status, "its end was cut off" in said) == (1, True)
    for wrong in ("7", "x:00", f"0:{digest}", f"{sequence}:{digest[:-2]}"):
        status, said = lab.cli("verify", "--head", wrong)
        assert (status, "--head is SEQUENCE:HASH" in said) == (2, True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [("specimen = 'other'", "CHANGED"), ("state = 'released'", "report 1 has a state that does not follow")],
    ids=["a fact", "a state"],
)
def test_what_was_changed_behind_its_back_is_found(own: Own, changed: str, told: str) -> None:
    lab = own()
    lab.tell(fresh(), ("6690-2^WBC^LN", "0.20", "10*9/L"))
    wait_until(lambda: bool(lab.rows("pending")), 5, "held")
    assert lab.stop() == 0
    assert "as written" in lab.well("verify")
    with behind(lab.url) as connection:
        connection.exec_driver_sql(f"UPDATE report SET {changed}")
    status, said = lab.cli("verify")
    assert (status, told in said) == (1, True)
    assert json.loads(lab.cli("verify", "--json")[1])["problems"]


def test_a_passport_is_proven_by_another_program(own: Own) -> None:
    lab = own()
    specimens = [fresh() for _ in range(3)]
    for specimen in specimens:
        lab.tell(specimen)
        lab.ward.wait(specimen)
    wait_until(lambda: not lab.queue(), 5, "all delivered")
    exported = lab.well("trace", specimens[0], "--export")
    assert verifier.verify(exported) == 6
    facts = json.loads(exported)["facts"]
    assert [one["fact"] for one in facts] == ["message", "report", "decision", "delivery", "attempt", "revision"]
    assert lab.stop() == 0
    noted = heads(lab)[-1]
    assert verifier.verify(lab.well("trace", specimens[1], "--export", "--head", noted), noted) == 6
    status, said = lab.cli("trace", "NOSUCH", "--export")
    assert (status, "nothing is known of specimen NOSUCH" in said) == (1, True)


def test_retention_deletes_what_is_old_and_tells_of_it(own: Own) -> None:
    """The daemon by itself, beside its work: what came years ago loses its bytes, what came now does not."""
    lab = own()
    specimen = fresh()
    assert lab.stop() == 0
    fill(lab.url, 1000, begin=1000)
    lab.edit('url = "{url}"', 'url = "{url}"\nkeep = "30d"')
    lab.edit('stale = "876000h"', 'stale = "29d"')
    lab.start()
    lab.tell(specimen)
    wait_until(lambda: "bodies=1000" in COLOURS.sub("", lab.log.read_text()), 30, "nothing old is left")
    assert "as written, the bodies of 1000 deleted by retention" in lab.well("verify")
    assert "its text was deleted by retention on" in lab.well("trace", "20001000")
    assert [row["deleted"][:13] for row in lab.story("20001000", "report")] == ["by retention "]
    assert verifier.verify(lab.well("trace", "20001000", "--export")) > 5
    assert "verdict" in (told := lab.well("trace", specimen))
    assert "deleted" not in told


def test_retention_that_is_too_short_is_a_mistake(own: Own, tmp_path: Path) -> None:
    lab = own()
    lab.edit('url = "{url}"', 'url = "{url}"\nkeep = "72h"')
    status, said = lab.cli("check")
    assert (status, "shorter than what is still needed" in said) == (78, True)
