"""What may stand in labbridge.toml, as frozen structs: every key, its type and its default.

The marked types (``Duration``, ``Regex`` ...) are plain floats and texts here; ``reading`` knows how each is written.
"""

import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

Duration = Annotated[float, "duration"]  # seconds; written "72h", "10m", "30s", "500ms"
Wait = Annotated[float | None, "wait"]  # written "send" (None) or "wait:30m"
Count = Annotated[int, "count"]  # 1 to 1000
Size = Annotated[int, "size"]  # bytes; written "16MiB", "512KiB"
FrameSize = Annotated[int, "frame size"]  # characters, 1 to 63,993
Regex = Annotated[str, "regex"]
Network = Annotated[str, "network"]  # "10.1.0.0/16", or one address
Zone = Annotated[str, "zone"]  # IANA name
Charset = Annotated[str, "charset"]  # by any of its names
Charsets = Annotated[tuple[Charset, ...], "charsets"]  # written "GB18030" or ["UTF-8", "GB18030"]
DatabaseUrl = Annotated[str, "url"]
Name = Annotated[str, "name"]
Field = Annotated[str, "field"]  # "OBR-3"
Segment = Annotated[str, "segment"]

SQLITE = "sqlite:///"


class Setting(msgspec.Struct, frozen=True):
    """Base of every section: immutable, compared by value, so that a reload sees what changed."""


class Address(msgspec.Struct, frozen=True):
    """A TCP address, written "host:port" or "[ipv6]:port"."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Site(Setting, frozen=True):
    """``[site]``: the laboratory."""

    name: str
    timezone: Zone  # analyzers send local times without a zone
    language: Literal["en", "zh"] = "en"


class StoreSettings(Setting, frozen=True):
    """``[store]``: the database; an SQLite file's path is absolute."""

    url: DatabaseUrl = "sqlite:///labbridge.db"
    keep: Duration | None = None  # what is settled and older loses its bodies; None: nothing does

    @property
    def file(self) -> Path | None:
        """The SQLite file, or None where a server keeps the data."""
        return Path(self.url.removeprefix(SQLITE)) if self.url.startswith(SQLITE) else None

    def __str__(self) -> str:
        """The URL without user, password and options."""
        parts = urllib.parse.urlsplit(self.url)
        return self.url if self.file else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Library(Setting, frozen=True):
    """``[library]``: the laboratory's own folders, looked up before the packaged ones."""

    analyzers: Path | None = None
    mappings: Path | None = None


class Timers(Setting, frozen=True):
    """``[analyzer.timers]``: what differs here from the profile's and the standard's; None where nothing does."""

    answer: Duration | None = None  # the store must have answered the analyzer; then NAK or AE
    reply: Duration | None = None  # the analyzer must have answered us
    receive: Duration | None = None  # the next frame must have come
    busy: Duration | None = None  # pause after the analyzer said that it is busy
    contention: Duration | None = None  # both wanted to send: the analyzer must have begun
    interrupt: Duration | None = None  # pause after the analyzer asked for the line


class Frames(Setting, frozen=True):
    """``[analyzer.frames]``: ASTM frames, where the device is set otherwise than its profile says; None where it is not."""

    size: FrameSize | None = None  # characters of text in a frame that we send
    checksum: bool | None = None
    numbered: bool | None = None
    refusals: Count | None = None  # of one frame of ours, before the message fails


