"""What each reader may do with any bytes at all: give a value, or raise the one error that it documents.

A target is a function of bytes that returns nothing and raises for a fault. Its seeds are our own samples, and the
captures of a folder named by LABBRIDGE_CORPUS; where several profiles or files can be meant, the first byte chooses.
"""

import atexit
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import NamedTuple, TypeVar

from labbridge import capture, config, mapping, profiles
from labbridge.formats import charset, er7, hl7v2, lis02
from labbridge.formats.acknowledgement import acknowledge, read_answer
from labbridge.model import Reading, Reason, RemoteProtocolError, Report, decode, encode
from labbridge.profiles import Profile
from labbridge.wire.lis01_frames import cut
from tests.fuzz.links import check_lis01, check_mllp, check_raw, check_segmentation, framed, script
from tests.small_lab import FILES
from tests.support import CONFIG

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ANALYZERS = ROOT / "analyzers"
CORPUS = os.environ.get("LABBRIDGE_CORPUS")
LARGEST_SEED = 16_384

ALL = [profiles.load(name, [ANALYZERS]) for name in profiles.names([ANALYZERS])]
HL7 = [profile for profile in ALL if profile.protocol == "hl7v2"]
ASTM = [profile for profile in ALL if profile.protocol == "lis02"]
TABLES = sorted(FILES)
SETS = sorted(charset.NAMES)
REPLACEMENTS = [b"\xef\xbf\xbd", "\ufffd".encode("gb18030")]  # U+FFFD as somebody sent it


class Target(NamedTuple):
    """A reader: what it does with some bytes, and what the fuzzer begins with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4096


# -- messages --------------------------------------------------------------------------------------------------------


def read_hl7v2(data: bytes) -> None:
    """A Reading; or a RemoteProtocolError, whose reply is owed and can be made."""
    profile, payload = chosen(HL7, data)
    try:
        reading = hl7v2.read(payload, profile, UTC)
    except RemoteProtocolError as error:
        replies = acknowledge(
            payload,
            "A" if error.supported else "R",
            stamp="20261121101500+0800",
            control_id="0123456789ABCDEFGHIJ",
            error_code=error.error_code,
            text=error.reason.code,
        )
        assert all(map(is_block, replies))
        check_reason(error.reason)
        return
    check_reading(reading)


def read_lis02(data: bytes) -> None:
    """A Reading, and the answer to its queries; or a RemoteProtocolError."""
    profile, payload = chosen(ASTM, data)
    try:
        reading = lis02.read(payload, profile, UTC)
    except RemoteProtocolError as error:
        check_reason(error.reason)
        return
    check_reading(reading)
    answer = lis02.write_no_order(reading.queries, payload, profile, stamp="20261121101500")
    assert bool(answer) == bool(reading.queries)
    assert answer.isascii()


def check_reading(reading: Reading) -> None:
    """A reading can be stored and had back as it was, and never names what its results do not say."""
    for report in reading.reports:
        assert decode(encode(report), Report) == report
        for reason in report.problems:
            check_reason(reason)
    for reason in reading.problems:
        check_reason(reason)
    assert encode(reading.queries)


def check_reason(reason: Reason) -> None:
    """A reason is words for a person, and short."""
    assert len(encode(reason)) < 2048


def is_block(reply: bytes) -> bool:
    """Whether a reply is a message that an MLLP block can carry."""
    return reply.startswith(b"MSH") and b"\rMSA" in reply and not {0x0B, 0x1C} & set(reply)


def read_charset(data: bytes) -> None:
    """A text that can be stored, and a reason where it is not to be trusted."""
    name, payload = chosen(SETS, data)
    for default in ((), (name,), ("utf-8", name)):
        text, reason = charset.decode(payload, default)
        text.encode("utf-8")
        assert "\ufffd" not in text or any(sent in payload for sent in REPLACEMENTS)
        if reason:
            check_reason(reason)


def make_acknowledgement(data: bytes) -> None:
    """Any bytes have their replies, each of them a message that we read as one."""
    number, payload = data[:1], data[1:]
    code = ("A", "E", "R")[(number or b"\0")[0] % 3]
    replies = acknowledge(payload, code, stamp="20261121101500+0800", control_id="0123456789ABCDEFGHIJ", text="Größe|^~\\&\r")
    messages = er7.messages(payload, verify=False) or [b""]
    assert len(replies) <= 2 * len(messages)
    for reply in replies:
        assert is_block(reply)
        assert reply.count(b"\r") <= 3
        assert read_answer(reply).code[1:] == code


def read_acknowledgement(data: bytes) -> None:
    """A hospital's answer, with a code of table 0008 or none."""
    answer = read_answer(data)
    assert answer.code in ("", "AA", "AE", "AR", "CA", "CE", "CR")
    encode(answer)


