"""labbridge.toml: what it becomes, and how each mistake is told."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbridge import config
from labbridge.config.reading import locate

KNOWN_SETS = (
    "ASCII, UTF-8, GB18030, GBK, GB2312, BIG5, BIG5HKSCS, CP950, EUC_KR, CP949, SHIFT_JIS, CP932, EUC_JP, ISO2022_JP_EXT, "
    "ISO8859-1, ISO8859-2, ISO8859-3, ISO8859-4, ISO8859-5, ISO8859-6, ISO8859-7, ISO8859-8, ISO8859-9, ISO8859-15, "
    "CP1250, CP1251, CP1252, CP1253, CP1254, CP1255, CP1256, CP1257, CP1258"
)

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
SITE = '[site]\nname = "Lab"\ntimezone = "Asia/Shanghai"\n'
WHOLE = (
    SITE
    + """
[[analyzer]]
name = "xn-1"
profile = "sysmex-xn"
listen = "127.0.0.1:5001"

[[destination]]
name = "his"
connect = "his.hospital:6661"

[[route]]
to = "his"
"""
)


def load(folder: Path, text: str) -> config.Settings:
    file = folder / "labbridge.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def told(folder: Path, text: str) -> list[str]:
    """The lines a person sees, without the folder."""
    with pytest.raises(config.ConfigError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_the_example_loads_and_is_what_make_run_needs() -> None:
    """The example has three analyzers on loopback, one hospital with four connections, and releases by itself."""
    settings = config.load(EXAMPLE)
    assert [(a.name, a.profile, a.code_map, str(a.listen)) for a in settings.analyzers] == [
        ("xn-1", "sysmex-xn", "sysmex-xn", "127.0.0.1:5001"),
        ("bc-1", "mindray-bc", "mindray-bc", "127.0.0.1:5002"),
        ("c311-1", "roche-cobas-c311", "roche-cobas-c311", "127.0.0.1:5003"),
    ]
    assert [(d.name, str(d.connect), d.connections) for d in settings.destinations] == [("his", "127.0.0.1:6661", 4)]
    assert [route.to for route in settings.routes] == ["his"]
    assert settings.verification.auto_release


def test_the_example_explains_keys_that_exist(tmp_path: Path) -> None:
    """Every key that the example shows as a comment is a key, with a value that may be written."""
    (tmp_path / "analyzers").mkdir()
    (tmp_path / "mappings").mkdir()
    shown = re.sub(r"^# (?=\[|\w+ = )(?!connect|serial|folder|path)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    settings = load(tmp_path, shown)
    assert settings.analyzers[0].timers.answer == 12.0
    assert settings.analyzers[0].qc_ids == ("^QC", "^99[0-9]{4}$")
    assert settings.destinations[0].oru.segments == ("ZLB|{specimen.id}|{run.number}",)
    assert settings.library.mappings == tmp_path / "mappings"
    assert str(settings.http.listen) == "127.0.0.1:9464"


def test_defaults_are_the_safe_ones(tmp_path: Path) -> None:
    """Left out, nothing is released by itself, and only this machine may connect."""
    settings = load(tmp_path, WHOLE)
    assert not settings.verification.auto_release
    assert settings.verification.stale == 72 * 3600
    assert settings.verification.duplicate_window == 600
    assert settings.analyzers[0].allow == ("127.0.0.0/8", "::1/128")
    assert settings.http.listen is None
    assert settings.destinations[0].answers == config.Answers(ae="refuse", ar="retry", tries=3, pause_after=20)


def test_a_serial_line_is_set_as_the_standard_has_it(tmp_path: Path) -> None:
    """9600 bit/s, 8 data bits, no parity, 1 stop bit; a text is short for the table with its device."""
    # conformance: A27
    short = WHOLE.replace('listen = "127.0.0.1:5001"', 'serial = "/dev/ttyUSB0"')
    table = WHOLE.replace('listen = "127.0.0.1:5001"\n', '[analyzer.serial]\ndevice = "/dev/ttyUSB0"\n')
    lines = [load(tmp_path, text).analyzers[0].serial for text in (short, table)]
    assert lines[0] == lines[1]
    line = lines[0]
    assert (line.baud, line.bytesize, line.parity, line.stopbits, line.flow) == (9600, 8, "N", 1, "none")
    assert line.device == Path("/dev/ttyUSB0")


def test_no_two_analyzers_share_a_line_or_a_folder(tmp_path: Path) -> None:
    for way in ('serial = "/dev/ttyUSB0"', 'folder = "inbox"'):
        one = f'[[analyzer]]\nname = "NAME"\nprofile = "sysmex-xn"\n{way}\n'
        [said] = told(tmp_path, SITE + one.replace("NAME", "a") + one.replace("NAME", "b"))
        assert "is that of a - give each analyzer its own" in said


def test_paths_and_the_sqlite_file_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    """Where labbridge is started from does not matter."""
    settings = load(tmp_path, SITE)
    assert settings.store.url == f"sqlite:///{tmp_path}/labbridge.db"
    assert settings.store.file == tmp_path / "labbridge.db"
    assert settings.control.path == tmp_path / "labbridge.sock"
    there = load(tmp_path, SITE + '[store]\nurl = "sqlite:////tmp/other.db"\n[control]\npath = "/run/x.sock"')
    assert there.store.file == Path("/tmp/other.db")
    assert there.control.path == Path("/run/x.sock")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    """A file written by an editor on Windows loads, and its lines count right."""
    file = tmp_path / "labbridge.toml"
    file.write_bytes(b"\xef\xbb\xbf" + (WHOLE + "[log]\nlevel = 1\n").replace("\n", "\r\n").encode())
    with pytest.raises(config.ConfigError, match=rf"labbridge\.toml:{WHOLE.count(chr(10)) + 2}: log\.level: "):
        config.load(file)


def test_postgresql_urls_name_the_driver_and_print_without_the_password(tmp_path: Path) -> None:
    """The store's URL is whole for the store and masked for people."""
    url = "postgresql://lab:se/cret@db/lab".replace("se/cret", "s%2Fe@cret")
    settings = load(tmp_path, SITE + f'[store]\nurl = "{url}?sslmode=require"')
    assert settings.store.url == f"postgresql+psycopg{url.removeprefix('postgresql')}?sslmode=require"
    assert settings.store.file is None
    assert str(settings.store) == "postgresql+psycopg://db/lab"


