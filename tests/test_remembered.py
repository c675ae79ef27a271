"""What is remembered changes nothing: whatever came before, a message is read, decided and written as by one who sees it first."""

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import mapping, pipeline, profiles, verification
from labbridge.formats import hl7v2, lis02, oru, reading
from labbridge.formats.oru import OruForm
from labbridge.formats.values import clock_for
from labbridge.mapping.limits import Interval, Limits
from labbridge.model import Decided, Patient, Reason, Result, Verdict
from labbridge.verification import Known

from .small_lab import ADULT, FILES, NOW, ZONE, analyzer, codes, report, result, tables, verifier

HL7, ASTM = analyzer(), analyzer(profile="generic-astm")
# Times of results: a usual one, others that have something in common with it or with the rest of a record, bad ones, none.
TIMES = ("20261121101000", "20261121101001", "20261121", "2026", "", "20269921101000", "4.1", "K", "1")
VALUES = (
    "4.1",
    "4.10",
    "6.9",
    "<2.6",
    ">10",
    "0.5",
    "POS",
    "neg",
    "",
    '""',
    "----",
    "1:8",
    "20261121101000",
    "K",
    "4.1 ",
    "é",
    "1e2",
)


def texts(*some: str) -> st.SearchStrategy[str]:
    return st.sampled_from(some)


@st.composite
def hl7_messages(draw: st.DrawFn) -> bytes:
    """A message of several orders and results; many of its records are alike, and never all of them."""
    segments = [f"MSH|^~\\&|A|B|||{draw(texts('20261121101500', '20261121101500+0100'))}||ORU^R01|1|P|2.5.1||||||UNICODE UTF-8"]
    segments.append(f"PID|1||P1||DOE^JO||{draw(texts('19800101', '2026', ''))}|{draw(texts('M', 'F', ''))}")
    for order in range(draw(st.integers(1, 2))):
        segments.append(f"OBR|{order}||S{order}|CBC|||{draw(texts('20261121100000', ''))}")
        for _ in range(draw(st.integers(1, 4))):
            kind, code, value, unit = (
                draw(texts(*some)) for some in (("NM", "ST", "CE"), ("K", "GLU", "HIV", "?"), VALUES, ("mmol/L", ""))
            )
            status, first, second = (draw(texts(*some)) for some in (("F", "C", "X"), TIMES, ("", "", *TIMES)))
            segments.append(f"OBX|1|{kind}|{code}||{value}|{unit}||N|||{status}|||{first}|||||{second}")
            segments += ["NTE|1||seen"] * draw(st.integers(0, 1))
    return ("\r".join(segments) + "\r").encode()


@st.composite
def astm_messages(draw: st.DrawFn) -> bytes:
    records = ["H|\\^&|||An", "P|1|P1", f"O|1|S1|||||{draw(texts('20261121100000', ''))}"]
    for _ in range(draw(st.integers(1, 6))):
        code, value, unit = (draw(texts(*some)) for some in (("K", "GLU", "HIV"), VALUES, ("mmol/L", "")))
        records.append(f"R|1|^^^{code}|{value}|{unit}||N||F||||{draw(texts(*TIMES))}|{draw(texts('', *TIMES))}")
        records += ["C|1|I|seen"] * draw(st.integers(0, 1))
    return ("\r".join([*records, "L|1|N"]) + "\r").encode()


def afresh(payload: bytes, rules: pipeline.AnalyzerRules) -> Any:
    """The reading of a reader that has read nothing before."""
    with unremembering():
        return pipeline.read(payload, rules)


@contextmanager
def unremembering() -> Iterator[None]:
    """Readers are made anew."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (hl7v2, lis02):
            patch.setattr(module, "_readers", module._readers.__wrapped__)
        yield


@given(st.lists(hl7_messages() | astm_messages(), min_size=2, max_size=6))
@settings(max_examples=60)
def test_a_message_is_read_as_if_it_were_the_first(payloads: list[bytes]) -> None:
    for payload in payloads + payloads:
        rules = HL7 if payload[:3] == b"MSH" else ASTM
        assert pipeline.read(payload, rules) == afresh(payload, rules)


@pytest.mark.parametrize("room", [1, 3, 8192])
def test_a_reader_that_forgets_reads_the_same(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it keeps no more records than it has room for."""
    monkeypatch.setattr(reading, "_REMEMBERED", room)
    reader = hl7v2._reader(HL7.profile, hl7v2.er7.DEFAULT, "")
    monkeypatch.setattr(hl7v2, "_readers", lambda _: lambda *_: reader)
    for n in [*range(20), *range(20)]:
        segment = f"OBX|1|NM|K||{n}|mmol/L||N|||F|||202611211010{n:02}"
        (found,) = pipeline.read(f"{HEAD}{segment}\r{segment}\r".encode(), HL7).reports[0].results[:1]
        assert (found.value, found.measured) == (str(n), f"202611211010{n:02}")
        assert sum(map(len, reader.plain.results._seen.values())) <= room