def read_capture(data: bytes) -> None:
    """The messages of a captured file, with or without frames."""
    for framing in ("mllp", "lis01"):
        found, _ = capture.messages(data, framing)
        assert sum(map(len, found)) <= 2 * len(data)


# -- files that people write -----------------------------------------------------------------------------------------


def read_profile(data: bytes) -> None:
    """A profile that can read messages, or a ProfileError."""
    try:
        profile = profiles.parse("fuzz", data.decode("utf-8", "replace"))
        deque(map(charset.codec, profile.charsets))
    except (profiles.ProfileError, LookupError):  # a set that Python knows and we do not is refused with the configuration
        return
    read, messages = (hl7v2.read, HL7_MESSAGES) if profile.protocol == "hl7v2" else (lis02.read, ASTM_MESSAGES)
    for message in messages:
        try:
            check_reading(read(message, profile, UTC))
        except RemoteProtocolError:
            continue


def read_config(data: bytes) -> None:
    """Settings, or a ConfigError."""
    file = FOLDER / "labbridge.toml"
    file.write_bytes(data)
    with suppress(config.ConfigError):
        config.load(file)


def read_mapping(data: bytes) -> None:
    """A catalogue and a code map, or a MappingError; the first byte chooses the file that is fuzzed."""
    name, content = chosen(TABLES, data)
    folder = FOLDER / "mappings"
    folder.mkdir(exist_ok=True)
    for each, text in FILES.items():
        (folder / each).write_bytes(content if each == name else text.encode())
    with suppress(mapping.MappingError):
        mapping.load_code_map("lab", [folder], mapping.load_catalogue([folder]))


# -- what the fuzzer begins with -------------------------------------------------------------------------------------


def samples(profile: Profile) -> list[bytes]:
    """Our own messages for a profile."""
    files = sorted((ANALYZERS / profile.name / "samples").iterdir())
    return [file.read_bytes() for file in files if file.suffix in (".hl7", ".astm")]


def captures(suffix: str) -> Iterator[bytes]:
    """The captures of the folder that LABBRIDGE_CORPUS names, if any."""
    for file in sorted(Path(CORPUS).rglob(f"*{suffix}")) if CORPUS else ():
        data = file.read_bytes()
        if len(data) <= LARGEST_SEED:
            yield data


def messages(of: Sequence[Profile], suffix: str) -> Iterator[bytes]:
    """Samples and captures, each behind the byte that chooses its profile; captures behind the generic one's."""
    for number, profile in enumerate(of):
        yield from (bytes([number]) + sample for sample in samples(profile))
    generic = [number for number, profile in enumerate(of) if profile.name.startswith("generic")]
    for data in captures(suffix):
        yield bytes(generic[:1]) + data.lstrip(b"\x0b").removesuffix(b"\x1c\r")


def bare(of: Sequence[Profile], suffix: str) -> list[bytes]:
    """The same without that byte."""
    return [seed[1:] for seed in messages(of, suffix)]


