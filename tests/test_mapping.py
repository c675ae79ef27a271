"""The mapping of one result, the reading of the tables, units, and the judgement by limits."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import mapping
from labbridge.mapping import units
from labbridge.mapping.catalogue import Panel, loinc_mistake
from labbridge.mapping.codes import Rule
from labbridge.mapping.limits import EVER, LEAST, MOST, Interval, LimitRow, LimitTable, age_in_days
from labbridge.model import Reason, Result

PACKAGED = Path(__file__).parents[1] / "mappings"

TESTS = """\
test,name,name_zh,short,loinc,specimen,unit,print_unit,decimals,kind,release,sort,his
WBC,Leukocytes,白细胞计数,WBC,6690-2,BLD,10*9/L,10^9/L,2,number,auto,10,H001
HGB,Hemoglobin,血红蛋白,HGB,718-7,BLD,g/L,g/L,0,number,auto,20,H002
HCT,Hematocrit,红细胞比容,HCT,4544-3,BLD,%,%,1,number,auto,30,
NEUT#,Neutrophils,中性粒细胞绝对值,NEUT#,751-8,BLD,10*9/L,10^9/L,2,number,auto,40,
NEUT%,Neutrophils,中性粒细胞百分比,NEUT%,770-8,BLD,%,%,1,number,auto,50,
GLU,Glucose,葡萄糖,GLU,14749-6,SER,mmol/L,mmol/L,2,number,auto,60,
INR,INR,国际标准化比值,INR,6301-6,PLAS,{INR},,2,number,auto,70,
PCO2,pCO2,二氧化碳分压,pCO2,2019-8,BLDA,kPa,kPa,2,number,auto,75,
VL,HIV load,病毒载量,VL,20447-9,PLAS,{copies}/mL,copies/mL,0,number,auto,80,
HBSAG,HBsAg,表面抗原,HBsAg,5196-1,SER,,,,coded,auto,90,
NOTE,Remark,备注,NOTE,,,,,,text,auto,100,
ABO,ABO,ABO血型,ABO,883-9,BLD,,,,coded,,110,
"""
LIMITS = """\
test,kind,sex,age_from,age_to,specimen,low,high,text,source,approved_by
HGB,reference,M,18y,,,130,175,,WS/T 405-2012,
HGB,reference,F,18y,,,115,150,,WS/T 405-2012,
HGB,critical,,28d,,,60,200,,textbook,
HGB,critical,,0d,28d,,95,223,,textbook,
HGB,absurd,,,,,15,280,,textbook,
GLU,reference,,,,,3.9,6.1,,textbook,
GLU,reference,,,,CSF,2.5,4.4,,textbook,
INR,critical,,,,,,5.0,,textbook,
HBSAG,reference,,,,,,,Negative|Non-reactive,textbook,
HBSAG,critical,,,,,,,Positive,textbook,
"""
PANELS = "panel,name,name_zh,test,sort\nCBC,Blood count,血细胞计数,HGB,20\nCBC,,,WBC,10\nX,Extra,其他,HGB,1\n"
HEADER = "code,analyzer_unit,specimen,test,action,factor,offset,reads_as,comment\n"
CODES = (
    HEADER
    + """\
WBC,10*3/uL,,WBC,,,,,
HGB,g/dL,,HGB,,,,,
HGB,g/L,,HGB,,,,,
HCT,,,HCT,,,,1,without a unit it is a fraction
HCT,%,,HCT,,,,,
NEUT#,10*9/L,,NEUT#,,,,,
NEUT%,%,,NEUT%,,,,,
GLU,mg/dL,,GLU,,0.05551,,,180.16 g/mol
GLU,mmol/L,,GLU,,,,,
CGLU,mmol/L,CSF,GLU,,,,,
CGLU,mg/dL,CSF,GLU,,0.05551,,,
INR,,,INR,,,,,
CO2,mmHg,,PCO2,,,,,
TMP,K,,INR,,2,-1,,a slope and an offset
VL,copies/mL,,VL,,,,,
LOG,copies/mL,,VL,hold,,,,
WRONG,g/dL,,HGB,,,,g/L,the analyzer names the wrong unit
AG,*,,HBSAG,,,,,
NOTE,*,,NOTE,,,,,
PIC,*,,,attach,,,,
IP,*,,,ignore,,,,
"""
)
VALUES = """\
code,value,means,kind
*,ValueNotSet,,skip
*,Negative,Negative,coded
AG,reactive,Positive,coded
VL,Target Not Detected,ND,coded
VL,-1,,skip
*,rem,a remark,
"""

Lab = Callable[..., tuple[mapping.Catalogue, mapping.CodeMap]]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Writes a laboratory's tables and loads them."""

    def load(codes: str = CODES, values: str = VALUES, **files: str) -> tuple[mapping.Catalogue, mapping.CodeMap]:
        texts = {"tests": TESTS, "limits": LIMITS, "panels": PANELS, "model": codes, "model.values": values} | files
        for name, text in texts.items():
            (tmp_path / f"{name}.csv").write_text(text, "utf-8")
        catalogue = mapping.load_catalogue([tmp_path])
        return catalogue, mapping.load_code_map("model", [tmp_path], catalogue)

    return load


