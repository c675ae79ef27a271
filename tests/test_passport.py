"""A specimen's passport is proven by a program that knows nothing of labbridge, and by it any change is found."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbridge.passport import PassportError, passport
from labbridge.store import Link, Reader, Store, Transaction
from labbridge.store.retention import step
from labbridge.store.schema import FACTS
from tests import passport as verifier
from tests.store.support import behind, open_ready, received

WRONG = (verifier.Wrong, LookupError, ValueError, TypeError, AttributeError, verifier.struct.error)
PROGRAM = Path(verifier.__file__)


def text_of(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def chained(store: Store, key: str = "S1") -> None:
    """A specimen's chain and some that are nobody's business."""

    def job(tx: Transaction) -> None:
        report = received(tx, key, body=b"MSH|^~\\&|\xff\x00" + key.encode())
        tx.audit(actor="lab", action="release", subject=f"report {report}", reason="gesehen, 看过", old="held", new="released")
        tx.set_delivery_state(report, "delivered")

    store.call(job)
    for number in range(20):
        store.call(lambda tx: received(tx, f"T{number}"))  # noqa: B023 (run at once)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A store's URL and the passport of a specimen in it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('passport')}/lab.db"
    store = Store(url, clock=iter(range(1, 1_000_000)).__next__)
    store.open()
    store.call(lambda tx: received(tx, "T"))
    chained(store)
    assert store.close()
    reader = Reader(url)
    yield url, text_of(passport(reader, "S1"))
    reader.close()


def test_the_passport_is_proven_on_both_databases(store_url: str) -> None:
    store = Store(store_url)
    open_ready(store)
    chained(store)
    head = store.head
    reader = Reader(store_url)
    document = passport(reader, "S1")
    reader.close()
    assert store.close()
    assert verifier.verify(text_of(document), str(head)) == 7
    kinds = [one["fact"] for one in document["facts"]]
    assert kinds == ["message", "report", "decision", "delivery", "attempt", "revision", "audit"]
    assert document["head"] == {"sequence": head.sequence, "hash": head.hash.hex()}
    assert document["states"] == {"message 1": "", "report 1": "released", "delivery 1": "delivered"}


def test_the_verifier_is_another_program() -> None:
    """Of the standard library alone, and short; its table is that of the store."""
    tree = ast.parse(PROGRAM.read_text("utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)
    assert len(PROGRAM.read_text("utf-8").splitlines()) <= 130
    for fact in FACTS:
        columns = [name for name in fact.table.columns.keys() if name != "state"]  # noqa: SIM118 (no dict)
        by_digest = "*" if fact.body or fact.name == "message" else ""
        assert verifier.FACTS[fact.name] == (fact.code, " ".join(columns) + by_digest)


def test_the_verifier_runs_by_itself(place: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "passport.json"
    file.write_text(place[1], "utf-8")
    head = json.loads(place[1])["head"]
    for noted, status in ((), 0), ((f"{head['sequence']}:{head['hash']}",), 0), ((f"{head['sequence']}:{'0' * 64}",), 1):
        ran = subprocess.run([sys.executable, "-I", str(PROGRAM), str(file), *noted], capture_output=True, text=True, check=False)
        assert ran.returncode == status
        assert ("7 facts proven" in ran.stdout) is (status == 0)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_the_facts_is_found(place: tuple[str, str], data: st.DataObject) -> None:
    """Wherever it stands, unless the JSON says the same with it."""
    text = place[1]
    raw = bytearray(text.encode())
    begin, end = raw.index(b'"facts":['), raw.index(b',"states":')
    at = data.draw(st.integers(begin, end - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = raw.decode()
        if repr(json.loads(changed)) == repr(json.loads(text)):
            return
    except ValueError:
        return
    with pytest.raises(WRONG):
        verifier.verify(changed)


def test_any_changed_link_is_found(place: tuple[str, str]) -> None:
    """Every value of every link leads to the head, or it leads nowhere."""
    document = json.loads(place[1])
    assert len(document["links"]) > 3
    for number, link in enumerate(document["links"]):
        for name, value in link.items():
            other = json.loads(place[1])
            changed = value + 1 if isinstance(value, int) else {"base64": "AAAA"} if isinstance(value, dict) else "11" * 32
            other["links"][number][name] = changed
            with pytest.raises(WRONG):
                verifier.verify(text_of(other))
    del document["links"][-1]
    with pytest.raises(verifier.Wrong):
        verifier.verify(text_of(document))


@given(value=st.recursive(st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), lambda of: st.lists(of, max_size=20)))
@settings(max_examples=200, deadline=None)
def test_the_verifiers_encoding_is_that_of_the_store(value: Any) -> None:
    assert verifier.pack(value) == msgspec.msgpack.encode(value)


@pytest.mark.parametrize("size", [15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_the_verifiers_encoding_of_what_is_long(size: int) -> None:
    for value in ("x" * size, b"x" * size, [1] * size):
        assert verifier.pack(value) == msgspec.msgpack.encode(value)


def test_a_noted_head_proves_what_came_before_it(place: tuple[str, str]) -> None:
    url, _ = place
    reader = Reader(url)
    with reader.snapshot() as snapshot:
        links = [Link(*row) for row in snapshot.exec_driver_sql("SELECT sequence, hash FROM ledger ORDER BY sequence")]
    assert verifier.verify(text_of(passport(reader, "S1", links[4])), str(links[4])) == 7
    assert len(passport(reader, "S1", links[1])["links"]) == 2
    with pytest.raises(PassportError, match="older"):
        passport(reader, "S1", links[0])
    with pytest.raises(PassportError, match="nothing is known"):
        passport(reader, "S9")
    reader.close()


def test_a_long_chain_is_skipped(tmp_path: Path) -> None:
    """Between the facts and the head may be any number of entries: what is shipped grows with the square of the digits."""
    url = f"sqlite:///{tmp_path}/lab.db"
    store = Store(url)
    store.open()
    store.call(lambda tx: received(tx, "S1"))
    for _ in range(700):
        store.call(lambda tx: tx.audit(actor="a", action="b", subject="c"))
    assert store.close()
    reader = Reader(url)
    document = passport(reader, "S1")
    reader.close()
    assert document["head"]["sequence"] == 701
    assert len(document["links"]) < 60
    assert verifier.verify(text_of(document)) == 6


def test_what_retention_deleted_is_proven_without_its_bytes(tmp_path: Path) -> None:
    url, day = f"sqlite:///{tmp_path}/lab.db", 86_400_000_000
    store = Store(url, clock=iter(range(1, 1_000_000)).__next__)
    store.open()
    chained(store)
    store.call(lambda tx: [tx.set_delivery_state(row.id, "delivered") for row in tx.waiting_deliveries()])
    assert store.call(lambda tx: step(tx, 0, day)).bodies == 5 * 21
    assert store.close()
    reader = Reader(url)
    document = passport(reader, "S1")
    reader.close()
    assert verifier.verify(text_of(document)) == 8
    report = next(one["columns"] for one in document["facts"] if one["fact"] == "report")
    assert set(report["document"]) == {"deleted_by_audit", "sha256"}
    audits = [one for one in document["facts"] if one["fact"] == "audit" and one["columns"]["action"] == "retention"]
    assert [one["columns"]["id"] for one in audits] == [report["document"]["deleted_by_audit"]]
    document["facts"].remove(audits[0])
    with pytest.raises(verifier.Wrong, match="nothing tells of the deletion"):
        verifier.verify(text_of(document))


def test_a_store_that_does_not_verify_gives_no_passport(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lab.db"
    store = Store(url)
    store.open()
    chained(store)
    assert store.close()
    with behind(url) as connection:
        connection.exec_driver_sql("UPDATE report SET patient = 'P2' WHERE id = 1")
    reader = Reader(url)
    with pytest.raises(PassportError, match="not in the ledger: report 1"):
        passport(reader, "S1")
    reader.close()
