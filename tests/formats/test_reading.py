"""Values, times and rules: texts are understood, never changed, and never guessed."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbridge import profiles
from labbridge.formats.assembly import distinct
from labbridge.formats.er7 import Delimiters, unescape
from labbridge.formats.rules import Rules, Scope
from labbridge.formats.values import Clock, Memo, birth_date, classifier, clock_for, coded, encapsulated, pointer, structured
from labbridge.language import texts
from labbridge.model import Reason
from labbridge.profiles import Profile

BARE = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "hl7v2"\n'
PIPES = Delimiters()
RULES = Rules(PIPES, unescape, {})
NEW_YORK, SHANGHAI = ZoneInfo("America/New_York"), ZoneInfo("Asia/Shanghai")


def profile(more: str = "") -> Profile:
    return profiles.parse("m", BARE + more)


def understand(text: str, more: str = "") -> tuple[str, str, str]:
    value, kind, number, comparator = classifier(profile(more).values)(text)
    assert value == text
    return kind, number, comparator


@pytest.mark.parametrize(
    ("text", "kind", "number", "comparator"),
    [
        ("33.0238266", "number", "33.0238266", ""),
        ("4.0", "number", "4.0", ""),
        ("-0.000397", "number", "-0.000397", ""),
        (".5", "number", ".5", ""),
        ("5.", "number", "5.", ""),
        ("6.73E+01", "number", "6.73E+01", ""),
        ("<0.01", "comparator", "0.01", "<"),
        ("< 839", "comparator", "839", "<"),
        ("<=1.005", "comparator", "1.005", "<="),
        ("=>55", "comparator", "55", ">="),
        ("≥ 55", "comparator", "55", ">="),
        ("1:128", "ratio", "", ""),
        (">1:640", "ratio", "", ">"),
        ("", "absent", "", ""),
        ("6.73E+01 cp/mL", "text", "", ""),
        ("1,5", "text", "", ""),
        ("+1", "text", "", ""),
        ("1+", "text", "", ""),
        ("+++", "text", "", ""),
        ("-", "text", "", ""),
        ("Target Not Detected", "text", "", ""),
        ("1 2", "text", "", ""),
        ("١٢", "text", "", ""),
        ("nan", "text", "", ""),
        ("1e", "text", "", ""),
    ],
)
def test_a_value_has_a_kind(text: str, kind: str, number: str, comparator: str) -> None:
    """# conformance: D16."""
    assert understand(text) == (kind, number, comparator)


@pytest.mark.parametrize("text", ["*", "***", "***.**", "*****", "-----", "--", "--.--", ""])
def test_non_numeric_not_zero(text: str) -> None:
    assert understand(text) == ("absent", "", "")


@pytest.mark.parametrize("text", ["INDETERMINATE", "Invalid", "0 copies", "- 5", "--5"])
def test_words_are_no_numbers(text: str) -> None:
    assert understand(text)[:2] == ("text", "")


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [("7,41", "number", "7.41"), ("1.234,5", "number", "1234.5"), ("1.23", "text", ""), ("12.345.678", "number", "12345678")],
)
def test_a_decimal_comma_is_the_profiles_to_declare(text: str, kind: str, number: str) -> None:
    assert understand(text, '[value]\ndecimal = ","\nthousands = "."')[:2] == (kind, number)


def test_separators_of_thousands_are_the_profiles_to_declare() -> None:
    assert understand("161,152", '[value]\nthousands = ","') == ("number", "161152", "")
    assert understand("> 1,161,152.5", '[value]\nthousands = ","') == ("comparator", "1161152.5", ">")
    assert understand("161,15", '[value]\nthousands = ","')[0] == "text"


def test_a_profile_adds_words_for_no_result_and_for_attachments() -> None:
    more = '[value]\nabsent = ["ValueNotSet", "(?i)n/?a"]\nattachment = ["PNG.*"]'
    assert [understand(text, more)[0] for text in ("ValueNotSet", "N/A", "***", "PNG/1.PNG", "-0.1")] == [
        *("absent", "absent", "absent", "attachment", "number")
    ]


@settings(max_examples=300)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=9), st.sampled_from(("", "<", ">= ")))
def test_every_digit_stays(number: Decimal, comparator: str) -> None:
    """# conformance: D15."""
    text = f"{number:f}"
    kind, digits, _ = understand(comparator + text)
    assert digits == text
    assert kind == ("comparator" if comparator else "number")