@pytest.fixture
def codes(lab: Lab) -> mapping.CodeMap:
    return lab()[1]


def number(code: str, text: str, unit: str = "") -> Result:
    return Result(code, text, "number", text, unit=unit)


def reason(mapped: mapping.Mapped) -> str:
    (only,) = mapped.reasons
    return only.code


# --- traps that other systems fell into


@pytest.mark.parametrize("value", ["***", "*****", "-----", "INDETERMINATE", "++++", "NaN", "Infinity", "1_0", "１２"])
@pytest.mark.parametrize("kind", ["text", "absent", "number"])
def test_non_numeric_not_zero(codes: mapping.CodeMap, value: str, kind: str) -> None:
    mapped = codes.map(Result("WBC", value, kind, unit="10*3/uL"))  # type: ignore[arg-type]
    assert mapped.action in ("hold", "unreadable")
    assert mapped.value == ""
    assert reason(mapped) in ("no-result", "not-a-number")


def test_percent_vs_absolute(lab: Lab, codes: mapping.CodeMap) -> None:
    share, count = codes.map(number("NEUT%", "57.4", "%")), codes.map(number("NEUT#", "4.67", "10*9/L"))
    assert (share.test and share.test.loinc, count.test and count.test.loinc) == ("770-8", "751-8")
    assert reason(codes.map(number("NEUT#", "57.4", "%"))) == "unit-unknown"
    with pytest.raises(mapping.MappingError, match="a share and an amount, never one test"):
        lab(HEADER + "NEUT%,%,,NEUT#,,1,,,\n", "code,value\n")
    with pytest.raises(mapping.MappingError, match="is also that of NEUT#"):
        lab(tests=TESTS.replace("770-8", "751-8"))


def test_inserted_obx_no_shift(codes: mapping.CodeMap) -> None:
    message = [number("WBC", "7.32", "10*3/uL"), number("HGB", "146", "g/L"), number("GLU", "5.10", "mmol/L")]
    before = [codes.map(result) for result in message]
    after = [codes.map(result) for result in [message[0], number("NEW", "99"), *message[1:]]]
    assert [after[0], *after[2:]] == before
    assert after[1].action == "unmapped"


# --- numbers


@pytest.mark.parametrize(
    ("code", "text", "unit", "reported"),
    [
        ("WBC", "7.32", "10*3/uL", "7.32"),
        ("WBC", "7.325", "10*3/uL", "7.33"),
        ("WBC", "7.3", "10*3/uL", "7.30"),
        ("WBC", "07.32", "10*3/uL", "7.32"),
        ("WBC", "-0.000397", "10*3/uL", "0.00"),
        ("WBC", "1.5E1", "10*3/uL", "15.00"),
        ("HGB", "8.0", "g/dL", "80"),
        ("HGB", "14.65", "g/dL", "147"),
        ("HGB", "146", "g/L", "146"),
        ("WRONG", "146", "g/dL", "146"),
        ("HCT", "0.405", "", "40.5"),
        ("HCT", "43.3", "%", "43.3"),
        ("GLU", "98.861235", "mg/dL", "5.49"),
        ("CO2", "40", "mmHg", "5.33"),
        ("TMP", "1.25", "K", "1.50"),
    ],
)
def test_a_number_is_converted_exactly_and_rounded_once(
    codes: mapping.CodeMap, code: str, text: str, unit: str, reported: str
) -> None:
    mapped = codes.map(number(code, text, unit))
    assert (mapped.action, mapped.value, mapped.kind) == ("report", reported, "number")
    assert mapped.test is not None
    assert (mapped.unit, mapped.print_unit) == (mapped.test.unit, mapped.test.print_unit)


@given(st.decimals(min_value=0, max_value=10**6, places=6), st.integers(0, 6))
@settings(max_examples=150)
def test_rounding_agrees_with_half_up_on_the_fraction(value: Decimal, places: int) -> None:
    catalogue = mapping.Catalogue({}, {}, {})
    assert catalogue.limits("WBC", "M", 1) is None
    rule = _rule_of(places, Decimal(1))
    rounded = rule.number(format(value, "f"))
    scaled = Fraction(value) * 10**places
    assert rounded is not None
    assert Fraction(rounded) * 10**places == (scaled + Fraction(1, 2)).__floor__()


@given(st.decimals(min_value=0, max_value=10**5, places=4), st.decimals(min_value="0.0001", max_value=1000, places=4))
@settings(max_examples=100)
def test_conversion_loses_nothing_before_the_one_rounding(value: Decimal, factor: Decimal) -> None:
    exact = Fraction(value) * Fraction(factor)
    expected = Decimal(exact.numerator) / Decimal(exact.denominator)  # at most 16 digits: exact
    assert _rule_of(2, factor).number(str(value)) == str(expected.quantize(Decimal("0.01"), ROUND_HALF_UP))