def answers() -> Iterator[bytes]:
    """Acknowledgements of all codes, as we make them."""
    for seed in bare(HL7, ".hl7"):
        for code in ("A", "E", "R"):
            yield from acknowledge(seed, code, stamp="20261121101500", control_id="A1", error_code="207", text="no")


def streams(of: Sequence[Profile], suffix: str, frame: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Messages in their frames as they stand on the line."""
    for seed in bare(of, suffix):
        yield seed if seed[:1] in b"\x05\x02\x0b" else frame(seed)


def in_mllp(payload: bytes) -> bytes:
    return b"\x0b" + payload + b"\x1c\r"


def in_lis01(payload: bytes) -> bytes:
    records = payload.replace(b"\n", b"\r").translate(None, bytes([*range(13), *range(14, 32)]))
    return b"\x05" + b"".join(cut(records, 240)) + b"\x04"


def charsets() -> Iterator[bytes]:
    """A name with letters of many scripts, in every set that has them, declared and not."""
    for number, name in enumerate(SETS):
        for text in ("Größe", "检验", "검사", "検査テスト", "Жук"):
            payload = f"MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5.1||||||{name}\rPID|||1||{text}\r"
            yield bytes([number]) + payload.encode(charset.codec(name), "ignore")


def scripts(of: Sequence[Profile], suffix: str, frame: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Streams cut in pieces, with something else between them."""
    for number, stream in enumerate(streams(of, suffix, frame)):
        yield bytes([number % 8]) + script(stream, 1 + number % 200)
    for number, payload in enumerate(bare(of, suffix)):
        yield bytes([number % 8]) + framed(payload)


def tables() -> Iterator[bytes]:
    """The tables of the small laboratory, and the shipped ones, each behind the byte that chooses it."""
    for number, name in enumerate(TABLES):
        yield bytes([number]) + FILES[name].encode()
        shipped = sorted((ROOT / "mappings").glob("*.csv" if name == "lab.csv" else name.replace("lab", "*")))
        yield from (bytes([number]) + data for file in shipped if len(data := file.read_bytes()) <= LARGEST_SEED)


def chosen(of: Sequence[T], data: bytes) -> tuple[T, bytes]:
    """What the first byte chooses, and the rest."""
    return of[(data or b"\0")[0] % len(of)], data[1:]


FOLDER = Path(tempfile.mkdtemp(prefix="labbridge-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SHORT = 2000  # bytes of the messages that a fuzzed profile reads
HL7_MESSAGES = [seed for seed in bare(HL7, ".none") if len(seed) <= SHORT][:3]
ASTM_MESSAGES = [seed for seed in bare(ASTM, ".none") if len(seed) <= SHORT][:3]

TARGETS: dict[str, Target] = {
    "hl7v2": Target(read_hl7v2, lambda: messages(HL7, ".hl7")),
    "lis02": Target(read_lis02, lambda: messages(ASTM, ".astm")),
    "charset": Target(read_charset, charsets),
    "acknowledge": Target(make_acknowledgement, lambda: messages(HL7, ".hl7")),
    "answer": Target(read_acknowledgement, answers),
    "mllp": Target(check_mllp, lambda: scripts(HL7, ".hl7", in_mllp)),
    "lis01": Target(check_lis01, lambda: scripts(ASTM, ".astm", in_lis01)),
    "raw": Target(check_raw, lambda: scripts(ASTM, ".astm", bytes)),
    "segments": Target(check_segmentation, lambda: [*streams(HL7, ".hl7", in_mllp), *streams(ASTM, ".astm", in_lis01)]),
    "capture": Target(read_capture, lambda: [*streams(HL7, ".hl7", in_mllp), *streams(ASTM, ".astm", in_lis01)]),
    "profile": Target(read_profile, lambda: (file.read_bytes() for file in sorted(ANALYZERS.glob("*/profile.toml"))), 2048),
    "config": Target(read_config, lambda: [(ROOT / "config.example.toml").read_bytes(), CONFIG.encode()], 2048),
    "mapping": Target(read_mapping, tables, 2048),
}