HEAD = "MSH|^~\\&|A|B|||||ORU^R01|1|P|2.5.1\rPID|1||P1\rOBR|1||S1\r"


def test_records_of_many_orders_are_not_all_remembered() -> None:
    """What stands around a record may be the number of its order, which never comes again."""
    own = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "hl7v2"\n[result]\nrun = ["OBX-4", "OBR-2"]\nmeasured = "OBX-14"\n'
    rules = msgspec.structs.replace(HL7, profile=profiles.parse("m", own))
    segment = "OBX|1|NM|K||4|mmol/L||N|||F|||20261121101000\r"
    for n in [*range(1000), *("x" * 1000 + str(n) for n in range(10))]:
        head = HEAD.replace("OBR|1||", f"OBR|1|{n}|")
        assert pipeline.read(f"{head}{segment}{segment}".encode(), rules).reports[0].results[1].run == str(n)
    seen = hl7v2._readers(rules.profile)(hl7v2.er7.DEFAULT, "", False).plain.results._seen
    assert 1 <= len(seen) <= 256
    assert max(map(len, (text for _, around in seen for text in around))) <= 300


def test_a_time_that_stands_elsewhere_in_its_record_too_is_not_taken_for_the_value() -> None:
    """A record with its time in it twice says something else when the time is another."""
    for time in ("20261121101000", "20261121101001", "20261121101000"):
        segments = f"OBX|1|NM|K||4|mmol/L||N|||F|||{time}\rOBX|2|ST|K||{time}|mmol/L||N|||F|||{time}\r"
        found = pipeline.read(f"{HEAD}{segments}".encode(), HL7).reports[0].results
        assert [one.value for one in found] == ["4", time]


def test_a_time_in_another_field_may_mean_another_time() -> None:
    own = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "hl7v2"\n[result]\n'
    own += 'measured = ["OBX-19.1", {from = "OBX-14", pattern = "([0-9]{8}).*"}]\n'
    rules = msgspec.structs.replace(HL7, profile=profiles.parse("m", own))
    began, ended = "OBX|1|NM|K||4|mmol/L||N|||F|||20261121101000", "OBX|1|NM|K||4|mmol/L||N|||F||||||||20261121101000"
    for segments in ([began, began], [ended, ended], [began, ended, began, ended]):
        found = pipeline.read(f"{HEAD}{chr(13).join(segments)}\r".encode(), rules).reports[0].results
        assert [one.measured for one in found] == ["20261121" if one is began else "20261121101000" for one in segments]


results = st.builds(
    result,
    texts("K", "K", "K", "K", "GLU", "HIV", "PNG", "LOOK", "XYZ"),
    texts("4.1", "4.1", "4.1", "6.9", "POS", ""),
    at=texts("-600", "-600", "-60", "-999999", "").map(lambda text: float(text) if text else None),
    unit=texts("mmol/L", "mmol/L", "mmol/L", "g/L", ""),
    status=texts("F", "F", "P", "C", "X", "N"),
    kind=texts("number", "number", "number", "text", "absent"),
    comparator=texts("", "", "<"),
    alarms=st.sampled_from(((), (), (), (), ("43",))),
    comments=st.just(()) | st.just(("seen",)),
    problems=st.sampled_from(((), (), (), (), (Reason("bad-time"),))),
)
patients = st.sampled_from((ADULT, Patient(), Patient(sex="F", birth="19800101"), Patient(sex="M", birth="20261110")))
released = st.sampled_from(({}, {}, {"K": Known("4.10", int(NOW) - 600)}, {"GLU": Known("4.10", None, False)}))
more = st.fixed_dictionaries({"patient": patients, "problems": st.just(()) | st.just((Reason("no-specimen"),))})