@given(st.integers(0, 10**6), st.integers(0, 99))
@settings(max_examples=60)
def test_a_text_with_the_tests_decimals_is_reported_as_it_was_sent(whole: int, cents: int) -> None:
    catalogue = mapping.load_catalogue([PACKAGED])
    text = f"{whole}.{cents:02d}"
    mapped = _packaged("sysmex-xn", catalogue).map(number("WBC", text, "10*3/uL"))
    assert mapped.value is text or mapped.value == text


@given(st.sampled_from(["<", "<=", ">", ">="]), st.decimals(min_value=0, max_value=1000, places=4), st.integers(0, 3))
@settings(max_examples=100)
def test_a_rounded_comparator_never_says_more_than_was_sent(comparator: str, limit: Decimal, places: int) -> None:
    rounded = _rule_of(places, Decimal(1)).number(str(limit), comparator)
    assert rounded is not None
    assert Decimal(rounded) >= limit if comparator[0] == "<" else Decimal(rounded) <= limit
    assert abs(Decimal(rounded) - limit) < Decimal(1).scaleb(-places)


def _rule_of(places: int, factor: Decimal) -> Rule:
    return Rule(mapping.Test("T", unit="g/L", decimals=places), factor)


_loaded: dict[str, mapping.CodeMap] = {}


def _packaged(name: str, catalogue: mapping.Catalogue) -> mapping.CodeMap:
    if name not in _loaded:
        _loaded[name] = mapping.load_code_map(name, [PACKAGED], catalogue)
    return _loaded[name]


@pytest.mark.parametrize("text", ["1E99", "9" * 250, "", "1.2.3", "--1"])
def test_a_number_that_cannot_be_held_is_unreadable(codes: mapping.CodeMap, text: str) -> None:
    mapped = codes.map(Result("WBC", text or "x", "number", text, unit="10*3/uL"))
    assert (mapped.action, reason(mapped)) == ("unreadable", "not-a-number")


def test_a_comparator_stays_in_front(codes: mapping.CodeMap) -> None:
    assert codes.map(Result("WBC", "<0.01", "comparator", "0.01", "<", "10*3/uL")).value == "<0.01"
    assert codes.map(Result("HGB", ">= 25.5", "comparator", "25.5", ">=", "g/dL")).value == ">=255"
    assert codes.map(Result("VL", "<839.2", "comparator", "839.2", "<", "copies/mL")).value == "<840"
    assert codes.map(Result("GLU", ">0.109", "comparator", "0.109", ">", "mmol/L")).value == ">0.10"


# --- finding the line


def test_a_code_without_a_line_is_unmapped(codes: mapping.CodeMap) -> None:
    mapped = codes.map(number("NEW", "1", "g"))
    assert (mapped.action, mapped.test) == ("unmapped", None)
    assert mapped.reasons == (Reason("unmapped", {"code": "NEW", "unit": "g"}),)


def test_a_unit_that_no_line_names_is_held(codes: mapping.CodeMap) -> None:
    mapped = codes.map(number("WBC", "7.3", ""))
    assert (mapped.action, mapped.test) == ("hold", None)
    assert mapped.reasons == (Reason("unit-unknown", {"code": "WBC", "unit": ""}),)
    assert codes.map(Result("WBC", "", "absent")).action == "ignore"
    assert codes.map(Result("WBC", "", "absent", flags=("A",))).action == "hold"


@pytest.mark.parametrize("unit", ["10*3/uL", "10^3/uL", "10E3/µL", "x10^3/μL", "K/uL", "10³/µl", "1E03/mm3"])
def test_another_spelling_of_the_unit_finds_the_line(codes: mapping.CodeMap, unit: str) -> None:
    assert codes.map(number("WBC", "7.32", unit)).value == "7.32"


def test_a_line_for_a_specimen_type_holds_for_that_type_alone(lab: Lab) -> None:
    _, codes = lab(CODES + "GLU,mmol/L,CSF,INR,,1,,,\n")
    in_csf, in_serum = (codes.map(number("GLU", "3.00", "mmol/L"), specimen) for specimen in ("csf", "SER"))
    assert (in_csf.test and in_csf.test.code, in_serum.test and in_serum.test.code) == ("INR", "GLU")
    assert codes.map(number("CGLU", "3.00", "mmol/l"), "CSF").value == "3.00"
    assert reason(codes.map(number("CGLU", "3.00", "mmol/L"), "SER")) == "specimen-unknown"
    assert reason(codes.map(number("CGLU", "3.00", "g/L"), "CSF")) == "unit-unknown"


def test_an_empty_value_that_nobody_remarked_on_is_ignored_whatever_its_code(lab: Lab) -> None:
    """A test that was not run; with a flag or an alarm a person looks at it."""
    _, codes = lab(CODES + "CFLAG,*,,HGB,hold,,,,\n")
    mapped, held, unmapped = ("HGB", "g/L", ""), ("CFLAG", "", ""), ("NEW", "", "")
    for code, unit, specimen in (mapped, held, unmapped, ("WBC", "?", ""), ("CGLU", "mmol/L", "SER"), ("NOTE", "", "")):
        empty = codes.map(Result(code, "", "absent", unit=unit, flags=("N",)), specimen)
        assert (empty.action, reason(empty)) == ("ignore", "absent"), code
        for odd in (Result(code, "", "absent", unit=unit, flags=("A",)), Result(code, "", "text", unit=unit, alarms=("43",))):
            assert codes.map(odd, specimen).action in ("hold", "unmapped"), code
    assert codes.map(Result("NEW", "", "absent", flags=("A",))).action == "unmapped"
    for status in "ACDWX":  # what was sent before is changed or taken back: the hospital must not keep it unseen
        assert codes.map(Result("NEW", "", "absent", status=status)).action == "unmapped"
    assert codes.map(Result("NEW", "", "absent", comments=("clotted, repeat",))).action == "unmapped"


