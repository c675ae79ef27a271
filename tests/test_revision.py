"""The revision in force: what is compiled from a configuration, every mistake of it at once, and its digest."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from labbridge import config, pipeline, revision
from labbridge.config import Settings
from labbridge.context import Context
from labbridge.revision import RevisionError

from .small_lab import FILES, actions, moment, observations, report, result

CONFIG = """
[site]
name = "Lab"
timezone = "Asia/Shanghai"

[library]
analyzers = "analyzers"
mappings = "mappings"

[[analyzer]]
name = "a-1"
profile = "plain"
mapping = "lab"
listen = "127.0.0.1:5001"

[[destination]]
name = "his"
connect = "127.0.0.1:6661"

[[route]]
to = "his"

[verification]
auto_release = true
hold = "result"
stale = "1h"
"""
PROFILE = """
[profile]
model = "A"
vendor = "B"
protocol = "hl7v2"

[alarms]
codes = { I1 = { en = "note", zh = "提示", do = "release" }, E1 = { en = "clot", zh = "凝块", do = "hold" } }
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "analyzers" / "plain").mkdir(parents=True)
    (tmp_path / "analyzers" / "plain" / "profile.toml").write_text(PROFILE, "utf-8")
    (tmp_path / "mappings").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mappings" / name).write_text(text, "utf-8")
    return tmp_path


def settings_of(folder: Path, text: str = CONFIG) -> Settings:
    (folder / "labbridge.toml").write_text(text, "utf-8")
    return config.load(folder / "labbridge.toml")


def digest_of(folder: Path, text: str = CONFIG) -> str:
    return revision.build(settings_of(folder, text))[0].digest.hex()


def problems_of(folder: Path, text: str = CONFIG) -> list[str]:
    with pytest.raises(RevisionError) as caught:
        revision.build(settings_of(folder, text))
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def test_a_configuration_becomes_rules_that_decide(library: Path) -> None:
    compiled, notices = revision.build(settings_of(library))
    assert notices == []
    rules = compiled.analyzers["a-1"]
    said = report(
        result("K", "4", alarms=("I1",)),
        result("GLU", "5", alarms=("E1",)),
        result("NA", "140", alarms=("?",)),
        result("HGB", "140", at=-4000),
    )
    outcome = pipeline.decide(said, "S1", b"", b"", Context(), rules, compiled, moment())
    assert actions(outcome.decision.results) == {"K": "release", "GLU": "hold", "NA": "hold", "HGB": "hold"}
    assert [observations(out.payload) for out in outcome.outgoing] == [[("K", "4.00", "F")]]


def test_the_digest_is_that_of_the_whole_body_and_names_all_sources(library: Path) -> None:
    compiled, _ = revision.build(settings_of(library))
    assert compiled.digest == hashlib.sha256(compiled.body).digest()
    assert sorted(json.loads(compiled.body)) == ["catalogue", "map lab", "profile plain", "settings"]


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("tests.csv", "Potassium", "Kalium"),
        ("limits.csv", "5.3", "5.4"),
        ("panels.csv", "Chemistry", "Serum"),
        ("lab.csv", "PNG", "PNH"),
        ("lab.values.csv", "NEG", "NEGA"),
    ],
)
def test_every_table_is_in_the_digest(library: Path, table: str, old: str, new: str) -> None:
    before = digest_of(library)
    file = library / "mappings" / table
    text = file.read_text("utf-8")
    file.write_text("\ufeff" + text.replace("\n", "\r\n"), "utf-8")
    assert digest_of(library) == before  # how a spreadsheet writes it is no change
    file.write_text(text.replace(old, new), "utf-8")
    assert digest_of(library) != before


def test_addresses_are_not_in_the_digest_but_rules_are(library: Path) -> None:
    before = digest_of(library)
    assert digest_of(library, CONFIG.replace("5001", "5009")) == before
    for old, new in (('"1h"', '"2h"'), ('"result"', '"panel"'), ('name = "Lab"', 'name = "Other"')):
        assert digest_of(library, CONFIG.replace(old, new)) != before
    profile = library / "analyzers" / "plain" / "profile.toml"
    profile.write_text(PROFILE.replace('do = "release"', 'do = "hold"'), "utf-8")
    assert digest_of(library) != before


def test_every_mistake_is_told_at_once_and_once(library: Path) -> None:
    (library / "analyzers" / "plain" / "profile.toml").write_text(PROFILE + "[nonsense]\na = 1\n", "utf-8")
    (library / "mappings" / "lab.values.csv").unlink()
    (library / "mappings" / "lab.csv").write_text("code,analyzer_unit,test\nK,mmol/L,NOPE\nGLU,mmol/L,NEITHER\n", "utf-8")
    text = CONFIG.replace('to = "his"', 'to = "his"\ntests = ["NOPE", "K"]').replace(':6661"', ':6661"\ncodes = "his"')
    found = problems_of(library, text)
    assert len(found) == len(set(found)) == 5
    assert all('analyzer "a-1"' in line for line in found[:3])
    assert ["lab.csv:2" in found[1], "lab.csv:3" in found[2]] == [True, True]
    assert found[3].startswith('destination "his": codes = "his" is no column of tests.csv')
    assert found[4].startswith('route to "his": no such test: NOPE;')