@given(
    st.lists(st.tuples(st.lists(results, min_size=1, max_size=2), more, released, st.booleans()), min_size=4, max_size=12),
    st.booleans(),
    texts("1", "16384", "16384"),
)
@settings(max_examples=100)
def test_a_report_is_judged_as_if_it_were_the_first(reports: list[Any], auto: bool, room: str) -> None:
    """The verdicts that are remembered are those that ``verify`` makes anew; other maps and patients have their own."""
    judge = verifier(auto_release=auto)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_REMEMBERED", int(room))
        for some, said, known, other in reports + reports:
            about = report(*some, **said)
            map_ = tables("GLU,g/L,HGB,\n" if other else "")[1]
            anew = verifier(auto_release=auto).verify(about, [map_.map(one) for one in some], known, NOW)
            assert judge.judge(about, map_, known, NOW) == anew
            assert sum(len(kind.seen) for kind in judge._kinds.values()) <= int(room)


MALE, FEMALE, CHILD = ADULT, msgspec.structs.replace(ADULT, sex="F"), msgspec.structs.replace(ADULT, birth="20261110")
MAPS = {
    "plain": "code,analyzer_unit,test,action\nHGB,g/L,HGB,\n",
    "tenfold": "code,analyzer_unit,test,action,factor\nHGB,g/L,HGB,,1.1\n",
    "other": "code,analyzer_unit,test,action,factor\nHGB,g/L,NA,,1\n",
    "holds": "code,analyzer_unit,test,action\nHGB,g/L,HGB,hold\n",
    "ignores": "code,analyzer_unit,test,action\nHGB,g/L,,ignore\n",
    "unmapped": "code,analyzer_unit,test,action\nNA,g/L,HGB,\n",
    "by specimen": "code,analyzer_unit,specimen,test,action\nHGB,g/L,BLD,HGB,\nHGB,g/L,UR,,ignore\n",
}


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[mapping.Catalogue, dict[str, mapping.CodeMap]]:
    """A catalogue whose limits go by sex, age and specimen, and several maps of one code."""
    folder = tmp_path_factory.mktemp("maps")
    rows = ["test,kind,sex,age_from,age_to,specimen,low,high", "HGB,reference,M,18y,,,130,175", "HGB,reference,F,18y,,,115,150"]
    rows += ["HGB,reference,,,28d,,145,225", "HGB,reference,M,18y,,CORD,90,100", "HGB,critical,F,18y,,CORD,,110"]
    (folder / "limits.csv").write_text("\n".join(rows) + "\n")
    for name in ("tests.csv", "panels.csv"):
        (folder / name).write_text(FILES[name])
    catalogue = mapping.load_catalogue([folder])
    for name, text in MAPS.items():
        (folder / f"{name}.csv").write_text(text)
    return catalogue, {name: mapping.load_code_map(name, [folder], catalogue) for name in MAPS}


@pytest.mark.parametrize("reverse", [False, True])
def test_one_result_has_a_verdict_for_each_map_patient_and_specimen(reverse: bool, maps: Any) -> None:
    """The very same result: two maps share no verdict, nor do a man, a woman and a child, blood and urine."""
    catalogue, by_name = maps

    def fresh() -> verification.Verifier:
        return verification.Verifier(verification.Rules(auto_release=True), catalogue, bool, ZONE)

    same = result("HGB", "120", unit="g/L")
    cases = [(map_, who, kind) for map_ in by_name.values() for who in (MALE, FEMALE, CHILD) for kind in ("", "BLD", "UR", "CORD")]
    judge, found = fresh(), []
    for map_, who, kind in [*(reversed(cases) if reverse else cases), *cases]:
        about = report(same, patient=who)
        about = msgspec.structs.replace(about, specimen=msgspec.structs.replace(about.specimen, type=kind))
        (one,) = judge.judge(about, map_, {}, NOW)
        assert (one,) == fresh().verify(about, [map_.map(same, kind)], {}, NOW)
        found.append((one.test, one.value, one.flag, one.reference, one.verdict.action, *codes([one])))
    assert len(set(found)) >= 14  # they do differ


def test_two_analyzers_of_one_profile_keep_each_their_map() -> None:
    """They share nothing but the profile's name; after a change of the map it is the new one that counts."""
    payload = f"{HEAD}OBX|1|NM|GLU||4.1|g/L||N|||F|||20261121101000\r".encode()
    maps_of = {"": ["unit-unknown"], "GLU,g/L,HGB,\n": ["critical"], "GLU,g/L,K,hold\n": ["held-by-map"]}
    rules = [(analyzer(more_codes=more), reasons) for more, reasons in maps_of.items()]
    for one, reasons in rules * 2:
        said = pipeline.read(payload, one).reports[0]
        assert codes(pipeline.verdicts(said, "S1", pipeline.Context(), one, NOW)) == [*reasons]