ONE_MISTAKE = {
    "an address without a host": (
        'listen = "5001"',
        'labbridge.toml:8: analyzer[0].listen: expected an address such as "127.0.0.1:5001", got "5001"',
    ),
    "a port out of range": (
        'listen = "127.0.0.1:70000"',
        'labbridge.toml:8: analyzer[0].listen: expected an address such as "127.0.0.1:5001", got "127.0.0.1:70000"',
    ),
    "no address": (
        "",
        "labbridge.toml:5: analyzer[0]: not connected"
        ' - write listen = "127.0.0.1:5001" if the analyzer connects to us, or else connect, serial or folder',
    ),
    "two addresses": (
        'listen = "127.0.0.1:5001"\nconnect = "10.0.0.7:5100"',
        "labbridge.toml:5: analyzer[0]: listen and connect together"
        ' - write listen = "127.0.0.1:5001" if the analyzer connects to us, or else connect, serial or folder',
    ),
    "a line and an address": (
        'serial = "/dev/ttyUSB0"\nlisten = "127.0.0.1:5001"',
        "labbridge.toml:5: analyzer[0]: listen and serial together"
        ' - write listen = "127.0.0.1:5001" if the analyzer connects to us, or else connect, serial or folder',
    ),
    "a rate that no line has": (
        'serial = {device = "/dev/ttyUSB0", baud = 9601}',
        "labbridge.toml:8: analyzer[0].serial.baud: expected 300 or 600 or 1200 or 2400 or 4800 or 9600 or 19200 or 38400"
        " or 57600 or 115200, got 9601",
    ),
    "a size without its unit": (
        'listen = "127.0.0.1:5001"\nmax_message = "16"',
        'labbridge.toml:9: analyzer[0].max_message: expected a size from 1 KiB to 1 GiB, such as "16MiB" or "512KiB", got "16"',
    ),
    "a frame that is too large": (
        'listen = "127.0.0.1:5001"\nframes = {size = 64000}',
        "labbridge.toml:9: analyzer[0].frames.size: expected a whole number from 1 to 63993, got 64000",
    ),
    "a certificate without its key": (
        'listen = "127.0.0.1:5001"\ntls = {certificate = "a.pem"}',
        "labbridge.toml:9: analyzer[0].tls: certificate and key go together - add key",
    ),
    "a listener without a certificate": (
        'listen = "127.0.0.1:5001"\ntls = {ca = "ca.pem"}',
        "labbridge.toml:9: analyzer[0].tls: a listener needs a certificate - add certificate and key",
    ),
    "clients that nobody knows": (
        'listen = "127.0.0.1:5001"\ntls = {certificate = "a.pem", key = "a.key", clients = "required"}',
        "labbridge.toml:9: analyzer[0].tls.clients: nobody is trusted - add ca, the file with who signs the clients' certificates",
    ),
    "clients that need none, and a ca": (
        'listen = "127.0.0.1:5001"\ntls = {certificate = "a.pem", key = "a.key", ca = "ca.pem", clients = "none"}',
        "labbridge.toml:9: analyzer[0].tls.clients: ca is for the clients' certificates - remove one of the two",
    ),
    "a name of nobody": (
        'listen = "127.0.0.1:5001"\ntls = {certificate = "a.pem", key = "a.key", name = "x"}',
        "labbridge.toml:9: analyzer[0].tls.name: only what we connect to has a name to be verified - remove it",
    ),
    "a connection that trusts nobody": (
        'connect = "10.0.0.7:5100"\ntls = {certificate = "a.pem", key = "a.key"}',
        "labbridge.toml:9: analyzer[0].tls: nobody is trusted - add ca, the file with who signs the other side's certificate",
    ),
    "clients of a connection": (
        'connect = "10.0.0.7:5100"\ntls = {ca = "ca.pem", clients = "none"}',
        "labbridge.toml:9: analyzer[0].tls.clients: only a listener has clients - remove it",
    ),
    "TLS on a serial line": (
        'serial = "/dev/ttyUSB0"\ntls = {ca = "ca.pem"}',
        "labbridge.toml:9: analyzer[0].tls: there is no TLS with serial - remove it",
    ),
    "a key that is nearly right": (
        'listen = "127.0.0.1:5001"\nqc_id = ["^QC"]',
        'labbridge.toml:9: analyzer[0].qc_id: unknown key - did you mean "qc_ids"?',
    ),
    "a bad pattern": (
        'listen = "127.0.0.1:5001"\nqc_ids = ["^QC", "[0-9"]',
        "labbridge.toml:9: analyzer[0].qc_ids[1]: expected a regular expression in single quotes such as '^[0-9]{8,14}$',"
        ' got "[0-9" (unterminated character set at position 0)',
    ),
    "a bad network": (
        'listen = "127.0.0.1:5001"\nallow = ["10.1.2.3/8"]',
        'labbridge.toml:9: analyzer[0].allow[0]: expected a network or an address such as "192.168.10.0/24", got "10.1.2.3/8"'
        " (10.1.2.3/8 has host bits set)",
    ),
    "a bad duration": (
        'listen = "127.0.0.1:5001"\n[analyzer.timers]\nreceive = "30"',
        'labbridge.toml:10: analyzer[0].timers.receive: expected a duration such as "30s", "10m" or "72h", got "30"',
    ),
    "a timer of no length": (
        'listen = "127.0.0.1:5001"\ntimers.answer = "0s"',
        'labbridge.toml:9: analyzer[0].timers.answer: expected a duration such as "30s", "10m" or "72h", got "0s"',
    ),
    "a word that is no choice": (
        'listen = "127.0.0.1:5001"\nidentity = "name"',
        'labbridge.toml:9: analyzer[0].identity: expected "barcode" or "sample-number" or "patient", got "name"',
    ),
    "a number too big": (
        'listen = "127.0.0.1:5001"\nmax_connections = 0',
        "labbridge.toml:9: analyzer[0].max_connections: expected a whole number from 1 to 1000, got 0",
    ),
    "an unknown character set": (
        'listen = "127.0.0.1:5001"\ncharset = "hex"',
        'labbridge.toml:9: analyzer[0].charset: expected a character set such as "UTF-8" or "GB18030", got "hex"'
        f" (unknown character set 'hex'; known are: {KNOWN_SETS})",
    ),
    "an unknown one in a list of character sets": (
        'listen = "127.0.0.1:5001"\ncharset = ["UTF-8",\n"gbq"]',
        'labbridge.toml:9: analyzer[0].charset[1]: expected a character set such as "UTF-8" or "GB18030", got "gbq"'
        f" (unknown character set 'gbq'; known are: {KNOWN_SETS})",
    ),
    "no character set at all": (
        'listen = "127.0.0.1:5001"\ncharset = []',
        'labbridge.toml:9: analyzer[0].charset: expected a character set such as "UTF-8" or "GB18030", got []',
    ),
    "text for a list": (
        'listen = "127.0.0.1:5001"\nqc_ids = "^QC"',
        'labbridge.toml:9: analyzer[0].qc_ids: expected ["...", "..."], got "^QC"',
    ),
}


