"""What no profile reads in the corpus: queries, orders, events, free text, tables, XML, malformed. All meets a real daemon.

Each file takes the road that fits it: HL7 in MLLP, ASTM records in frames, to a generic analyzer and to one of its own model.
What is neither comes as it is to an HL7 port, an ASTM port, a port for records without frames, and into a watched folder of
either protocol. The files are not ours to keep: they are read from the folder that LABBRIDGE_CORPUS names.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labbridge.model import Reason
from labbridge.store import Reader
from labbridge.verification.reasons import TEXTS, render_all
from tests.e2e.conftest import Lasting
from tests.e2e.helpers import Lab, fresh, specimen_of
from tests.support import ACK, END, ENQ, START, AstmClient, MllpClient, astm, field, frame, free_ports, wait_until
from tests.test_corpus import profile_of, trial

CORPUS = os.environ.get("LABBRIDGE_CORPUS", "")
pytestmark = pytest.mark.skipif(not CORPUS, reason="LABBRIDGE_CORPUS names no folder")
# Device status and events, and a query that is taken back: stored, acknowledged, and nothing follows.
EVENTS = {"SSU^U03", "ESU^U01", "INU^U05", "TCU^U10", "EAN^U09", "LSU^U12", "QCN^J01"}
NO_FAULT = re.compile(r"Traceback|Error\b|Exception|reader-failed|fault of ours|None\b")


class Given(msgspec.Struct, frozen=True):
    """One file of the corpus."""

    name: str
    kind: str  # query, order, results, other, malformed
    protocol: str  # hl7v2, lis02; else neither
    data: bytes

    @property
    def profiles(self) -> list[str]:
        """The generic profile, and its own model's if there is one."""
        generic = {"hl7v2": "generic-hl7", "lis02": "generic-astm"}[self.protocol]
        return list(dict.fromkeys([generic, profile_of(Path(self.name)) or generic]))

    @property
    def frames(self) -> list[bytes]:
        """Its own ASTM frames, or ours where it has only records."""
        own = re.findall(rb"\x02[0-7][^\x02\x03\x17]*[\x03\x17][0-9A-Fa-f]{2}", self.data)
        records = [record for record in re.split(b"[\r\n]+", self.data) if record]
        return [one + b"\r\n" for one in own] or [frame(number, record + b"\r") for number, record in enumerate(records, 1)]

    @property
    def payload(self) -> bytes:
        """The message without what frames it."""
        if self.protocol == "lis02":
            return b"".join(re.split(b"[\x03\x17]", one)[0][2:] for one in self.frames)
        return self.data.removeprefix(START).removesuffix(END) if self.protocol == "hl7v2" else self.data

    def header(self, number: int) -> str:
        """A field of MSH."""
        return field(self.payload, b"MSH", number - 1)

    @property
    def for_nobody(self) -> bool:
        """Whether no person need see it: a question that was answered, or what says nothing of any patient's specimen."""
        if self.protocol == "hl7v2":
            return self.kind == "query" or "^".join(self.header(9).split("^")[:2]) in EVENTS
        return self.protocol == "lis02" and not re.search(rb"(?:^|\r)[POR]\|", self.payload) and self.payload[:2] == b"H|"


class Sent(msgspec.Struct):
    """A file on one of its roads, and what came of it."""

    given: Given
    analyzer: str
    said: list[bytes]  # what came back: HL7 answers; of ASTM the answer's records
    rows: list[Any]  # the journal's: id, kind, state, note, size, digest, body

    @property
    def ids(self) -> set[int]:
        return {row[0] for row in self.rows}


def files() -> list[Given]:
    """Everything but the messages that are to be read as results; of these, those that are malformed all the same."""
    lines = map(json.loads, (Path(CORPUS) / "expected.jsonl").read_text("utf-8").splitlines())
    rest = [one for one in lines if not one["profiled"] or one["kind"] == "malformed"]
    return [Given(one["file"], one["kind"], one["protocol"], (Path(CORPUS) / one["file"]).read_bytes()) for one in rest]