class SerialSettings(Setting, frozen=True):
    """``[analyzer.serial]``, or ``serial = "DEVICE"``: how the line is set; LIS01-A2's own by default."""

    device: Path | None = None
    baud: Literal[300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 9600
    bytesize: Literal[8, 7] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    flow: Literal["none", "xonxoff", "rtscts"] = "none"


class Tls(Setting, frozen=True):
    """``[destination.tls]``: TLS, where anything of it is set. Files are PEM."""

    certificate: Path | None = None  # ours
    key: Path | None = None
    ca: Path | None = None  # whom we trust
    name: str = ""  # what the peer's certificate must be for; empty: the host of ``connect``


class AnalyzerTls(Tls, frozen=True):
    """``[analyzer.tls]``."""

    clients: Literal["required", "none"] | None = None  # of listen: must they have a certificate; None: where ca is set


class Analyzer(Setting, frozen=True):
    """``[[analyzer]]``: one device and how it is connected."""

    name: Name
    profile: str
    mapping: str = ""  # read it through ``code_map``
    listen: Address | None = None  # exactly one of listen, connect, serial and folder
    connect: Address | None = None
    folder: Path | None = None
    settle: Duration = 2.0  # a file counts when it has not changed for so long
    allow: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    max_connections: Count = 16
    max_message: Size = 16 << 20
    idle_timeout: Duration | None = None  # a link that is silent so long is closed
    framing: Literal["mllp", "lis01", "raw"] | None = None  # None: the profile's
    mllp_release: Literal[1, 2] = 1  # 2: a commit acknowledgement for every block
    specimen_pattern: Regex = ""  # empty: any id
    identity: Literal["barcode", "sample-number", "patient"] = "barcode"
    qc_ids: tuple[Regex, ...] = ()
    charset: Charsets = ()  # to try in this order; none: the profile's
    timezone: Zone = ""  # empty: the profile's, or the site's
    serial: SerialSettings = SerialSettings()
    tls: AnalyzerTls = AnalyzerTls()
    frames: Frames = Frames()
    timers: Timers = Timers()

    @property
    def place(self) -> str:
        """Where it is connected, as a person wrote it."""
        return str(self.listen or self.connect or self.serial.device or self.folder)

    @property
    def code_map(self) -> str:
        """The name of the code map: ``mapping``, or the profile's name."""
        return self.mapping or self.profile


class OruSettings(Setting, frozen=True, rename={"wait": "partial"}):
    """``[destination.oru]``: how the results are written."""

    version: Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"] = "2.5.1"
    charset: Charset = "UTF-8"
    msh18: str = ""  # what MSH-18 says; empty: the standard's name of the charset
    obr: Literal["panel", "test", "specimen"] = "panel"
    units: Literal["ucum", "print"] = "ucum"
    wait: Wait = None  # ``partial``: how long a report waits for its held results; None: it leaves without them
    resend: Literal["changed", "cumulative"] = "changed"
    flags: Literal["computed", "analyzer"] = "computed"
    attachments: bool = False  # images and files leave with the report that they belong to
    fields: dict[Field, str] = {}
    segments: tuple[Segment, ...] = ()


class Answers(Setting, frozen=True, rename={"ae": "AE", "ar": "AR"}):
    """``[destination.answers]``: what a refusal by the hospital means."""

    ae: Literal["refuse", "retry"] = "refuse"
    ar: Literal["retry", "refuse"] = "retry"
    tries: Count = 3
    pause_after: Count = 20


class Destination(Setting, frozen=True):
    """``[[destination]]``: one hospital system."""

    name: Name
    connect: Address
    protocol: Literal["hl7v2"] = "hl7v2"
    connections: Count = 1
    codes: str = ""  # the column of tests.csv with its codes; empty: the test itself
    timeout: Duration = 30.0  # the hospital must have answered
    max_message: Size = 1 << 20  # of an answer
    mllp_release: Literal[1, 2] = 1
    tls: Tls = Tls()
    oru: OruSettings = OruSettings()
    answers: Answers = Answers()


class RouteSettings(Setting, frozen=True):
    """``[[route]]``: what goes to a destination; an empty filter lets everything pass."""

    to: str
    analyzers: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


class Verification(Setting, frozen=True):
    """``[verification]``: what leaves by itself, and what waits for a person."""

    auto_release: bool = False
    hold: Literal["panel", "result", "report"] = "panel"
    repeat: Literal["hold", "latest-measured", "first"] = "hold"
    stale: Duration = 72 * 3600.0
    duplicate_window: Duration = 600.0


class Log(Setting, frozen=True):
    """``[log]``: what the daemon writes to standard error."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Http(Setting, frozen=True):
    """``[http]``: metrics and health; off where ``listen`` is missing."""

    listen: Address | None = None


class ConsoleTls(Setting, frozen=True):
    """``[console.tls]``: HTTPS, where both are set. Files are PEM."""

    certificate: Path | None = None
    key: Path | None = None


class Console(Setting, frozen=True):
    """``[console]``: the screens; off where ``listen`` is missing."""

    listen: Address | None = None
    tls: ConsoleTls = ConsoleTls()
    idle: Duration = 900.0  # a screen that nobody touches so long asks for the password again

    @property
    def url(self) -> str:
        """What to open in a browser on this machine; empty where the screens are off."""
        return f"http{'s' if self.tls.certificate else ''}://{self.listen}/" if self.listen else ""


class Control(Setting, frozen=True):
    """``[control]``: the Unix socket of the command line; beside the configuration by default."""

    path: Path = Path("labbridge.sock")


class Settings(Setting, frozen=True, rename={"analyzers": "analyzer", "destinations": "destination", "routes": "route"}):
    """The whole configuration."""

    site: Site
    store: StoreSettings = StoreSettings()
    library: Library = Library()
    analyzers: tuple[Analyzer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    routes: tuple[RouteSettings, ...] = ()
    verification: Verification = Verification()
    log: Log = Log()
    http: Http = Http()
    console: Console = Console()
    control: Control = Control()

    @property
    def source(self) -> bytes:
        """The rules in normal form (sorted JSON), for the revision: what shapes a result, no address and no secret."""
        rules = {
            "site": self.site,
            "analyzers": [{name: getattr(one, name) for name in _ANALYZER_RULES} for one in self.analyzers],
            "destinations": [{name: getattr(one, name) for name in _DESTINATION_RULES} for one in self.destinations],
            "routes": self.routes,
            "verification": self.verification,
        }
        return msgspec.json.encode(rules, order="sorted")


_ANALYZER_RULES = ("name", "profile", "code_map", "specimen_pattern", "identity", "qc_ids", "charset", "timezone")
_DESTINATION_RULES = ("name", "protocol", "codes", "oru")

N = TypeVar("N", Analyzer, Destination)


def changes(old: Sequence[N], new: Sequence[N]) -> tuple[list[N], list[N]]:
    """What a reload must stop and what it must start: gone or changed, changed or new; the rest is left alone."""
    return [item for item in old if item not in new], [item for item in new if item not in old]