@pytest.mark.parametrize("case", ONE_MISTAKE)
def test_a_mistake_in_an_analyzer_is_named_with_its_line_and_remedy(tmp_path: Path, case: str) -> None:
    """Each mistake alone gives its one line, to the letter."""
    written, expected = ONE_MISTAKE[case]
    assert told(tmp_path, f'{SITE}\n[[analyzer]]\nname = "a"\nprofile = "p"\n{written}\n') == [expected]


ELSEWHERE = {
    SITE.replace("Asia/Shanghai", "Asia/Peking"): [
        'labbridge.toml:3: site.timezone: expected a time zone such as "Asia/Shanghai", got "Asia/Peking"'
        " ('No time zone found with key Asia/Peking')"
    ],
    "": [
        "labbridge.toml: site.name: missing - add text in quotes",
        'labbridge.toml: site.timezone: missing - add a time zone such as "Asia/Shanghai"',
    ],
    SITE + "[log]\nlevel = 3\nformats = 1": [
        'labbridge.toml:5: log.level: expected "debug" or "info" or "warning" or "error", got 3',
        'labbridge.toml:6: log.formats: unknown key - did you mean "format"?',
    ],
    SITE + "[[route]]\nto = true": ["labbridge.toml:5: route[0].to: expected text in quotes, got true"],
    SITE + "[verification]\nauto_release = 1": ["labbridge.toml:5: verification.auto_release: expected true or false, got 1"],
    SITE + "[analyzer]\nname = 'x'": ['labbridge.toml:4: analyzer: expected [[analyzer]], got {"name": "x"}'],
    SITE + "[[store]]": ["labbridge.toml:4: store: expected a table [store], got [{}]"],
    SITE + "[[store]]\nurl = 'postgresql://lab:secret@db/lab'": ["labbridge.toml:4: store: expected a table [store], got ***"],
    "site = 5": ["labbridge.toml:1: site: expected a table [site], got 5"],
    SITE + "[[route]]\nto = 'his'\nanalyzers = ['a']": [
        'labbridge.toml:5: route[0].to: no destination "his" - there are: none',
        'labbridge.toml:6: route[0].analyzers[0]: no analyzer "a" - there are: none',
    ],
    WHOLE + "[[route]]\nto = 'hsi'": [
        f'labbridge.toml:{WHOLE.count(chr(10)) + 2}: route[1].to: no destination "hsi" - there are: his'
    ],
    WHOLE + WHOLE.removeprefix(SITE): [
        'labbridge.toml:18: analyzer[1].name: there is another analyzer "xn-1" - give each its own name',
        "labbridge.toml:20: analyzer[1].listen: 127.0.0.1:5001 is taken already - choose another port",
        'labbridge.toml:23: destination[1].name: there is another destination "his" - give each its own name',
    ],
    WHOLE.replace("xn-1", "x n"): [
        'labbridge.toml:6: analyzer[0].name: expected a name of letters, digits, . _ - such as "analyzer-1", got "x n"'
    ],
    WHOLE + '[http]\nlisten = "0.0.0.0:5001"': [
        "labbridge.toml:17: http.listen: 127.0.0.1:5001 is taken already - choose another port"
    ],
    WHOLE + '[console]\nlisten = "0.0.0.0:5001"\n[console.tls]\ncertificate = "a.pem"': [
        "labbridge.toml:17: console.listen: 127.0.0.1:5001 is taken already - choose another port",
        "labbridge.toml:18: console.tls: certificate and key go together - add key",
    ],
    SITE + "[library]\nmappings = 'nowhere'": [
        "labbridge.toml:5: library.mappings: no folder nowhere - make it, or correct the path"
    ],
    SITE + "[store]\nurl = 'sqlite:///no/where.db'": ["labbridge.toml:5: store.url: no folder no - make it, or correct the path"],
    SITE + "[control]\npath = 'no/where.sock'": ["labbridge.toml:5: control.path: no folder no - make it, or correct the path"],
    SITE + f"[control]\npath = '/{'x' * 107}'": [
        'labbridge.toml:5: control.path: longer than the 107 bytes of a socket\'s path - add [control] path = "/run/labbridge.sock"'
    ],
}


