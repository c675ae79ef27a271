"""Builds the revision in force from the configuration: profiles, code maps, catalogue, rules, compiled once.

Everything that is wrong is collected, so that `labbridge check` tells all of it at once.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from labbridge import config, mapping, profiles
from labbridge.config import Analyzer, Destination, Settings
from labbridge.formats import charset, oru
from labbridge.formats.templates import FormError
from labbridge.mapping.tables import NO_DRAFTS
from labbridge.pipeline import AnalyzerRules, Outlet, Revision
from labbridge.routing import Route
from labbridge.verification import Rules, Verifier


class RevisionError(Exception):
    """The library does not fit the configuration; ``problems`` are lines for a person: what, where, what to do.

    ``mistakes`` are the same, with their places where they stand in tables of the mappings.
    """

    def __init__(self, problems: Sequence[str], mistakes: Sequence[mapping.Mistake] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.mistakes = tuple(dict.fromkeys(mistakes))


def packaged(what: str) -> Path:
    """The folder or file of this name that comes with labbridge (``analyzers``, ``mappings``, ``config.example.toml``)."""
    installed = Path(str(resources.files("labbridge"))) / "library" / what
    return installed if installed.exists() else Path(__file__).parent.parent / what


def folders(settings: Settings, what: str) -> list[Path]:
    """Where profiles (``analyzers``) or maps (``mappings``) are looked up: the laboratory's folder, then ours."""
    own: Path | None = getattr(settings.library, what)
    return [folder for folder in (own, packaged(what)) if folder is not None]


def build(settings: Settings, path: Path | None = None, drafts: mapping.Drafts = NO_DRAFTS) -> tuple[Revision, list[str]]:
    """The compiled revision, and notices that are no mistakes (a file in GB18030, say).

    ``drafts`` are tables of the mappings that are not saved yet. Raises RevisionError with every mistake found, each with
    its place in ``path``, the file of the settings.
    """
    problems: list[str] = []
    mistakes: list[mapping.Mistake] = []

    def wrong(*at_and_text: str | int) -> None:
        *at, text = at_and_text
        told = [(config.place(path, *at) if path else "") + line for line in str(text).splitlines()]
        problems.extend(told)
        mistakes.extend(mapping.Mistake("", 0, "", line) for line in told if at[-1] != "mapping")  # which have their own

    def codes_of(name: str) -> mapping.CodeMap:
        try:
            return mapping.load_code_map(name, folders(settings, "mappings"), catalogue, drafts)
        except mapping.MappingError as error:
            mistakes.extend(error.errors)
            raise

    try:
        catalogue = mapping.load_catalogue(folders(settings, "mappings"), drafts)
    except mapping.MappingError as error:
        raise RevisionError(str(error).splitlines(), error.errors) from None
    notices = list(catalogue.notices)
    sources = {"settings": settings.source, "catalogue": catalogue.source}
    analyzers = {}
    for number, analyzer in enumerate(settings.analyzers):
        told = partial(wrong, "analyzer", number)
        rules = _analyzer(analyzer, settings, catalogue, codes_of, told, notices)
        if rules is not None:
            analyzers[analyzer.name] = rules
            sources[f"profile {rules.profile.name}"] = rules.profile.source
            sources[f"map {analyzer.code_map}"] = rules.codes.source
    outlets, zone = {}, ZoneInfo(settings.site.timezone)
    for number, destination in enumerate(settings.destinations):
        try:
            outlets[destination.name] = _outlet(destination, catalogue, zone)
        except (ValueError, LookupError, FormError) as error:
            at = ("oru", error.key.partition(".")[0]) if isinstance(error, FormError) else ("codes",)
            wrong("destination", number, *at, f'destination "{destination.name}": {error}')
    for number, route in enumerate(settings.routes):
        unknown = [test for test in route.tests if test not in catalogue.tests]
        if unknown:
            text = f'route to "{route.to}": no such test: {", ".join(unknown)}; write codes of tests.csv'
            wrong("route", number, "tests", text)
    if problems:
        raise RevisionError(problems, mistakes)
    body = msgspec.json.encode({name: source.decode() for name, source in sorted(sources.items())})
    routes = tuple(Route(r.to, frozenset(r.analyzers), frozenset(r.tests)) for r in settings.routes)
    digest, language = hashlib.sha256(body).digest(), settings.site.language
    return Revision(digest, body, settings.site.name, zone, catalogue, analyzers, outlets, routes, language), notices


def _analyzer(
    analyzer: Analyzer,
    settings: Settings,
    catalogue: mapping.Catalogue,
    codes_of: Callable[[str], mapping.CodeMap],
    wrong: Callable[[str, str], None],
    notices: list[str],
) -> AnalyzerRules | None:
    """One analyzer's rules; None, with the problems told, when its profile or map does not load."""
    profile, codes = None, None
    try:
        profile = profiles.load(analyzer.profile, folders(settings, "analyzers"))
    except profiles.ProfileError as error:
        wrong("profile", f'analyzer "{analyzer.name}": {error}')
    try:
        codes = codes_of(analyzer.code_map)
    except mapping.MappingError as error:
        wrong("mapping", "\n".join(f'analyzer "{analyzer.name}": {line}' for line in str(error).splitlines()))
    if profile is None or codes is None:
        return None
    if analyzer.framing in ("lis01", "raw") and profile.protocol == "hl7v2":
        wrong("framing", f'analyzer "{analyzer.name}": HL7 v2 goes over MLLP alone; remove it')
    notices += [notice for notice in codes.notices if notice not in notices]
    if analyzer.charset:
        profile = msgspec.structs.replace(profile, charsets=analyzer.charset)
    for name in profile.charsets:
        try:
            charset.codec(name)
        except LookupError:
            wrong("charset", f'analyzer "{analyzer.name}": character set "{name}" is not known; see docs/configuration.md')
    zone = ZoneInfo(analyzer.timezone or profile.timezone or settings.site.timezone)
    rules = msgspec.convert(settings.verification, Rules, from_attributes=True)
    alarms = profile.alarms

    def held_alarm(code: str) -> bool:
        """An alarm holds unless the profile's table says that it is for information only."""
        known = alarms.get(code)
        return known is None or known.hold

    return AnalyzerRules(
        analyzer.name,
        profile,
        zone,
        codes,
        Verifier(rules, catalogue, held_alarm, zone, {code: alarm.words for code, alarm in alarms.items()}),
        analyzer.identity,
        re.compile(analyzer.specimen_pattern) if analyzer.specimen_pattern else None,
        tuple(re.compile(pattern) for pattern in analyzer.qc_ids),
    )


def _outlet(destination: Destination, catalogue: mapping.Catalogue, zone: ZoneInfo) -> Outlet:
    """How a destination's payloads are written. Raises ValueError for templates that name unknown things."""
    column = destination.codes
    columns = sorted({name for test in catalogue.tests.values() for name in test.codes})
    if column and column not in columns:
        raise ValueError(f'codes = "{column}" is no column of tests.csv (its hospital columns: {", ".join(columns) or "none"})')
    view = {}
    for test in catalogue.tests.values():
        panel = next(iter(catalogue.panels_of(test.code)), "")
        view[test.code] = oru.Coded(
            code=test.codes.get(column, "") or test.code if column else test.code,
            name=test.name,
            loinc=test.loinc,
            panel=panel,
            panel_name=catalogue.panels[panel].name if panel else "",
        )
    settings = destination.oru
    form = msgspec.convert(settings, oru.OruForm, from_attributes=True)
    return Outlet(destination.name, oru.compile(form, view, zone=zone), settings.resend, settings.wait, settings.attachments)
