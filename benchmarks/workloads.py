"""The two workloads: W1, a 3 KB ORU^R01 of HL7 2.3.1 with 30 OBX; W2, an ASTM message with 30 R, a frame per record.

Both have the shape of a haematology analyzer's live messages and carry the same 30 results of invented patients.
``w1(n)`` and ``w2(n)`` make message number ``n``: its specimen, its patient and its control id are its own, and always
of the same length; ten sets of values take turns. Only what differs is made anew, so that a message costs the load
generator a microsecond or four.
"""

START, END = b"\x0b", b"\x1c\r"
STX, ETX, EOT, ENQ, ACK = b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"

RESULTS = 30
# code, name, coding system, value, unit, reference range, HL7 flag
_TESTS = """
6690-2   WBC    LN    5.86   10*9/L   3.50-9.50    N
704-7    BAS#   LN    0.03   10*9/L   0.00-0.06    N
706-2    BAS%   LN    0.5    %        0.0-1.0      N
751-8    NEU#   LN    3.28   10*9/L   1.80-6.30    N
770-8    NEU%   LN    55.9   %        40.0-75.0    N
711-2    EOS#   LN    0.15   10*9/L   0.02-0.52    N
713-8    EOS%   LN    2.6    %        0.4-8.0      N
731-0    LYM#   LN    1.97   10*9/L   1.10-3.20    N
736-9    LYM%   LN    33.6   %        20.0-50.0    H~A
742-7    MON#   LN    0.43   10*9/L   0.10-0.60    N
5905-5   MON%   LN    7.4    %        3.0-10.0     N
789-8    RBC    LN    4.62   10*12/L  4.30-5.80    N
718-7    HGB    LN    139    g/L      130-175      N
787-2    MCV    LN    89.8   fL       82.0-100.0   N
785-6    MCH    LN    30.1   pg       27.0-34.0    N
786-4    MCHC   LN    335    g/L      316-354      N
788-0    RDW-CV LN    13.1   %        11.0-16.0    N
21000-5  RDW-SD LN    43.4   fL       35.0-56.0    H~A
4544-3   HCT    LN    41.5   %        40.0-50.0    N
777-3    PLT    LN    218    10*9/L   125-350      N
32623-1  MPV    LN    10.1   fL       6.5-12.0     N
32207-3  PDW    LN    15.9   -        9.0-17.0     N
10002    PCT    99MRC 0.220  %        0.108-0.282  N
10013    PLCC   99MRC 58     10*9/L   30-90        N
10014    PLCR   99MRC 26.6   %        11.0-45.0    N
26477-0  *ALY#  LN    0.04   10*9/L   0.00-0.20    N
13046-8  *ALY%  LN    0.7    %        0.0-2.0      H~A
10000    *LIC#  99MRC 0.02   10*9/L   0.00-0.20    N
10001    *LIC%  99MRC 0.3    %        0.0-2.5      N
30392-5  NRBC#  LN    0.00   10*9/L   0.00-0.02    N
"""
_ROWS = [line.split() for line in _TESTS.split("\n") if line]
_VARIANTS = 10  # by the last digit of every value


def _w1_parts(variant: int) -> list[bytes]:
    segments = [
        "MSH|^~\\&|BC-6800Plus^Mindray|HAEM-LAB-02|LIS|CENTRAL|20250107093015+0000||ORU^R01|MSG@|P|2.3.1||||||UNICODE",
        "PID|1||PAT@^^^HOSP^MR||SAMPLE^ROBIN^Q||19800229|M|||7 QUARRY ROAD^^SOUTHFORD^^SF2 9XY^GB",
        "PV1|1|I|WARD-3^BED-05^^CENTRAL||||||||||||||||V20250107003",
        "OBR|1|ORD@|SMP@|00001^Automated Count^99MRC|R|20250107084500|20250107092940|||TECH-07|||Routine check"
        "|20250107085210||||||||20250107092955||HM|F||||||||ADMIN",
    ]
    for number, (code, name, system, value, unit, reference, flags) in enumerate(_ROWS, 1):
        segments.append(
            f"OBX|{number}|NM|{code}^{name}^{system}||{value[:-1]}{variant}|{unit.strip('-')}|{reference}|{flags}|||F"
            "|||20250107092940|HAEM-LAB-02|TECH-07"
        )
    return (START + "".join(f"{segment}\r" for segment in segments).encode() + END).split(b"@")


_W1 = [_w1_parts(variant) for variant in range(_VARIANTS)]


def w1(n: int) -> bytes:
    """Message ``n`` of W1 in its MLLP block."""
    return (b"%010d" % n).join(_W1[n % _VARIANTS])


def frame(number: int, record: bytes) -> bytes:
    """One LIS01 frame: number modulo 8, record, ETX, checksum modulo 256 in hexadecimal."""
    checked = b"%d" % (number % 8) + record + b"\r" + ETX
    return STX + checked + b"%02X" % (sum(checked) % 256) + b"\r\n"


def _w2_records(variant: int) -> list[bytes]:
    records = [
        "H|\\^&|||XN-1000^00-22^20417^^^^CD654321||||||||E1394-97|20250107093015",
        "P|1|||PAT@|SAMPLE^ROBIN||19800229|M|||||^DR EXAMPLE||||||||||||^^^EAST",
        "O|1||4^2^SMP@^B|^^^^WBC\\^^^^RBC\\^^^^HGB\\^^^^HCT\\^^^^PLT\\^^^^DIFF|R|20250107084500|||||N||||||||||||||F",
    ]
    for number, (_code, name, _system, value, unit, reference, flags) in enumerate(_ROWS, 1):
        records.append(
            f"R|{number}|^^^^{name.lstrip('*')}^{number % 3 + 1}|{value[:-1]}{variant}|{unit.strip('-')}"
            f"|{reference.replace('-', ' to ')}|{flags[0]}||F||TECH-07||20250107092940|XN-1000"
        )
    return [record.encode() for record in (*records, "L|1|N")]


_W2 = [[frame(number, record) for number, record in enumerate(_w2_records(v), 1)] for v in range(_VARIANTS)]
_W2_OWN = [(number, record.split(b"@")) for number, record in enumerate(_w2_records(0), 1) if b"@" in record]


def w2(n: int) -> list[bytes]:
    """The frames of message ``n`` of W2."""
    frames = _W2[n % _VARIANTS].copy()
    own = b"%010d" % n
    for number, parts in _W2_OWN:
        frames[number - 1] = frame(number, own.join(parts))
    return frames