@pytest.mark.parametrize("written", ELSEWHERE)
def test_a_mistake_elsewhere_is_named_with_its_line_and_remedy(tmp_path: Path, written: str) -> None:
    """Each mistake gives its line, to the letter, and no other line."""
    assert told(tmp_path, written) == ELSEWHERE[written]


DESTINATION = SITE + '[[destination]]\nname = "his"\nconnect = "10.0.0.1:6661"\n'


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            'timeout = "0s"\n[destination.answers]\nAE = "retry"\n',
            'labbridge.toml:7: destination[0].timeout: expected a duration such as "30s", "10m" or "72h", got "0s"',
        ),
        (
            '[destination.answers]\nae = "retry"\n',
            "labbridge.toml:8: destination[0].answers.ae: unknown key - known are: AE, AR, tries, pause_after",
        ),
        (
            '[destination.oru]\npartial = "wait:soon"\n',
            'labbridge.toml:8: destination[0].oru.partial: expected "send" or a wait such as "wait:30m", got "wait:soon"',
        ),
        (
            '[destination.oru]\npartial = "30m"\n',
            'labbridge.toml:8: destination[0].oru.partial: expected "send" or a wait such as "wait:30m", got "30m"',
        ),
        (
            '[destination.oru]\nfields = {"OBR-3" = "x", "OBR-0" = "y"}\n',
            'labbridge.toml:8: destination[0].oru.fields.OBR-0: expected a field of HL7 such as "OBR-3", got "OBR-0"',
        ),
        (
            '[destination.oru.fields]\n"OBR-3" = 3\n',
            "labbridge.toml:8: destination[0].oru.fields.OBR-3: expected text in quotes, got 3",
        ),
        ("[destination.oru]\nfields = []\n", 'labbridge.toml:8: destination[0].oru.fields: expected {"OBR-3" = "..."}, got []'),
        (
            '[destination.oru]\nsegments = [\n  "ZLB|1",\n  "zlb",\n]\n',
            'labbridge.toml:8: destination[0].oru.segments[1]: expected a segment of HL7 such as "ZLB|{specimen.id}", got "zlb"',
        ),
    ],
)
def test_a_mistake_in_a_destination_is_named_with_its_line_and_remedy(tmp_path: Path, written: str, expected: str) -> None:
    """Each mistake alone gives its one line, to the letter."""
    assert told(tmp_path, DESTINATION + written) == [expected]