def test_a_line_that_holds_may_name_its_test(lab: Lab) -> None:
    catalogue, codes = lab(CODES + "VARIANT,%,,HCT,hold,,,,\n")
    held = codes.map(number("VARIANT", "38.1", "%"))
    assert (held.action, held.test, held.value, reason(held)) == ("hold", catalogue.tests["HCT"], "", "held-by-map")


def test_lines_that_settle_the_result_whatever_its_value(codes: mapping.CodeMap) -> None:
    assert codes.map(Result("IP", "70")).action == "ignore"
    assert codes.map(Result("PIC", "PNG", "attachment")).action == "attach"
    held = codes.map(number("LOG", "3.09", "copies/mL"))
    assert (held.action, reason(held)) == ("hold", "held-by-map")


# --- words


@pytest.mark.parametrize(
    ("code", "value", "unit", "expected"),
    [
        ("AG", "Negative", "", ("report", "Negative", "coded")),
        ("AG", "REACTIVE", "", ("report", "Positive", "coded")),
        ("AG", "rem", "", ("report", "a remark", "coded")),
        ("NOTE", "rem", "", ("report", "a remark", "text")),
        ("AG", "ValueNotSet", "", ("ignore", "", "")),
        ("VL", "target not detected", "copies/mL", ("report", "ND", "coded")),
        ("NOTE", "slightly lipemic", "", ("report", "slightly lipemic", "text")),
    ],
)
def test_the_values_file_gives_words_their_meaning(
    codes: mapping.CodeMap, code: str, value: str, unit: str, expected: tuple[str, str, str]
) -> None:
    mapped = codes.map(Result(code, value, unit=unit))
    assert (mapped.action, mapped.value, mapped.kind) == expected


def test_a_word_for_every_code_is_no_word_for_a_number(codes: mapping.CodeMap) -> None:
    assert reason(codes.map(Result("WBC", "Negative", unit="10*3/uL"))) == "not-a-number"


def test_a_number_may_be_a_word(codes: mapping.CodeMap) -> None:
    assert codes.map(number("VL", "-1", "copies/mL")).action == "ignore"
    assert codes.map(number("VL", "12", "copies/mL")).value == "12"


def test_an_unknown_word_of_a_coded_test_is_held(codes: mapping.CodeMap) -> None:
    for result in (Result("AG", "INVALID"), number("AG", "0.325"), Result("AG", "1:80", "ratio")):
        mapped = codes.map(result)
        assert (mapped.action, reason(mapped)) == ("hold", "unknown-word")


def test_an_empty_value_was_not_run_and_a_remarked_one_is_held(codes: mapping.CodeMap) -> None:
    assert reason(codes.map(Result("HGB", "", "absent", unit="g/L", flags=("N",)))) == "absent"
    for odd in (Result("HGB", "", "absent", unit="g/L", flags=(">",)), Result("HGB", "", unit="g/L", alarms=("43",))):
        mapped = codes.map(odd)
        assert (mapped.action, reason(mapped)) == ("hold", "no-result")


def test_a_file_is_attached(codes: mapping.CodeMap) -> None:
    assert codes.map(Result("NOTE", "^Image^BMP", "attachment")).action == "attach"


# --- mistakes in the tables