@given(st.text(max_size=20))
@example("0" * 5000)
def test_what_is_called_a_number_is_one(text: str) -> None:
    kind, number, _ = understand(text)
    assert (kind in ("number", "comparator")) == bool(number)
    if number:
        Decimal(number)


@pytest.mark.parametrize(
    ("raw", "value", "kind"),
    [
        ("^182", "182", "number"),
        ("<^20", "<20", "comparator"),
        ("^1^:^128", "1:128", "ratio"),
        ("^70^-^105", "70-105", "text"),
        (">=^1^:^640", ">=1:640", "ratio"),
        ("182", "182", "number"),
        ("^***", "***", "absent"),
        (r"\X3C\^20", "<20", "comparator"),
        (r"^1^\X3A\^128", "1:128", "ratio"),
        (r"^5\.br\6", r"5\.br\6", "text"),
        ("^5^^20", "^5^^20", "text"),  # two numbers are never one: 520, 5e2, 15, -5 were not sent
        ("^5^e^2", "^5^e^2", "text"),
        ("^5^.^2", "^5^.^2", "text"),
        ("^^-^5", "^^-^5", "text"),
        ("^^^5", "^^^5", "text"),
        ("^5^^^7", "^5^^^7", "text"),
        ("^1^:^8^9", "^1^:^8^9", "text"),
        ("1^5", "1^5", "text"),
        ("-^5", "-^5", "text"),
        ("^2^+", "2+", "text"),
        ("=<^5", "=<5", "comparator"),
        ('""', '""', "absent"),
        ('""^', '""', "absent"),
        ("^", "", "absent"),
    ],
)
def test_structured_numerics(raw: str, value: str, kind: str) -> None:
    """# conformance: D03, D16."""
    assert structured(raw, PIPES, classifier(profile().values), RULES.resolve)[:2] == (value, kind)


def test_many_reasons_and_many_repeats_cost_linear_time() -> None:  # conformance: K17
    """Minutes, if each were compared with every other, or a long field looked at again for each repeat of another."""
    reasons = [Reason("unsupported-type", {"type": str(n)}) for n in range(50_000)]
    begin = process_time()
    assert distinct([*reasons, *reasons]) == tuple(reasons)
    find = RULES.texts(texts({"from": "OBX-3", "when": {"OBX-4": "I"}}))
    scope = Scope(OBX=["OBX", "", "", "a~" * 50_000, "x\\" * 500_000])
    assert find(scope) == ()
    scope["OBX"][4] = "I"
    assert find(scope) == ("a",) * 50_000
    assert process_time() - begin < 5


def test_a_condition_on_the_repeated_field_is_of_each_repeat() -> None:
    find = RULES.texts(texts({"from": "OBX-3", "when": {"OBX-3": "[ab]", "OBX-4": "I"}}))
    assert find(Scope(OBX=["OBX", "", "", "a~x~b", "I"])) == ("a", "b")
    assert find(Scope(OBX=["OBX", "", "", "a~x~b", "J"])) == ()


@pytest.mark.parametrize(
    ("raw", "value", "kind"),
    [
        ("NEG^Negative^L", "NEG", "coded"),
        ("^Negative", "Negative", "coded"),
        ("12^Twelve", "12", "coded"),
        ("^^L", "", "absent"),
        ("A^x~B^y", "A^x~B^y", "text"),
        ("~POS^Positive", "POS", "coded"),
        ("^^^POS^Positive^L", "^^^POS^Positive^L", "text"),
        ("^^^^^^^^Positive", "^^^^^^^^Positive", "text"),
        (r"A\T\B^C\S\D^L", "A&B", "coded"),
        (r"^C\S\D^L", "C^D", "coded"),
        (r"\XC2B5\mol", "µmol", "coded"),
        (r"N\.br\N", r"N\.br\N", "coded"),
        (r"A\T\B~C", "A&B~C", "text"),
        ('""', '""', "absent"),
    ],
)
def test_coded_entries(raw: str, value: str, kind: str) -> None:
    """# conformance: B05, D02, D05."""
    assert coded(raw, PIPES, classifier(profile().values), RULES.resolve)[:2] == (value, kind)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("S^Image^BMP^Base64^" + "QUJD" * 25, "image/bmp 75 bytes"),
        ("S^Image^BMP^Base64^QQ==", "image/bmp 1 bytes"),
        ("S^Image^BMP^Base64^QUI= ", "image/bmp 2 bytes"),
        ("^^^Base64^", "data 0 bytes"),
        ("^TX^^A^hello^you", "tx 9 bytes"),
        ("", "data 0 bytes"),
    ],
)
def test_encapsulated_data_is_described(raw: str, value: str) -> None:
    """# conformance: D21."""
    assert encapsulated(raw, PIPES, classifier(profile().values), RULES.resolve) == (value, "attachment", "", "")