def test_every_mistake_is_told_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    """Five wrong keys in three sections give five lines."""
    text = '[site]\nname = 1\ntimezon = "UTC"\n[[analyzer]]\nprofile = ""\nlisten = 5\n[http]\nlisten = "x"\n'
    lines = told(tmp_path, text)
    assert [line.split(" ")[0] for line in lines] == ["labbridge.toml:1:"] + [
        f"labbridge.toml:{number}:" for number in (2, 3, 4, 6, 8)
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[site]\nname = Lab\n", "labbridge.toml:2: not TOML: Invalid value (at line 2, column 8)"),
        ('[site]\nname = "Lab\n', "labbridge.toml:2: not TOML: Illegal character '\\n' (at line 2, column 12)"),
        ('[site]\nname = "a"\nname = "b"\n', "labbridge.toml:3: not TOML: Cannot overwrite a value (at line 3, column 11)"),
        ("[site]\nx = [1,", "labbridge.toml: not TOML: Invalid value (at end of document)"),
    ],
)
def test_bad_toml_is_told_alone_with_its_line(tmp_path: Path, written: str, expected: str) -> None:
    """Where the syntax is broken, nothing else can be said."""
    remedy = "text stands in quotes, a heading in [ ] or [[ ]], and a key only once"
    assert told(tmp_path, written) == [f"{expected} - {remedy}"]