@pytest.mark.parametrize(
    ("old", "new", "column", "message"),
    [
        ("WBC,L", "HGB,L", "test", "already in another line"),
        ("\nWBC", "\n", "test", "is empty"),
        ("6690-2", "6690-3", "loinc", "check digit of 6690-3 is wrong (of 6690 it is 2)"),
        ("6690-2", "66902", "loinc", "is not a LOINC code"),
        (",g/L,", ",g/l,", "unit", "write g/L"),
        (",g/L,", ",gram/L,", "unit", "is not UCUM"),
        ("%,%,1,", "%,%,,", "decimals", "digit from 0 to 9"),
        (",number,auto,10", ",real,auto,10", "kind", "'real' is not known here; write number, coded, text"),
        (",auto,10", ",auto,ten", "sort", "'ten' is not a number"),
        (",name_zh,", ",name,", "name", "is there twice"),
        ("test,name,", "code,name,", "test", "is missing"),
        (",sort,his", ",sort,", "", "is not a column of this file"),
    ],
)
def test_mistakes_in_tests_csv(lab: Lab, old: str, new: str, column: str, message: str) -> None:
    with pytest.raises(mapping.MappingError) as caught:
        lab(tests=TESTS.replace(old, new, 1))
    assert any(e.column == column and message in e.message and e.file.endswith("tests.csv") for e in caught.value.errors)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("XX,reference,,,,,1,2,,,", "test", "is not in tests.csv"),
        ("WBC,,,,,,1,2,,,", "kind", "is empty"),
        ("WBC,normal,,,,,1,2,,,", "kind", "not known here"),
        ("WBC,reference,U,,,,1,2,,,", "sex", "not known here"),
        ("WBC,reference,,18,,,1,2,,,", "age_from", "is not an age"),
        ("WBC,reference,,18y,1y,,1,2,,,", "age_to", "greater than age_from"),
        ("WBC,reference,,,,,,,,,", "low", "need low, high or both"),
        ("WBC,reference,,,,,9,2,,,", "low", "greater than high"),
        ('WBC,reference,,,,,"3,5",9,,,', "low", "decimal point"),
        ("HBSAG,reference,,,,,1,2,,,", "text", "has words, no numbers"),
        ("HGB,absurd,F,10y,,,1,2,,,", "test", "fall under this line and line 6"),
        ("HGB,absurd,,,,,1,2,,,,more", "", "more cells than the first line"),
    ],
)
def test_mistakes_in_limits_csv(lab: Lab, line: str, column: str, message: str) -> None:
    with pytest.raises(mapping.MappingError, match=message) as caught:
        lab(limits=LIMITS + line + "\n")
    assert caught.value.errors[0][1:3] == (12, column)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [("CBC,,,XX,1", "test", "is not in tests.csv"), (",,,HGB,1", "panel", "is empty"), ("CBC,,,HGB,1", "test", "already in panel")],
)
def test_mistakes_in_panels_csv(lab: Lab, line: str, column: str, message: str) -> None:
    with pytest.raises(mapping.MappingError, match=message) as caught:
        lab(panels=PANELS + line + "\n")
    assert caught.value.errors[0][1:3] == (5, column)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("WBC,10*3/uL,,WBC,,,,,", "code", "same code, unit and specimen as line 2"),
        (",g/L,,HGB,,,,,", "code", "is empty"),
        ("X,g/L,,XX,,,,,", "test", "'XX' is not in tests.csv"),
        ("X,g/L,,,,,,,", "test", "or set action to ignore or hold"),
        ("X,g/L,,HGB,drop,,,,", "action", "not known here"),
        ("X,g/L,,,ignore,10,,,", "action", "converts nothing"),
        ("X,g/L,,HGB,,ten,,,", "factor", "is not a number"),
        ("X,g/L,,HGB,,-1,,,", "factor", "must be greater than 0"),
        ("X,g/dL,,HGB,,100,,,", "factor", "is 100, but from g/dL to g/L it is 10"),
        ("X,mmol/L,,HGB,,,,,", "factor", "write it here"),
        ("X,,,HGB,,,,,", "reads_as", "not told by the analyzer"),
        ("X,*,,HGB,,,,,", "reads_as", "not told by the analyzer"),
        ("X,*,,HBSAG,,2,,,", "test", "has words, no numbers"),
    ],
)
def test_mistakes_in_a_code_map(lab: Lab, line: str, column: str, message: str) -> None:
    with pytest.raises(mapping.MappingError, match=message.replace("*", r"\*")) as caught:
        lab(CODES + line + "\n")
    assert caught.value.errors[0][1:3] == (CODES.count("\n") + 1, column)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("ZZ,a,b,coded", "code", "has no line in the code map"),
        ("AG,,b,coded", "value", "is empty"),
        ("AG,a,,coded", "means", "empty for skip, given for coded"),
        ("AG,a,b,skip", "means", "empty for skip"),
        ("AG,a,b,word", "kind", "not known here"),
        ("AG,Reactive,b,coded", "value", "is already in line 4"),
    ],
)
def test_mistakes_in_a_values_file(lab: Lab, line: str, column: str, message: str) -> None:
    with pytest.raises(mapping.MappingError, match=message) as caught:
        lab(values=VALUES + line + "\n")
    assert caught.value.errors[0].file.endswith("model.values.csv")
    assert caught.value.errors[0][1:3] == (8, column)


def test_mg_per_dl_to_mmol_per_l_needs_its_own_factor(lab: Lab) -> None:
    # conformance: H08
    with pytest.raises(mapping.MappingError, match=r"no factor from mg/dL to mmol/L \(GLU\) holds for every test"):
        lab(HEADER + "GLU,mg/dL,,GLU,,,,,\n", "code,value\n")


def test_every_mistake_of_the_files_comes_at_once(lab: Lab) -> None:
    with pytest.raises(mapping.MappingError) as caught:
        lab(tests=TESTS.replace("6690-2", "6690-1").replace("718-7", "718-8"), limits=LIMITS + "XX,reference,,,,,1,2,,,\n")
    assert [(error.line, error.column) for error in caught.value.errors] == [(2, "loinc"), (3, "loinc"), (12, "test")]
    assert len(str(caught.value).splitlines()) == 3