def test_a_pointer_says_where_the_attachment_lies() -> None:
    found = pointer(r"//pc/1.png?a\T\b ^X^image^PNG", PIPES, classifier(profile().values), RULES.resolve)
    assert found == ("//pc/1.png?a&b", "attachment", "", "")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("20261118091407", 1794964447),
        ("202611180914", 1794964440),
        ("2026111809", 1794963600),
        ("20261118091407.9999", 1794964447),
        ("20261118091407+0000", 1794993247),
        ("20261118091407-0500", 1795011247),
        ("20261118", None),
        ("202611", None),
        ("2026", None),
        ("2026+0100", None),
        ("18991230", None),
        ("", None),
    ],
)
def test_times_are_read_in_the_senders_zone(text: str, at: int | None) -> None:
    """# conformance: B20, D17."""
    assert clock_for(profile(), SHANGHAI, "")[text] == (at, False)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-18", "20261318", "20260230", "202613", "20261118250000", "00010101000000+2300x", "x", "２０２６１１１８"),
        *("0914", "18112026", "260102030405", "99991231", "1", "20261", "20261118091407+9999"),
    ],
)
def test_what_is_no_time_has_no_instant(text: str) -> None:
    assert clock_for(profile(), SHANGHAI, "")[text] == (None, True)


@given(st.from_regex(r"[0-9]{8}([0-9]{2}){0,3}([+-][0-9]{4})?", fullmatch=True) | st.text(max_size=20))
def test_no_text_stops_the_clock(text: str) -> None:
    instant = Clock(NEW_YORK, ["%m/%d/%y"])[text]
    assert instant.at is None or not instant.bad


def test_the_headers_offset_is_that_of_times_without_one() -> None:
    """# conformance: D17."""
    assert clock_for(profile(), SHANGHAI, "20261118091407+0100")["20261118091407"].at == 1794989647
    assert clock_for(profile(), SHANGHAI, "20261118091407+0100")["20261118091407+0800"].at == 1794964447
    for impossible in ("+9900", "+2399"):
        assert clock_for(profile(), SHANGHAI, f"20261118091407{impossible}")["20261118091407"].at == 1794964447


def test_a_time_that_comes_twice_is_the_first_and_one_that_never_was_is_moved() -> None:
    """# conformance: D18."""
    clock = Clock(NEW_YORK)
    assert clock["20261101013000"].at == 1793511000  # 01:30 EDT, not EST
    assert clock["20261101013000-0500"].at == 1793511000 + 3600, "an offset says which of the two"
    assert clock["20260308023000"].at == clock["20260308033000"].at
    assert clock_for(profile(), NEW_YORK, "20261101013000-0500")["20261101013000"].at == 1793511000 + 3600


def test_further_formats_are_the_profiles_to_declare() -> None:
    formats = '"%m/%d/%y", "%Y/%m/%d %H:%M:%S", "%y%m%d%H%M%S", "%d.%m.%Y %I:%M %p", "%Y-%m-%dT%H:%M:%S%z"'
    clock = clock_for(profile(f'[times]\nformats = [{formats}]\nnull = ["11/11/11"]'), SHANGHAI, "")
    for text in ("2026/11/18 09:14:07", "261118091407", "2026-11-18T02:14:07+0100"):
        assert clock[text] == (1794964447, False)
    assert clock["18.11.2026 09:14 AM"] == (1794964440, False)
    assert clock["11/18/26"] == (None, False), "a day, and no midnight"
    assert clock["11/11/11"] == (None, False)
    assert clock["31/31/26"] == clock["01.01.0001 09:14 AM"] == (None, True)