class Bench:
    """A laboratory with an analyzer for each road, and every file that was sent along."""

    def __init__(self, lasting: Lasting, folder: Path, stack: contextlib.ExitStack) -> None:
        self.files = files()
        self.good: list[str] = []
        self.sent: list[Sent] = []
        self._last: Counter[str] = Counter()  # the newest row of each analyzer that is accounted for
        self.folders = {name: folder / name for name in ("folder-hl7", "folder-astm")}
        profiles = {name for given in self.files if given.protocol in ("hl7v2", "lis02") for name in given.profiles}
        roads = {name: name for name in sorted(profiles)} | {"raw": "generic-astm"}
        self.ports = dict(zip(roads, free_ports(len(roads)), strict=True))
        extra = "".join(
            f'[[analyzer]]\nname = "{name}"\nprofile = "{profile}"\nlisten = "127.0.0.1:{self.ports[name]}"\n'
            for name, profile in roads.items()
        ).replace('"raw"', '"raw"\nframing = "raw"')
        for name, watched in self.folders.items():
            watched.mkdir()
            profile = name.replace("folder", "generic")
            extra += f'[[analyzer]]\nname = "{name}"\nprofile = "{profile}"\nfolder = "{watched}"\nsettle = "50ms"\n'
        self.lab: Lab = stack.enter_context(lasting(extra=extra))
        self.reader = stack.enter_context(closing(Reader(self.lab.url)))

    def rows(self, analyzer: str, after: int = 0) -> list[Any]:
        """What the journal has of an analyzer."""
        text = "SELECT id, kind, state, note, size, digest, body FROM message WHERE analyzer = ? AND id > ? ORDER BY id"
        return [tuple(row) for row in self.reader.stream(text, analyzer, after)]

    def play(self) -> None:
        """Sends every file along its roads, and a good message after each."""
        bare = [given for given in self.files if given.protocol not in ("hl7v2", "lis02")]
        for given in bare:
            for watched in self.folders.values():
                (watched / given.name.replace("/", " ")).write_bytes(given.data)
        for given in self.files:
            roads = ["generic-hl7", "generic-astm", "raw"] if given in bare else given.profiles
            for analyzer in roads:
                said = self._send(given, analyzer)
                rows = self._stored(given, analyzer)
                self._last[analyzer] = rows[-1][0]
                self.sent.append(Sent(given, analyzer, said, rows))
                self._prove_alive()
        for name, watched in self.folders.items():
            wait_until(lambda w=watched: len(list((w / "done").iterdir())) == len(bare), 10, "all files are done")
            found = self.rows(name)
            self.sent += [Sent(given, name, [], [row for row in found if row[6] == given.data]) for given in bare]

    def _stored(self, given: Given, analyzer: str) -> list[Any]:
        """Waits until all of a file is in the journal."""

        def whole() -> list[Any]:
            rows = self.rows(analyzer, self._last[analyzer])
            return rows if sum(row[4] for row in rows) >= len(given.payload) else []

        found: list[Any] = wait_until(whole, 5, f"{given.name} in the journal")
        return found

    def _send(self, given: Given, analyzer: str) -> list[bytes]:
        port = self.ports[analyzer]
        if given.protocol == "lis02":
            with closing(AstmClient(port)) as line:
                return self._framed(line, given, analyzer)
        if given.protocol == "hl7v2":
            with closing(MllpClient(port)) as client:
                client.raw(START + given.payload + END)
                self._stored(given, analyzer)
                said = [client.answer() for _ in owed(given)]
                assert not client.waiting()
            return said
        whole = b""
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.settimeout(10)
            peer.sendall(given.data)
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(65536):
                whole += data
        return [whole]

    def _framed(self, line: AstmClient, given: Given, analyzer: str) -> list[bytes]:
        """Frame by frame, each acknowledged; then what the host has to say."""
        assert line.raw(ENQ) == ACK
        for one in given.frames:
            assert line.raw(one) == ACK
        line.end()
        self._stored(given, analyzer)
        if asks(given, analyzer):
            wait_until(line.waiting, 5, f"an answer to {given.name}")
        return [record.encode() for record in line.receive()] if line.waiting() else []

    def _prove_alive(self) -> None:
        """A good message is taken and answered, over either protocol in turn."""
        specimen = fresh()
        self.good.append(specimen)
        if len(self.good) % 2:
            self.lab.tell(specimen)
            return
        with self.lab.astm_client() as client:
            assert client.send(astm(specimen, [("WBC", "5.00", "10*3/uL")]))