def test_missing_files(tmp_path: Path, lab: Lab) -> None:
    with pytest.raises(mapping.MappingError, match="copy the packaged one there"):
        mapping.load_catalogue([tmp_path])
    catalogue, _ = lab()
    with pytest.raises(mapping.MappingError, match="none of the mapping folders"):
        mapping.load_code_map("other", [tmp_path], catalogue)
    (tmp_path / "limits.csv").unlink()
    (tmp_path / "panels.csv").unlink()
    alone = mapping.load_catalogue([tmp_path])
    assert [notice.split()[0] for notice in alone.notices] == ["limits.csv", "panels.csv"]
    assert alone.limits("HGB", "M", 1) is None


def test_the_first_folder_that_has_a_file_wins(tmp_path: Path, lab: Lab) -> None:
    lab()
    own = tmp_path / "own"
    own.mkdir()
    (own / "panels.csv").write_text("panel,name,name_zh,test,sort\nMINE,Mine,我的,WBC,1\n", "utf-8")
    catalogue = mapping.load_catalogue([own, tmp_path])
    assert list(catalogue.panels) == ["MINE"]
    assert "WBC" in catalogue.tests


# --- files as spreadsheets write them


def load_bytes(folder: Path, data: bytes) -> mapping.Catalogue:
    (folder / "tests.csv").write_bytes(data)
    return mapping.load_catalogue([folder])


def test_the_encoding_and_layout_of_a_spreadsheet_do_not_matter(tmp_path: Path) -> None:
    plain = load_bytes(tmp_path, TESTS.encode())
    for data in (
        TESTS.encode("utf-8-sig"),
        TESTS.replace("\n", "\r\n").encode(),
        TESTS.replace("Leukocytes,", '" Leukocytes ",').replace("\nHGB", "\n,,,\n\nHGB").encode(),
    ):
        catalogue = load_bytes(tmp_path, data)
        assert catalogue.tests == plain.tests
        assert catalogue.source == plain.source
        assert not any("GB18030" in notice for notice in catalogue.notices)


def test_gb18030_is_recognised_and_named(tmp_path: Path) -> None:
    plain = load_bytes(tmp_path, TESTS.encode())
    catalogue = load_bytes(tmp_path, TESTS.encode("gb18030"))
    assert (catalogue.tests, catalogue.source) == (plain.tests, plain.source)
    assert "read as GB18030" in catalogue.notices[0]
    assert catalogue.tests["WBC"].name_zh == "白细胞计数"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TESTS.encode("utf-16"), "save it as CSV UTF-8"),
        (b"test,name,kind\nWBC,\xff\xff\xff,text\n", "tests.csv:2: is neither UTF-8 nor GB18030"),
        (b"", "column 'test': is missing"),
        (b'test,name,kind\nWBC,"open,text\n', "tests.csv:2: is not CSV"),
        (b"test;name;kind\nWBC;Leukocytes;text\n", "is missing"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(mapping.MappingError, match=message):
        load_bytes(tmp_path, data)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: path.parent.joinpath("gone").open("rb"))
        table = mapping.tables.read_table("a.csv", [tmp_path], ("a",), ("a",))
    assert "cannot be read" in table.errors[0].message


def test_the_source_changes_with_every_cell_that_counts(lab: Lab) -> None:
    catalogue, codes = lab()
    assert lab(codes=CODES.replace("0.05551", "0.0555"))[1].source != codes.source
    assert lab(values=VALUES.replace("ND", "none"))[1].source != codes.source
    assert lab(limits=LIMITS.replace("6.1", "6.2"))[0].source != catalogue.source
    assert lab()[1].source == codes.source
    assert b"limits.csv\n" in catalogue.source


def test_the_catalogue_knows_panels_and_hospital_codes(lab: Lab) -> None:
    catalogue, codes = lab()
    assert catalogue.panels["CBC"] == Panel("CBC", "Blood count", "血细胞计数", ("WBC", "HGB"))
    assert catalogue.panels_of("HGB") == ("CBC", "X")
    assert catalogue.panels_of("GLU") == catalogue.panels_of("nothing") == ()
    assert catalogue.tests["WBC"].codes == {"his": "H001"}
    assert catalogue.tests["GLU"].codes == {}
    assert catalogue.tests["ABO"].release == "manual"
    assert codes.notices == ()


# --- units


SPELLINGS = [
    ("10^9/L", "10*9/L"), ("10E9/L", "10*9/L"), ("x10^9/L", "10*9/L"), ("×10⁹/L", "10*9/L"), ("*10^9/L", "10*9/L"),
    ("10^12/l", "10*12/L"), ("10E3/uL", "10*3/uL"), ("1E03/mm3", "10*3/uL"), ("10³/µL", "10*3/uL"), ("K/uL", "10*3/uL"),
    ("M/uL", "10*6/uL"), ("G/L", "10*9/L"), ("G/l", "10*9/L"), ("T/L", "10*12/L"), ("U/l", "U/L"), ("IU/L", "[IU]/L"),
    ("mIU/mL", "m[IU]/mL"), ("uIU/ml", "u[IU]/mL"), ("μIU/mL", "u[IU]/mL"), ("umol/l", "umol/L"), ("µmol/L", "umol/L"),
    ("g/dl", "g/dL"), ("ng/ml", "ng/mL"), ("mmHg", "mm[Hg]"), ("um3", "fL"), ("µm3", "fL"), ("fl", "fL"), ("sec", "s"),
    ("copies/mL", "{copies}/mL"), ("COI", "{COI}"), ("‰", "[ppth]"), ("mL/min/1.73m2", "mL/min/{1.73_m2}"), ("l/l", "L/L"),
    ("mg/L FEU", "mg{FEU}/L"), ("mEq/L", "meq/L"), ("1000/uL", "1000/uL"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "unit"), SPELLINGS)