@pytest.mark.parametrize(
    ("text", "birth"),
    [
        *(("19800102", "19800102"), ("198001", "198001"), ("1980", "1980"), ("19800102113000", "19800102")),
        *(("02/01/1980", "19800102"), ("31/31/1980", ""), ("01/02/80", ""), ("02011980", ""), ("18991230", ""), ("", "")),
    ],
)
def test_a_birth_date_is_told_with_its_century_or_not_at_all(text: str, birth: str) -> None:
    """# conformance: D17."""
    assert birth_date(text, profile('[times]\nformats = ["%m/%d/%y", "%d/%m/%Y"]')) == birth


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)), st.sampled_from((NEW_YORK, SHANGHAI)), st.sampled_from((12, 14)))
@example(datetime(2026, 11, 1, 1, 30), NEW_YORK, 14)
@example(datetime(2026, 3, 8, 2, 30), NEW_YORK, 12)
def test_a_time_that_is_read_and_printed_is_the_same(moment: datetime, zone: ZoneInfo, length: int) -> None:
    """Where it was: the hour that daylight saving leaves out is printed as the one that it was. # conformance: B20, D18."""
    text = f"{moment:%Y%m%d%H%M%S}"[:length]
    at = Clock(zone)[text].at
    assert at is not None
    printed = datetime.fromtimestamp(at, zone)
    left_out = moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).hour != moment.hour
    assert f"{printed:%Y%m%d%H%M%S}"[:length] == (f"{moment + timedelta(hours=1):%Y%m%d%H%M%S}"[:length] if left_out else text)


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_an_offset_is_kept_to_the_minute(moment: object, minutes: int) -> None:
    sign, rest = "-" if minutes < 0 else "+", abs(minutes)
    text = f"20261118091407{sign}{rest // 60:02}{rest % 60:02}"
    assert Clock(SHANGHAI)[text].at == 1794993247 - minutes * 60
    assert timezone(timedelta(minutes=minutes))


def test_memory_of_texts_is_bounded() -> None:
    memo = Memo(str.upper)
    for number in range(10_000):
        assert memo[f"a{number}"] == f"A{number}"
    assert memo["x" * 1000] == "X" * 1000
    assert len(memo) <= 4096
    assert "x" * 1000 not in memo


def text_of(rule: str, **segments: str) -> str:
    made = Rules(PIPES, unescape, {})
    told = profile(f"[result]\ncode = {rule}\n").shapes["patient"]["result"]["code"]
    return made.text(told)(scope_of(**segments))


def scope_of(**segments: str) -> Scope:
    return Scope({name: (text.split("|") + [""] * 20) for name, text in segments.items()})


OBX = 'OBX|1|ST|A&a^B~C^D|X|| u \\T\\ v |^^|||""'


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ('"OBX-3"', "A&a^B~C^D"),
        ('"OBX-3.1"', "A&a"),
        ('"OBX-3.1.1"', "A"),
        ('"OBX-3.1.2"', "a"),
        ('"OBX-3.2"', "B"),
        ('"OBX-3.2.1"', "B"),
        ('"OBX-3.2.2"', ""),
        ('"OBX-3.3"', ""),
        ('"OBX-6"', "u & v"),
        ('"OBX-7"', ""),
        ('"OBX-10"', ""),
        ('"ZZZ-3.1"', ""),
        ('["OBX-5", "OBX-3.9", "OBX-4"]', "X"),
        ('["OBX-5", "OBR-4"]', "P"),
        ('"{OBX-3.2}/{OBX-4}"', "B/X"),
        ('"{OBX-5}/{OBX-4}"', "X"),
        ('"{OBX-4}/{OBX-5}-{OBX-3.2}"', "X-B"),
        ('"{OBR-4}/{OBX-4}"', "P/X"),
        ('"{OBX-5}/{OBX-9}"', ""),
        ('{ from = "OBX-3", pattern = "([^^]*).*" }', "A&a"),
        ('{ from = "OBX-3", pattern = "C.*" }', ""),
        ('{ from = "OBR-4", pattern = "(x)|P" }', "P"),
        ('{ from = "OBX-4", when = { "OBX-2" = "ST" } }', "X"),
        ('[{ from = "OBX-4", when = { "OBX-2" = "S" } }, "OBX-3.2"]', "B"),
        ('{ from = "OBX-4", when = { "OBX-2" = "ST", "OBR-4" = "Q" } }', ""),
        ('{ from = "OBX-4", when = [{ "OBX-2" = "NM" }, { "OBR-4" = "P" }] }', "X"),
        ('""', ""),
        ("[]", ""),
    ],
)
def test_rules_find_texts(rule: str, text: str) -> None:
    assert text_of(rule, OBX=OBX, OBR="OBR||||P") == text