def test_a_file_that_cannot_be_read_is_a_mistake_too(tmp_path: Path) -> None:
    """A missing file and one in another encoding are told like any mistake."""
    with pytest.raises(config.ConfigError, match=r"nothing\.toml: cannot be read: No such file or directory - "):
        config.load(tmp_path / "nothing.toml")
    (tmp_path / "labbridge.toml").write_bytes('[site]\nname = "中心"\n'.encode("gbk"))
    with pytest.raises(config.ConfigError, match=r"labbridge\.toml: not UTF-8 - save the file as UTF-8"):
        config.load(tmp_path / "labbridge.toml")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://lab:secret@db/lab",
        "postgresql://lab:secret@db",
        "postgresql://lab:secret/db",
        "postgresql://lab:se/secret@db/lab",
        "postgresql://lab:se#secret@db/lab",
        "postgres://db/lab?password=secret",
        "postgresql+psycopg2://lab:secret@db/lab",
        "postgresql:lab:secret",
        "postgresql://[lab:secret@db/lab",
        "lab@secret",
    ],
)
def test_a_malformed_database_url_shows_no_password(tmp_path: Path, url: str) -> None:
    """The message names line and key, and nothing after the scheme."""
    (line,) = told(tmp_path, SITE + f'[store]\nurl = "{url}"')
    assert line.startswith('labbridge.toml:5: store.url: expected "sqlite:///labbridge.db" or "postgresql+psycopg://user:password@')
    assert "secret" not in line


@pytest.mark.parametrize("url", ["labbridge.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?b=c"])
def test_a_store_that_keeps_nothing_is_refused(tmp_path: Path, url: str) -> None:
    """A database must be a file or a server."""
    (line,) = told(tmp_path, SITE + f'[store]\nurl = "{url}"')
    assert line.startswith('labbridge.toml:5: store.url: expected "sqlite:///labbridge.db" or ')


def test_the_source_changes_with_the_rules_alone(tmp_path: Path) -> None:
    """An address, a comment or a default written out is no new revision; a rule is."""
    first = load(tmp_path, WHOLE)
    same = load(tmp_path, WHOLE.replace("5001", "5009").replace("[[route]]", "# x\n[verification]\nstale='3d'\n[[route]]"))
    other = load(tmp_path, WHOLE + "[verification]\nstale = '4d'")
    assert first.source == same.source != other.source
    assert first.source == msgspec.json.encode(msgspec.json.decode(first.source), order="sorted")