def asks(given: Given, analyzer: str) -> bool:
    """Whether ASTM records are a question that wants an answer; by the standard, Q-13 A takes one back."""
    fields = re.findall(rb"(?:^|\r)Q\|([^\r]*)", given.payload)
    if not fields:
        return False
    cancels = trial(analyzer).rules.profile.query.get("cancel")
    return not (cancels and fields[-1].split(b"|")[11:12] == [b"A"])


def owed(given: Given) -> list[str]:
    """The acknowledgements of HL7 v2 that it is owed, by table 0155."""
    code, when = ("R", "ER") if given.kind == "order" else ("A", "SU")
    asked = {"C": given.header(15), "A": given.header(16)}
    if not set(asked.values()) & {"AL", "NE", "ER", "SU"}:
        return ["A" + code]
    return [kind + code for kind, condition in asked.items() if condition in ("AL", when)]


@pytest.fixture(scope="module")
def bench(lasting: Lasting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        made = Bench(lasting, tmp_path_factory.mktemp("inboxes"), stack)
        made.play()
        yield made


def told(sent: Sent) -> str:
    return f"{sent.given.name} at {sent.analyzer}"


def test_every_file_that_no_profile_reads_is_played(bench: Bench) -> None:
    assert Counter(given.kind for given in bench.files) >= Counter(query=16, order=6, other=8, results=15, malformed=4)
    assert {sent.given.name for sent in bench.sent} == {given.name for given in bench.files}
    neither = [sent for sent in bench.sent if sent.given.protocol not in ("hl7v2", "lis02")]
    assert set(Counter(sent.given.name for sent in neither).values()) == {5}


def test_each_is_in_the_journal_byte_for_byte(bench: Bench) -> None:
    """In one row; on a line of bare records what looks like a message there is a row of its own."""
    for sent in bench.sent:
        rest = sent.given.payload
        for _, kind, _, note, size, digest, body in sorted(sent.rows, key=lambda row: row[1]):
            assert (size, bytes(digest)) == (len(body), hashlib.sha256(body).digest()), told(sent)
            if kind == "stray":
                assert f'"bytes":"{len(body)}"' in note
            assert bytes(body) in rest, told(sent)
            rest = rest.replace(body, b"", 1)
        assert not rest, told(sent)
        assert len(sent.rows) == 1 or sent.analyzer == "raw", told(sent)
    assert "as written" in bench.lab.well("verify")


def test_each_is_answered_as_its_protocol_demands(bench: Bench) -> None:
    """HL7: AA or CA for what is stored, AR where the type is not ours, as MSH-15 and MSH-16 ask. ASTM: "no order" to a query.

    Frames were acknowledged one by one when they were sent; to what is no message nothing is said.
    """
    for sent in bench.sent:
        given = sent.given
        if given.protocol == "hl7v2":
            answers = [(field(one, b"MSA", 1), field(one, b"MSA", 2)) for one in sent.said]
            assert answers == [(code, given.header(10)) for code in owed(given)], told(sent)
            assert all((b"\rERR|" in one) == (given.kind == "order") for one in sent.said), told(sent)
        elif given.protocol == "lis02" and asks(given, sent.analyzer):
            head, end = sent.said
            assert (head[:1], end) == (given.payload[:1], b"L|1|I"), told(sent)
            asker = given.payload.split(b"\r")[0].split(b"|")[4]
            assert head.split(b"|")[9] == asker, told(sent)
        else:
            assert not b"".join(sent.said), told(sent)
    asked = {sent.given.name for sent in bench.sent if b"L|1|I" in sent.said}
    assert asked == {given.name for given in bench.files if (given.kind, given.protocol) == ("query", "lis02")}


def test_each_is_shown_to_a_person_with_a_plain_reason(bench: Bench) -> None:
    """In English and in Chinese, by `pending`; and its bytes by `trace`."""
    rows = bench.lab.rows("pending", "--limit", "1000")
    held = {row["message_id"]: row for row in rows if "report_id" in row}
    waiting = {row["id"]: row for row in rows if "report_id" not in row}
    screens = {language: bench.lab.well("pending", "--limit", "1000", *more) for language, more in (("en", ()), ("zh", ("--zh",)))}
    looked_at = set()
    for sent in bench.sent:
        if sent.given.for_nobody:
            assert not sent.ids & (held.keys() | waiting.keys()), told(sent)
            continue
        assert sent.ids <= held.keys() | waiting.keys(), told(sent)
        for number in sent.ids:
            _prove_plain(_reasons(waiting.get(number) or held[number]), screens, told(sent))
            row = next(row for row in sent.rows if row[0] == number)
            if (row[1], sent.given.protocol) not in looked_at:  # one of each sort: a command takes its time
                looked_at.add((row[1], sent.given.protocol))
                _prove_shown(bench.lab, number, row)
    assert not NO_FAULT.search(screens["en"] + screens["zh"])


def _reasons(row: dict[str, Any]) -> list[Reason]:
    """All that is said about a message, or about a report and what is held of it."""
    results = [reason for result in row.get("results", ()) for reason in result["verdict"]["reasons"]]
    return msgspec.convert([*row.get("note", ()), *row.get("reasons", ()), *results], list[Reason])


def _prove_plain(reasons: list[Reason], screens: dict[str, str], what: str) -> None:
    assert reasons, what
    assert {reason.code for reason in reasons} <= TEXTS.keys(), what
    for language, screen in screens.items():
        assert any(render_all([reason], "zh" if language == "zh" else "en") in screen for reason in reasons), what
    for reason in reasons:
        assert re.search("[\u4e00-\u9fff]", render_all([reason], "zh")), what
        assert "?" not in render_all([reason]), what


def _prove_shown(lab: Lab, number: int, row: Any) -> None:
    [shown] = lab.rows("trace", f"#{number}")
    assert base64.b64decode(shown["body"]) == row[6]
    said = lab.well("trace", f"#{number}", "--zh")
    assert all(line.isprintable() for line in said.split("\n"))


def test_what_is_for_nobody_is_told_by_rule(bench: Bench) -> None:
    """Queries were answered, events tell of devices; each is in the journal as stored, open to nobody, and made no report."""
    nobody = [sent for sent in bench.sent if sent.given.for_nobody]
    for sent in nobody:
        assert [(row[1], row[2], row[3]) for row in sent.rows] == [("stored", "", "")], told(sent)
    about = ", ".join(str(number) for sent in nobody for number in sent.ids)
    assert not list(bench.reader.stream(f"SELECT id FROM report WHERE message_id IN ({about})"))
    kinds = Counter((given.kind, given.protocol) for given in bench.files if given.for_nobody)
    assert kinds.keys() == {("query", "hl7v2"), ("query", "lis02"), ("other", "hl7v2"), ("other", "lis02")}
    assert kinds["other", "hl7v2"] == 2, "a specimen was seen, a query was taken back"
    assert kinds["other", "lis02"] == 1, "manufacturer's records, and no patient, order or result"
    assert {given.for_nobody for given in bench.files if given.kind == "query"} == {True}


def test_nothing_of_it_reaches_the_hospital(bench: Bench) -> None:
    """Nor is anything of it on its way there: the good messages alone arrive, each once. The daemon has seen no fault."""
    for specimen in bench.good:
        bench.lab.ward.wait(specimen)
    assert sorted(specimen_of(message) for _, message in bench.lab.ward.got()) == sorted(bench.good)
    mine = {number for sent in bench.sent for number in sent.ids}
    text = "SELECT report.message_id FROM delivery JOIN report ON report.id = delivery.report_id"
    assert not mine & {row[0] for row in bench.reader.stream(text)}
    log = bench.lab.log.read_text()
    assert not re.search("reader failed|decision failed|Traceback|not stored", log)