def test_vendors_spellings_become_ucum(text: str, unit: str) -> None:
    # conformance: H11
    assert units.ucum(text) == unit
    assert units.ucum(unit) == unit


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ("10*3/uL", "10*9/L", "1"), ("10*6/uL", "10*12/L", "1"), ("/uL", "10*6/L", "1"), ("10*6/uL", "10*9/L", "1000"),
        ("g/dL", "g/L", "10"), ("mg/dL", "g/L", "0.01"), ("ng/mL", "ug/L", "1"), ("pg/mL", "ng/L", "1"),
        ("u[IU]/mL", "m[IU]/L", "1"), ("k[IU]/L", "[IU]/mL", "1"), ("ug{FEU}/mL", "mg{FEU}/L", "1"), ("1", "%", "100"),
        ("%", "L/L", "0.01"), ("mL/L", "%", "0.1"), ("10*4.{copies}/mL", "{copies}/mL", "10000"), ("s", "s", "1"),
        ("kPa", "mm[Hg]", "7.50061575846"), ("min", "s", "60"), ("g/(24.h)", "mg/(24.h)", "1000"),
    ],
)  # fmt: skip
def test_units_convert_exactly(source: str, target: str, factor: str) -> None:
    assert units.conversion(source, target) == Decimal(factor)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("mg/dL", "mmol/L"), ("meq/L", "mmol/L"), ("%", "mmol/mol"), ("mmol/mol", "%"), ("ug{FEU}/mL", "ng{DDU}/mL"),
        ("U/L", "[IU]/L"), ("{COI}", "{S_CO}"), ("%", "10*9/L"), ("mosm/kg", "mmol/kg"), ("nonsense", "s"), ("s", "fL"),
        ("meq/(24.h)", "mmol/(24.h)"), ("{a}/(24.h)", "{b}/(24.h)"),
    ],
)  # fmt: skip
def test_a_conversion_that_needs_the_analyte_is_refused(source: str, target: str) -> None:
    # conformance: H08
    assert units.conversion(source, target) is None