def test_many_kinds_of_specimens_are_not_all_remembered() -> None:
    judge = verifier()
    for n in range(1000):
        about = report(result("K", "4.1"))
        judge.judge(
            msgspec.structs.replace(about, specimen=msgspec.structs.replace(about.specimen, type=str(n))), tables()[1], {}, NOW
        )
    assert len(judge._kinds) <= 256


def test_what_a_sender_may_write_at_any_length_fills_no_memory() -> None:
    """Megabytes as a specimen's type, a unit, a value, a time: none of them is kept once its message is gone."""
    judge, rules = verifier(), analyzer()
    words = Limits(Interval(words=frozenset(("Negative",))))
    long = "y" * 500_000
    writer = oru.compile(OruForm(), {}, zone=ZONE)
    tracemalloc.start()
    try:
        for n in range(24):
            said = pipeline.read(
                f"{HEAD}OBX|1|NM|K||4|mmol/L||N|||F|||20261121101000.{str(n) * 500_000}\r".encode(), rules
            ).reports[0]
            writer.write(said, judge.judge(said, rules.codes, {}, NOW), control_id="1", stamp="20261121101500+0800")
            about = report(result("K", "4.1", unit=f"{n}{long}"), result("HIV", f"{n}{long}"), result(f"{n}{long}", "1"))
            about = msgspec.structs.replace(about, specimen=msgspec.structs.replace(about.specimen, type=f"{n}{long}"))
            judge.judge(about, rules.codes, {}, NOW)
            judge.catalogue.limits_for("M", 1, f"{n}{long}")
            words.judge(f"{n}{long}")
            if n == 3:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_sender_that_changes_its_delimiters_does_not_fill_the_memory() -> None:
    """A reader of its own for each would keep thousands of texts each."""
    marks = ["^~\\&", "^~\\!", "^~\\#", "^~\\$", "^~\\%", "^~\\*", "^~\\;", "^~\\:"]
    rules = analyzer()
    readers = weakref.WeakSet(hl7v2._readers(rules.profile)(hl7v2.er7.delimiters(f"MSH|{each}|"), "", False) for each in marks)
    gc.collect()
    assert 1 <= len(readers) <= 4
    clocks = [weakref.ref(clock_for(rules.profile, ZONE, f"20261121101000+0{hour}00")) for hour in range(9)]
    gc.collect()
    assert 1 <= sum(one() is not None for one in clocks) <= 4


decided = st.builds(
    Decided,
    st.just(0),
    st.just("K"),
    st.just(Verdict("release")),
    texts("K", "GLU", "HGB", "new"),
    texts("4.1", "<4.1", "1:8", "a|b", "POS", "x" * 100),
    texts("mmol/L", ""),
    texts("mmol/l", ""),
    texts("number", "comparator", "text", "coded"),
    texts("N", "H", ""),
    texts("3.5-5.3", ""),
    texts("F", "C", "P"),
    st.sampled_from((None, int(NOW), int(NOW) - 60)),
)
forms = st.builds(
    OruForm,
    version=st.sampled_from(("2.3", "2.3.1", "2.4", "2.5.1")),
    obr=st.sampled_from(("panel", "test", "specimen")),
    units=st.sampled_from(("ucum", "print")),
    flags=st.sampled_from(("computed", "analyzer")),
    fields=st.sampled_from(({}, {"OBX-3": "{specimen.id}", "ORC-2": "{order.id}"})),
)


@given(forms, st.lists(st.lists(decided, min_size=1, max_size=5), min_size=2, max_size=5), texts("1", "8192"))
@settings(max_examples=80)
def test_a_report_is_written_as_if_it_were_the_first(form: OruForm, reports: list[list[Decided]], room: str) -> None:
    names = {code: oru.Coded(code, panel=panel) for code, panel in (("K", "CHEM"), ("GLU", "CHEM"), ("HGB", "CBC"))}
    writer = oru.compile(form, names, zone=ZONE)
    about = report(Result("K", "4.1", measured="20261121101000", flags=("H",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oru, "_REMEMBERED", int(room))
        for some in reports + reports:
            what: dict[str, Any] = {"control_id": "1", "stamp": "20261121101500+0800", "analyzer": "a-1"}
            assert writer.write(about, some, **what) == oru.compile(form, names, zone=ZONE).write(about, some, **what)
            assert len(writer._said) <= int(room)
