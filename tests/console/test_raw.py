"""A message's bytes as people see them: any bytes, in bounds, and with the standard's names."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbridge.views import raw
from labbridge.views.raw import Node

HL7 = (
    b"MSH|^~\\&|XN^00-1|LAB|||20261121101500||ORU^R01|7|P|2.5.1\rPID|1||P1^^^LAB~P2\r"
    b"OBX|1|NM|WBC^Leukocytes^L||5.5\\T\\6|10*9/L|||||F\r"
)
ASTM = b"H|\\^&|||XN^00-1|||||||P|1394-97\rO|1|70001||^^^WBC\\^^^RBC|R\rR|1|^^^WBC|5.5|10*9/L||N||F\rL|1|N\r"


def flat(nodes: tuple[Node, ...]) -> dict[str, tuple[str, str]]:
    """Name and text of every node by its place; of the same place the last."""
    return {place: about for node in nodes for place, about in [(node.place, (node.name, node.text)), *flat(node.parts).items()]}


def every(nodes: tuple[Node, ...]) -> list[Node]:
    return [one for node in nodes for one in (node, *every(node.parts))]


def test_the_fields_of_hl7_have_the_names_of_their_version() -> None:
    nodes = flat(raw.tree(HL7))
    assert nodes["MSH-1"] == ("Field separator", "|")
    assert nodes["MSH-2"] == ("Encoding characters", "^~\\&")
    assert nodes["OBX-3.2"] == ("Text", "Leukocytes")
    assert nodes["OBX-5"] == ("Observation value", "5.5&6")
    assert nodes["PID-3[1].4"] == ("Assigning authority", "LAB")
    assert nodes["PID-3[2].1"] == ("Id number", "P2")
    older = flat(raw.tree(HL7.replace(b"2.5.1", b"2.3")))
    assert older["PID-3"][0] != nodes["PID-3"][0]
    assert flat(raw.tree(HL7.replace(b"2.5.1", b"9.9")))["PID-3"] == nodes["PID-3"]


def test_the_fields_of_records_have_the_names_of_lis02() -> None:
    nodes = flat(raw.tree(ASTM))
    assert nodes["O-3"] == ("Specimen id", "70001")
    assert nodes["R-4"] == ("Value", "5.5")
    assert nodes["O-5[2].4"] == ("", "RBC")
    assert flat(raw.tree(b"\x022R|1|^^^WBC|5.5\x0317\r\n"))["R-4"][1].startswith("5.5")


def test_control_characters_are_seen() -> None:
    assert raw.text_lines(b"MSH|^~\\&|\x1b[31m\rPID|\x00\r") == (["MSH|^~\\&|\\x1b[31m", "PID|\\x00"], 0)
    assert raw.hex_lines(b"\x0bMSH\xff\x00\x7f\r") == ["00000000  0b 4d 53 48 ff 00 7f 0d" + " " * 27 + "␋MSH·␀␡␍"]


def test_pages_of_hexadecimal_lines_are_the_whole() -> None:
    body = bytes(range(256)) * 40
    lines = [line for page in range(raw.pages(body)) for line in raw.hex_lines(body, page)]
    assert b"".join(bytes.fromhex(line[10:58]) for line in lines) == body
    assert raw.hex_lines(body, 99) == []
    assert (raw.pages(b""), raw.hex_lines(b"")) == (1, [])


def test_a_name_of_200_kb_is_cut_and_what_follows_is_still_there() -> None:
    body = HL7.replace(b"P1^", b"P" * 200_000 + b"^")
    assert flat(raw.tree(body))["OBX-5"][1] == "5.5&6"
    lines, left_out = raw.text_lines(body)
    assert (lines[2][:4], left_out) == ("OBX|", 0)
    assert max(map(len, lines)) <= raw.LINE + 1
    lines, left_out = raw.text_lines(b"x\r" * (raw.READ_BYTES // 2) + b"yz")
    assert (len(lines), lines[-1], left_out) == (raw.NODES + 1, "…", 2)
    assert sum(map(len, raw.text_lines(b"MSH|^~\\&|" + b"x" * 3000 + b"\r" + (b"y" * 3000 + b"\r") * 300)[0])) <= raw.SHOWN + 1


@given(
    body=st.binary(max_size=400)
    | st.text("MSHOBXPR|^~\\&\r\n\x0b\x02 1é\ud800", max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
@example(body=b"MSH|")
@example(body=b"MSH|^~\\&#|a")
@example(body=b"MSH||\rMSH||")
@example(body=b"H|\\^&|\rH||||\rR|1")
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_are_nothing_raises_and_all_is_bounded(body: bytes) -> None:
    for start in (b"", b"MSH|^~\\&|A|B|||1||ORU^R01|1|P|2.5.1\r", b"H|\\^&\r"):
        nodes = every(raw.tree(start + body))
        assert len(nodes) <= raw.NODES + 1
        assert all(len(node.text) <= 4 * raw.LINE and node.text.isprintable() and node.place.isprintable() for node in nodes)
        lines, _ = raw.text_lines(start + body)
        assert all(line.isprintable() for line in (*lines, *raw.hex_lines(start + body)))


def test_many_parts_are_bounded() -> None:
    for body in (
        b"MSH|^~\\&|A\r" + b"OBX|1" + b"~^&|" * 16_000,
        HL7 + b"OBX|1|2|3|4|5|6|7|8|9\r" * 3000,
        b"H|\\^&\r" + b"R|^\\" * 15_000,
        b"\r".join([b"x"] * 30_000),
    ):
        assert len(every(raw.tree(body))) <= raw.NODES + 1