def test_lists_are_read_repeat_by_repeat() -> None:
    made = Rules(PIPES, unescape, {})
    flags = profile('[result]\nflags = ["OBX-8.1", "OBX-18", "{OBX-2}/{OBX-4}"]').shapes["patient"]["result"]["flags"]
    found = made.texts(flags)(scope_of(OBX="OBX|1|ST||X||||H^x~~A||||||||||SLP"))
    assert found == ("H", "A", "SLP", "ST/X")
    told = profile('[result]\nalarms = { from = "OBX-8.1", when = { "OBX-2" = "ST" } }').shapes["patient"]["result"]["alarms"]
    assert made.texts(told)(scope_of(OBX="OBX|1|ST||||||H^x~~A")) == ("H", "A")
    assert made.texts(())(Scope()) == ()


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ('"OBX-8.*"', ("EXP", "<", "A&b", "LL")),
        ('["OBX-8.*", "OBX-4"]', ("EXP", "<", "A&b", "LL", "X")),
        ('{ from = "OBX-8.*", pattern = "[A-Z]+" }', ("EXP", "LL")),
        ('{ from = "OBX-8.*", when = { "OBX-4" = "Y" } }', ()),
        ('"OBX-9.*"', ()),
        ('"OBX-8.2"', ("<",)),
    ],
)
def test_a_list_may_take_every_component(rule: str, texts: tuple[str, ...]) -> None:
    flags = profile(f"[result]\nflags = {rule}\n").shapes["patient"]["result"]["flags"]
    scope = scope_of(OBX="OBX|1|ST||X||||EXP^ <^^A\\T\\b~LL^")
    assert Rules(PIPES, unescape, {}).texts(flags)(scope) == texts
    assert scope["OBX"][8] == "EXP^ <^^A\\T\\b~LL^"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ('"{OBX-4}/grade"', "X/grade"),
        ('"strip {OBX-4}"', "strip X"),
        ('"<{OBX-4}-{OBX-5}-{OBX-3.2}>"', "<X-B>"),
        ('"{OBX-4}-{OBX-5}/grade"', "X/grade"),
        ('"{OBX-5}/grade"', ""),
        ('["{OBX-5}/grade", "OBX-4"]', "X"),
        ('{ from = "{OBX-4}/grade", pattern = "(.)/gr.*" }', "X"),
        ('{ from = "{OBX-4}/grade", when = { "OBX-4" = "Y" } }', ""),
    ],
)
def test_a_template_has_fixed_texts_only_beside_a_found_one(rule: str, text: str) -> None:
    assert text_of(rule, OBX=OBX) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\\Z03BC\\g/L", "μg/L"),
        ("\\Z1F9EA\\ \\ze9\\", "\U0001f9ea \\ze9\\"),
        ("a\\T\\Z03BC\\", "a&Z03BC\\"),  # the mark that closes one sequence does not open the next
        ("\\Z005C\\ \\Z000D\\ \\ZD800\\ \\Z110000\\", "\\Z005C\\ \\Z000D\\ \\ZD800\\ \\Z110000\\"),
        ("\\Z03\\ \\Zfoo\\ 5\\", "\\Z03\\ \\Zfoo\\ 5\\"),
    ],
)
def test_local_escapes_are_read_where_the_profile_says_what_they_mean(raw: str, text: str) -> None:
    unit = profile('[result]\nunit = "OBX-6"\n').shapes["patient"]["result"]["unit"]
    scope = scope_of(OBX=f"OBX|||||| {raw} ")
    assert Rules(PIPES, unescape, {}, "unicode").text(unit)(scope) == text
    assert Rules(PIPES, unescape, {}).text(unit)(scope) == unescape(raw, PIPES)


@settings(max_examples=100)
@given(st.text(alphabet="\\\\\\Z03BCTEX41.|^ g", max_size=60))
def test_no_escape_stops_the_reading_of_local_ones(raw: str) -> None:
    unit = profile('[result]\nunit = "OBX-6"\n').shapes["patient"]["result"]["unit"]
    read = Rules(PIPES, unescape, {}, "unicode").text(unit)(Scope(OBX=[""] * 6 + [raw]))
    assert "\\Z03BC\\" not in read or "\\Z03BC\\" in raw