def test_the_registry_of_units_is_not_loaded_for_the_packaged_tables() -> None:
    program = (
        "import sys; from pathlib import Path; from labbridge import mapping; folders = [Path(sys.argv[1])];"
        "catalogue = mapping.load_catalogue(folders); tables = {'tests', 'limits', 'panels'};"
        "names = {path.name.split('.')[0] for path in folders[0].glob('*.csv')} - tables;"
        "[mapping.load_code_map(name, folders, catalogue) for name in names];"
        "sys.exit('pint' in sys.modules or len(names) < 11)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(PACKAGED)], check=False).returncode == 0


def test_loinc_check_digits() -> None:
    # conformance: H12
    for loinc in ("6690-2", "718-7", "4544-3", "94500-6", "3016-3", "883-9"):
        assert not loinc_mistake(loinc)
        body, digit = loinc.split("-")
        assert all(loinc_mistake(f"{body}-{other}") for other in "0123456789" if other != digit)


# --- limits


def test_limits_by_sex_and_age(lab: Lab) -> None:
    catalogue, _ = lab()
    man, woman = (catalogue.limits("HGB", sex, 40 * 365) for sex in "MF")
    assert man is not None
    assert woman is not None
    assert (man.printed, woman.printed) == ("130-175", "115-150")
    assert [tuple(man.judge(v)) for v in ("129", "130", "175", "176", "59", "201", "14")] == [
        ("L", False, False),
        ("N", False, False),
        ("N", False, False),
        ("H", False, False),
        ("LL", False, True),
        ("HH", False, True),
        ("LL", True, True),
    ]


def test_unknown_sex_or_age_gives_no_flag_and_the_tightest_critical_limits(lab: Lab) -> None:
    catalogue, _ = lab()
    unknown = catalogue.limits("HGB", "", None)
    assert unknown is not None
    assert (unknown.printed, unknown.judge("140"), unknown.judge("90")) == ("", ("", False, False), ("", False, True))
    grown = catalogue.limits("HGB", "U", 40 * 365)
    assert grown is not None
    assert (grown.printed, grown.judge("90"), grown.judge("50")) == ("", ("", False, False), ("", False, True))
    everybody = catalogue.limits("GLU", "", -5)
    assert everybody is not None
    assert everybody.judge("7.00").flag == "H"


def test_limits_of_a_specimen_type_go_before_those_of_any(lab: Lab) -> None:
    catalogue, _ = lab()
    found = [catalogue.limits("GLU", "", None, specimen) for specimen in ("", "csf", "SER")]
    assert [limits and limits.printed for limits in found] == ["3.9-6.1", "2.5-4.4", "3.9-6.1"]


def test_words_are_judged_by_words(lab: Lab) -> None:
    catalogue, _ = lab()
    limits = catalogue.limits("HBSAG", "", None)
    assert limits is not None
    assert limits.printed == "Negative"
    judged = [tuple(limits.judge(word)) for word in ("Negative", "Non-reactive", "Positive", "3")]
    assert judged == [("N", False, False), ("N", False, False), ("A", False, True), ("A", False, False)]
    glucose = catalogue.limits("GLU", "", None)
    assert glucose is not None
    assert glucose.judge("ND") == ("", False, False)


def interval(low: str | None, high: str | None) -> Interval:
    return Interval(Decimal(low) if low else LEAST, Decimal(high) if high else MOST)


@pytest.mark.parametrize(
    ("value", "flag", "critical"),
    [
        ("<3.9", "L", True), ("<=3.9", "", True), ("<5", "", True), ("<1.0", "LL", True), (">6.1", "H", True),
        (">=6.1", "", True), (">30", "HH", True), ("<=0.5", "LL", True), (">5", "", True),
    ],
)  # fmt: skip
def test_a_comparator_is_judged_by_all_that_it_may_stand_for(value: str, flag: str, critical: bool) -> None:
    limits = mapping.Limits(interval("3.9", "6.1"), interval("2.5", "22.2"), interval("0.3", "100"))
    assert limits.judge(value) == (flag, False, critical)


@pytest.mark.parametrize(
    ("value", "reference", "flag"),
    [("<3", (None, "5"), "N"), ("<7", (None, "5"), ""), (">3", ("2", None), "N"), (">1", ("2", None), "")],
)
def test_a_comparator_inside_a_one_sided_reference_is_normal(
    value: str, reference: tuple[str | None, str | None], flag: str
) -> None:
    assert mapping.Limits(interval(*reference)).judge(value).flag == flag
    assert mapping.Limits(critical=interval(*reference)).judge(value).critical is (flag == "")


def test_a_comparator_beyond_the_absurd_is_absurd() -> None:
    limits = mapping.Limits(absurd=interval("15", "280"))
    assert limits.judge("<10").absurd
    assert not limits.judge("<20").absurd


def test_one_sided_limits_are_printed_as_obx_7_has_them(lab: Lab) -> None:
    catalogue, _ = lab(limits=LIMITS + "WBC,reference,,,,,,5.20,,,\nHCT,reference,,,,,90,,,,\nNEUT#,reference,,,,,1,2,1 to 2,,\n")
    found = [catalogue.limits(test, "", None) for test in ("WBC", "HCT", "NEUT#")]
    assert [limits and limits.printed for limits in found] == ["<5.20", ">90", "1 to 2"]


@given(st.lists(st.tuples(st.sampled_from(["", "M", "F"]), st.integers(0, 3), st.integers(1, 4)), max_size=5))
@settings(max_examples=80)
def test_where_no_lines_overlap_one_at_most_holds(lines: Sequence[tuple[str, int, int]]) -> None:
    rows = [LimitRow("critical", sex, young, young + years, "", interval("1", "2")) for sex, young, years in lines]
    if any(one.overlaps(other) for one, other in combinations(rows, 2)):
        return
    limits = LimitTable(rows)
    for sex in "MF":
        for age in range(9):
            fitting = [row for row in rows if row.sex in ("", sex) and row.young <= age < row.old]
            assert len(fitting) <= 1
            assert limits.at(sex, age, "").critical == (fitting[0].interval if fitting else None)


@given(st.decimals(min_value=0, max_value=300, places=1))
@settings(max_examples=60)
def test_what_any_line_calls_critical_is_critical_when_sex_and_age_are_unknown(value: Decimal) -> None:
    rows: list[LimitRow] = [
        LimitRow("critical", "M", 0, 28, "", interval("95", "223")),
        LimitRow("critical", "F", 0, 28, "", interval("90", "220")),
        LimitRow("critical", "", 28, EVER, "", interval("60", "200")),
    ]
    limits = LimitTable(rows)
    known = [limits.at(sex, age, "").judge(str(value)).critical for sex in "MF" for age in (5, 5000)]
    assert limits.at("", None, "").judge(str(value)).critical is any(known)


@pytest.mark.parametrize(("text", "days"), [("0d", 0), ("28d", 28), ("6w", 42), ("1y", 365), ("18y", 6574), ("6m", 182)])
def test_ages_in_days(text: str, days: int) -> None:
    assert age_in_days(text) == days
    assert age_in_days(text.upper()) is None


@cache
def packaged() -> mapping.Catalogue:
    return mapping.load_catalogue([PACKAGED])


@given(st.sampled_from(["WBC", "HGB", "CREA", "ALP", "TSH"]), st.sampled_from(["M", "F", ""]), st.integers(-1, 40_000))
def test_the_limits_of_a_report_are_those_of_each_test(test: str, sex: str, age: int) -> None:
    """Limits looked up once for a patient are the same as those looked up for each test, whatever the age."""
    catalogue = packaged()
    one, other = catalogue.limits_for(sex, age)(test), catalogue.limits(test, sex, age)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert (one.reference, one.critical, one.absurd, one.sure) == (other.reference, other.critical, other.absurd, other.sure)