def test_a_reload_sees_what_changed(tmp_path: Path) -> None:
    """Only what differs is stopped and started."""
    both = WHOLE + '[[analyzer]]\nname = "bc-1"\nprofile = "mindray-bc"\nlisten = "127.0.0.1:5002"\n'
    old = load(tmp_path, both).analyzers
    new = load(tmp_path, both.replace("5002", "5003") + '[[analyzer]]\nname="n"\nprofile="p"\nconnect="h:1"').analyzers
    stop, start = config.changes(old, new)
    assert [(a.name, str(a.listen)) for a in stop] == [("bc-1", "127.0.0.1:5002")]
    assert [(a.name, str(a.listen or a.connect)) for a in start] == [("bc-1", "127.0.0.1:5003"), ("n", "h:1")]
    assert config.changes(old, old) == ([], [])


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("[::]", "127.0.0.1", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("lab.local", "10.0.0.6", False),
    ],
)
def test_two_listeners_on_one_port_must_have_their_own_interfaces(tmp_path: Path, one: str, other: str, meet: bool) -> None:
    """All interfaces take the port of each; two interfaces may have the same."""
    text = SITE + "".join(
        f'[[analyzer]]\nname = "{name}"\nprofile = "p"\nlisten = "{host}:5001"\n' for name, host in (("one", one), ("other", other))
    )
    if meet:
        assert told(tmp_path, text) == [f"labbridge.toml:11: analyzer[1].listen: {one}:5001 is taken already - choose another port"]
    else:
        assert len(load(tmp_path, text).analyzers) == 2


def test_an_ipv6_address_stands_in_brackets(tmp_path: Path) -> None:
    """The host is kept without them, and printed with them."""
    (analyzer,) = load(tmp_path, WHOLE.replace("127.0.0.1:5001", "[0:0::1]:5001")).analyzers
    assert analyzer.listen == config.Address("::1", 5001)
    assert str(analyzer.listen) == "[::1]:5001"


@given(st.integers(1, 10**9 - 1), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: tuple[str, float]) -> None:
    """Whole numbers of every unit come out as seconds."""
    assert config.duration(f"{number}{unit[0]}") == pytest.approx(number * unit[1], rel=1e-12)
    assert config.duration(f"{number}.50{unit[0]}") == pytest.approx((number + 0.5) * unit[1], rel=1e-12)


@given(st.text("0123456789.hdms -", max_size=12))
def test_a_duration_is_read_or_refused(text: str) -> None:
    """Any text is a number of seconds, or a ValueError."""
    try:
        assert config.duration(text) > 0
    except ValueError:
        assert not re.fullmatch(r"(?=.*[1-9])[0-9]{1,9}(ms|s|m|h|d)", text)


KEYS = st.sampled_from(["a", "b", "c-1", '"D-4"', "'e f'"])
VALUES = st.sampled_from(["1", '"#["', "'''\n[x]\ny = 1\n'''", '"""a"\n\\""" # """', "[\n 1, # ]\n 2 ]", "{ k = '}' }", "true # x"])


@given(st.lists(st.tuples(KEYS, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=5))
def test_every_key_is_found_on_its_line(tables: list[tuple[str, dict[str, str]]]) -> None:
    """The scan of the text names the very line on which a key stands, whatever strings and lists are around it."""
    text, expected, seen = "# first\n\n", {}, dict[str, int]()
    for name, keys in tables:
        index = seen[name] = seen.get(name, -1) + 1
        text += f"[[ t.{name} ]]  # = '\n"
        for key, value in keys.items():
            expected["t", name.strip("\"'"), index, key.strip("\"'")] = text.count("\n") + 1
            text += f"  {key} = {value}\n"
    tomllib.loads(text)
    found = locate(text)
    assert {at: found[at] for at in expected} == expected
