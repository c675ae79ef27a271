"""What the tests of simulators share: two profiles and a sample of each."""

from pathlib import Path
from zoneinfo import ZoneInfo

from labbridge import profiles
from labbridge.formats import hl7v2, lis02
from labbridge.model import Reading
from labbridge.profiles import Profile
from labbridge.simulators.vary import Read

ZONE = ZoneInfo("Asia/Shanghai")

ORU = (
    b"MSH|^~\\&|Counter|Maker|||20260301101502||ORU^R01|17|P|2.3.1||||||UNICODE\r"
    b"PID|1||P-7^^^^MR||Doe^Jo||19800101000000|F\r"
    b"OBR|1||900100200300|00001^Automated Count||20260301100000|20260301101455\r"
    b"OBX|1|NM|6690-2^WBC^LN||7|10*9/L|4-10||||F|||20260301101455\r"
    b"OBX|2|NM|789-8^RBC^LN||4.56|10*12/L|3.80 - 5.10|N|||F|||20260301101455\r"
    b"OBX|3|NM|770-8^NEU%^LN||4.56|%||||||20271231235959\r"
    b"OBX|4|IS|APPEARANCE||clear||||||F\r"
)
ASTM = (
    b"H|\\^&|17||Counter^1.0^900100200300|||||||P|1|20260301101502\r"
    b"P|1|||P-7|Doe^Jo||19800101|F\r"
    b"O|1|2^1^   900100200300^B||^^^WBC\\^^^RBC|R|20260301100000\r"
    b"R|1|^^^WBC|  7,1|10*3/uL||N||F||||20260301101455\r"
    b"R|2|^^^RBC|4.56|10*6/uL||N||F||||20260301101455\r"
    b"R|3|^^^COLOUR|yellow||||||F||||20260301101455\r"
    b"L|1|N\r"
)
HEADER = '[profile]\nmodel = "Counter"\nvendor = "Maker"\n'


def hl7_profile() -> Profile:
    return profiles.parse("counter-hl7", HEADER + 'protocol = "hl7v2"\n')


def astm_profile() -> Profile:
    specimen = '[specimen]\nid = "O-3.3"\n'
    return profiles.parse("counter-astm", HEADER + 'protocol = "lis02"\n' + specimen + '[value]\ndecimal = ","\n')


def reader(profile: Profile) -> Read:
    """How a message of this profile is read."""
    read = hl7v2.read if profile.protocol == "hl7v2" else lis02.read

    def whole(payload: bytes) -> Reading:
        return read(payload, profile, ZONE)

    return whole


def sample_folder(folder: Path) -> Path:
    """A folder with a sample of each protocol, and with files that are not to be played."""
    (folder / "patient.hl7").write_bytes(ORU)
    (folder / "patient.astm").write_bytes(ASTM)
    (folder / "odd.hl7").write_bytes(ORU.replace(b"|F||", b"|X||"))
    (folder / "qc.hl7").write_bytes(ORU.replace(b"|17|P|", b"|17|Q|"))
    (folder / "qc.astm").write_bytes(ASTM.replace(b"||P|1|", b"||Q|1|"))
    (folder / "expected.json").write_text("{}")
    return folder
