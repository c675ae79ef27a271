"""The fuzzer's targets without the fuzzer: its seeds, seeds spoiled at random, and what it has found once."""

import random
import tracemalloc
from datetime import UTC

import pytest

from labbridge.formats import hl7v2
from tests.fuzz import links, targets
from tests.fuzz.__main__ import dictionary, main
from tests.fuzz.targets import HL7, TARGETS

FOUND = [
    # U+FFFD of the sender's own in GB18030, declared as the older set that has it not
    ("charset", b"\0MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5.1||||||GBK\rPID|||1||\x84\x31\xa4\x37\r"),
    ("charset", b"\0MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5.1||||||GB2312\rPID|||1||\x84\x31\xa4\x37\r"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_seeds_and_what_comes_of_them(name: str) -> None:
    """As the fuzzer does, for a moment: bytes are cut out, changed, put in, and two seeds become one."""
    seeds = [seed[: TARGETS[name].longest] for seed in TARGETS[name].seeds()]
    assert seeds
    dice = random.Random(name)
    for seed in seeds[:60]:
        TARGETS[name].run(seed)
        for _ in range(3):
            TARGETS[name].run(spoiled(seed, dice.choice(seeds), dice))


def spoiled(seed: bytes, other: bytes, dice: random.Random) -> bytes:
    """A seed with a few faults."""
    data = bytearray(seed)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                del data[at : at + dice.randint(1, 20)]
            case 1:
                data[at:at] = dice.randbytes(dice.randint(1, 4))
            case 2:
                data[at : at + 1] = dice.choice([b"\r", b"|", b"^", b"\\", b"\x0b", b"\x1c\r", b"\x05", b'"', b"\xff"])
            case _:
                data[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(data)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_once_is_read_now(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


def test_a_reader_does_not_remember_long_names_of_character_sets() -> None:
    """What a peer writes into MSH-18 chooses a compiled reader; only as much of it as a name may have is kept."""
    generic = next(profile for profile in HL7 if profile.name == "generic-hl7")

    def read(name: str) -> None:
        header = f"MSH|^~\\&|L|A|||20261117141503||ORU^R01|7|P|2.5.1||||||{name}"
        hl7v2.read(f"{header}\rOBR|1|O|S1|T\rOBX|1|NM|A||5|\\X41\\|||N|||F\r".encode(), generic, UTC)

    tracemalloc.start()
    for number in range(5):
        read(f"{number}{'x' * 1_000_000}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000_000


def test_a_fault_of_a_target_comes_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises anything else, or says what the peer never sent, is a finding."""
    monkeypatch.setattr(targets, "read_answer", lambda data: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        TARGETS["answer"].run(b"MSH|")
    monkeypatch.setattr(links, "MLLP", [lambda: Liar(links.MllpSettings())])
    with pytest.raises(AssertionError, match="never sent"):
        TARGETS["mllp"].run(b"\0\0\x05MSH|a")


class Liar(links.MllpLink):
    def receive(self, data: bytes, now: float) -> list[links.Event]:
        return [links.Received(1, b"another message")]


def test_an_input_is_repeated_by_name_and_file(tmp_path: targets.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "crash"
    file.write_bytes(FOUND[0][1])
    assert main(["charset", str(file)]) == 0
    assert str(file) in capsys.readouterr().out


def test_the_fuzzers_words_are_those_of_the_seeds(tmp_path: targets.Path) -> None:
    (tmp_path / "a").write_bytes(b'OBX|1|NM|WBC\rOBX|2|"\\x')
    assert dictionary(tmp_path).splitlines() == ['"OBX"', '"NM"', '"WBC"']


def test_the_fuzzer_is_pinned_and_no_host_is_named() -> None:
    lines = (targets.ROOT / "requirements-fuzz.lock").read_text("utf-8").splitlines()
    assert [line.partition("==")[0] for line in lines] == ["atheris"]
    assert not any("/" in line or line.startswith("-") for line in lines)
