"""Trying a captured message out: the real pipeline over a file, without a store and without sending."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from labbridge import capture, config, pipeline, profiles, revision
from labbridge.attachments import Attachments
from labbridge.config import Analyzer, Settings
from labbridge.context import Context
from labbridge.formats import charset, hl7v2, lis02
from labbridge.mapping.tables import NO_DRAFTS, Drafts
from labbridge.model import Decided, Query, Reading, RemoteProtocolError
from labbridge.pipeline import Moment, Outcome, Outgoing, Revision
from labbridge.verification.reasons import render

_OBX = re.compile(r"(?:^|\r)OBX\|\d+\|\w+\|([^|\r]*)\|[^|\r]*\|([^|\r]*)")


class Found(msgspec.Struct):
    """What became of one captured file."""

    outcomes: list[Outcome] = []
    queries: list[Query] = []
    notes: list[str] = []
    error: str = ""

    def as_json(self, file: str) -> dict[str, Any]:
        """The reading as `labbridge try --json` prints it."""
        if self.error and not self.outcomes and not self.queries:
            return {"file": file, "error": self.error}
        return {
            "file": file,
            "reports": [_report_json(outcome) for outcome in self.outcomes],
            "queries": [{"specimen": list(query.specimens) or "", "all": query.all} for query in self.queries],
        }


def _report_json(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    results = []
    for one in outcome.decision.results:
        result = report.results[one.index]
        results.append(
            {
                "code": result.code,
                "value": result.value,
                "unit": result.unit,
                "flags": list(result.flags),
                "status": result.status,
                "test": one.test,
                "reported": one.value,
                "verdict": one.verdict.action,
                "reasons": one.verdict.reasons,
                **({"edited": True} if result.edited else {}),
            }
        )
    return {
        "specimen": report.specimen.id,
        "role": report.role,
        "state": outcome.state,
        "reasons": report.problems,
        "results": results,
    }


def trial_settings(settings: Settings | None, profile: str, mapping: str) -> tuple[Settings, str]:
    """Settings in which one analyzer has this profile and map, and that analyzer's name.

    ``profile`` may be the name of a configured analyzer, which is then tried as it is configured. Without settings the
    packaged example's are used.
    """
    base = settings or config.load(revision.packaged("config.example.toml"))
    for analyzer in base.analyzers:
        if settings and analyzer.name == profile:
            return msgspec.structs.replace(base, analyzers=(analyzer,)), profile
    known = profiles.names(revision.folders(base, "analyzers"))
    if profile not in known:
        names = ", ".join(known)
        raise LookupError(f"no profile and no configured analyzer is called {profile}; profiles: {names}")
    analyzer = Analyzer(name="try", profile=profile, mapping=mapping, listen=config.Address("127.0.0.1", 1))
    rules = base.verification if settings else msgspec.structs.replace(base.verification, stale=1e12, hold="result")
    return msgspec.structs.replace(base, analyzers=(analyzer,), verification=rules), "try"


class Trial:
    """A configuration compiled to try captures of one analyzer."""

    def __init__(self, settings: Settings, name: str, drafts: Drafts = NO_DRAFTS) -> None:
        self.settings = settings
        self.revision: Revision
        self.revision, self.notices = revision.build(settings, drafts=drafts)
        self.rules = self.revision.analyzers[name]

    def segments(self, outcome: Outcome, out: Outgoing) -> tuple[str, list[tuple[str, Decided | None]]]:
        """A payload's codec and its segments, each with the report's result that it tells, if it tells one."""
        writer = self.revision.outlets[out.destination].writer
        codec, told = charset.codec(writer.form.charset), defaultdict[Any, list[Any]](list)
        for one in outcome.decision.results:
            if one.verdict.action == "release":  # written alone, it has the same OBX-3 and OBX-5
                alone = writer.write(outcome.report, [one], control_id="", stamp="").decode(codec)
                told[tuple(_OBX.findall(alone)[:1])].append(one)
        lines = out.payload.decode(codec).removesuffix("\r").split("\r")
        return codec, [(line, (told[tuple(_OBX.findall(line))] or [None]).pop(0)) for line in lines]


def try_file(trial: Trial, data: bytes, at: float) -> Found:
    """Runs a captured file through the pipeline: framing off, then read, map, verify, route."""
    return try_messages(trial, *capture.messages(data, trial.rules.profile.framing), at)


def try_messages(trial: Trial, payloads: Sequence[bytes], notes: list[str], at: float) -> Found:
    """Runs messages through the pipeline, one after the other; ``notes`` is what was odd about their frames."""
    rules, compiled = trial.rules, trial.revision
    found = Found(notes=notes)
    moment = Moment.of(at, compiled.zone, bytes)
    context = Context()
    for payload in payloads:
        try:
            reading = pipeline.read(payload, rules)
        except RemoteProtocolError as error:
            found.error = render(error.reason)
            continue
        found.queries += reading.queries
        found.notes += [render(each) for each in (*reading.problems, *reading.notes)]
        attached = Attachments(partial(bytes, payload), rules.profile, rules.zone, rules.codes)
        for report in reading.reports:
            key = pipeline.key_of(report, rules, moment)
            found.outcomes.append(pipeline.decide(report, key, b"", b"", context, rules, compiled, moment, attached))
        found.notes += ["attachments left out: the destination's character set cannot write them"] if attached.left_out else []
    if not found.outcomes and not found.queries and not found.error:
        found.error = "; ".join(found.notes) or "no message in it"
    return found


def cases(name: str, folders: Sequence[Path]) -> list[tuple[str, list[str]]]:
    """Every sample kept beside a profile, and how its reading differs from the file beside it."""
    profile = profiles.load(name, folders)
    folder = next(f for f in folders if (f / name / "profile.toml").is_file()) / name / "samples"
    ran = []
    for expectation in sorted(folder.glob("*.json")):
        sample = next((p for p in folder.glob(f"{expectation.stem}.*") if p.suffix != ".json"), None)
        if sample is None:
            ran.append((expectation.name, ["no sample beside it"]))
        else:
            ran.append((sample.name, _differences(profile, sample.read_bytes(), json.loads(expectation.read_text("utf-8")))))
    return ran


def _differences(profile: profiles.Profile, data: bytes, expected: dict[str, Any]) -> list[str]:
    reader = hl7v2.read if profile.protocol == "hl7v2" else lis02.read
    readings = [reader(payload, profile, UTC) for payload in capture.messages(data, profile.framing)[0]]
    got = {
        "reports": [_plain(reading, index) for reading in readings for index in range(len(reading.reports))],
        "queries": [{"specimen": list(q.specimens), "all": q.all} for reading in readings for q in reading.queries],
    }
    return [
        f"{part}: expected {json.dumps(expected.get(part, []), ensure_ascii=False)[:200]}, "
        f"read {json.dumps(got[part], ensure_ascii=False)[:200]}"
        for part in ("reports", "queries")
        if got[part] != expected.get(part, [])
    ]


def _plain(reading: Reading, index: int) -> dict[str, Any]:
    report = reading.reports[index]
    results = [
        {"code": r.code, "value": r.value, "unit": r.unit, "flags": list(r.flags), "status": r.status} for r in report.results
    ]
    return {"specimen": report.specimen.id, "role": report.role, "results": results}