def test_a_catalogue_that_cannot_be_read_is_told_line_by_line(library: Path) -> None:
    (library / "mappings" / "tests.csv").write_text("test,name,kind,decimals\nK,Potassium,number,x\nNA,Sodium,number,y\n", "utf-8")
    found = problems_of(library)
    assert [":2" in found[0], ":3" in found[1]] == [True, True]


@pytest.mark.parametrize("line", ['fields = {"MSH-4" = "{site.nam}"}', 'fields = {"OBX-5" = "1"}', 'segments = ["ZLB|{x}"]'])
def test_a_form_that_cannot_be_compiled_names_its_destination(library: Path, line: str) -> None:
    found = problems_of(library, CONFIG.replace("[[route]]", f"[destination.oru]\n{line}\n\n[[route]]"))
    assert len(found) == 1
    assert found[0].startswith('destination "his": ')


def test_a_hospitals_own_codes_are_written_where_it_has_them(library: Path) -> None:
    file = library / "mappings" / "tests.csv"
    head, potassium, *rest = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([head + ",his", potassium + ",H07", *rest]) + "\n", "utf-8")
    compiled, _ = revision.build(settings_of(library, CONFIG.replace(':6661"', ':6661"\ncodes = "his"')))
    said = report(result("K", "4"), result("GLU", "5"))
    outcome = pipeline.decide(said, "S1", b"", b"", Context(), compiled.analyzers["a-1"], compiled, moment())
    assert [test for test, _, _ in observations(outcome.outgoing[0].payload)] == ["H07", "GLU"]


def test_an_analyzers_own_charset_zone_and_patterns_count(library: Path) -> None:
    own = (
        'profile = "plain"\ncharset = "GB18030"\ntimezone = "UTC"\nspecimen_pattern = "^S"\nqc_ids = ["^QC"]\nidentity = "patient"'
    )
    compiled, _ = revision.build(settings_of(library, CONFIG.replace('profile = "plain"', own)))
    rules = compiled.analyzers["a-1"]
    assert (str(rules.zone), rules.identity, str(compiled.zone)) == ("UTC", "patient", "Asia/Shanghai")
    assert rules.specimen_pattern is not None
    assert (rules.specimen_pattern.pattern, [one.pattern for one in rules.qc_ids]) == ("^S", ["^QC"])
    message = "MSH|^~\\&|A|B|||20261121101500||ORU^R01|1|P|2.3.1\rPID|1||P1||王\rOBR|1||S1\rOBX|1|NM|K||4|mmol/L|||||F\r"
    assert pipeline.read(message.encode("GB18030"), rules).reports[0].patient.family == "王"


def test_an_analyzers_own_guesses_are_made_in_their_order(library: Path) -> None:
    message = "MSH|^~\\&|A|B|||20261121101500||ORU^R01|1|P|2.3.1\rPID|1||P1||\u738b\rOBR|1||S1\rOBX|1|NM|K||4|mmol/L|||||F\r"
    for sets, sent, name in (
        ('["UTF-8", "GBK"]', "UTF-8", "\u738b"),
        ('["UTF-8", "GBK"]', "GBK", "\u738b"),
        ('["Latin1", "GBK"]', "GBK", "\u738b".encode("GBK").decode("latin-1")),
    ):
        compiled, _ = revision.build(
            settings_of(library, CONFIG.replace('profile = "plain"', f'profile = "plain"\ncharset = {sets}'))
        )
        assert pipeline.read(message.encode(sent), compiled.analyzers["a-1"]).reports[0].patient.family == name


def test_a_notice_of_a_shared_map_is_given_once(library: Path) -> None:
    (library / "mappings" / "lab.csv").write_bytes((FILES["lab.csv"] + "钾,mmol/L,K,\n").encode("gb18030"))
    another = '[[analyzer]]\nname = "a-2"\nprofile = "plain"\nmapping = "lab"\nlisten = "127.0.0.1:5002"\n\n[[destination]]'
    _, notices = revision.build(settings_of(library, CONFIG.replace("[[destination]]", another)))
    assert len(notices) == 1
    assert "GB18030" in notices[0]


def test_what_comes_with_labbridge_is_found_after_the_laboratorys_own(library: Path) -> None:
    settings = settings_of(library)
    assert revision.folders(settings, "mappings") == [library / "mappings", revision.packaged("mappings")]
    plain = msgspec.structs.replace(settings, library=type(settings.library)())
    assert revision.folders(plain, "analyzers") == [revision.packaged("analyzers")]
    assert (revision.packaged("analyzers") / "generic-hl7" / "profile.toml").is_file()


def test_a_profile_whose_character_set_nobody_knows_is_a_mistake(library: Path) -> None:
    profile = library / "analyzers" / "plain" / "profile.toml"
    profile.write_text(PROFILE + '[link]\ncharset = ["cp437"]\n', "utf-8")
    (problem,) = problems_of(library)
    assert 'analyzer "a-1": character set "cp437" is not known' in problem
