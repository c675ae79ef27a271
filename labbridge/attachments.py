"""The attachments of a report, for the destinations that ask for them.

A report's document only describes an image or names a file; the journal has the bytes. So the message that a report came
in is read once more, by the same profile, when something of the report leaves; nothing is stored a second time. A report
that is not found in that reading just as it is known (the profile has changed meanwhile, say) leaves without. Pure: the
message comes in as an argument.
"""

from collections.abc import Callable, Sequence
from datetime import tzinfo

from labbridge.formats import er7, hl7v2, lis02
from labbridge.formats.oru import Attachment, UnwritableError
from labbridge.mapping import CodeMap
from labbridge.model import RemoteProtocolError, Report, Result
from labbridge.profiles import Profile

_TAKEN_BACK = frozenset("DWX")  # HL7 table 0085: deleted, wrong, cannot be obtained


class Attachments:
    """The attachments in one message, read when they are first asked for.

    ``message`` gives its bytes, empty when they are gone. ``left_out`` tells whether a report has left without its own.
    """

    def __init__(self, message: Callable[[], bytes], profile: Profile, zone: tzinfo, codes: CodeMap) -> None:
        self.left_out = False
        self._message, self._profile, self._zone, self._codes = message, profile, zone, codes
        self._found: dict[object, Report | None] | None = None

    def enclose(self, report: Report, write: Callable[..., bytes]) -> bytes:
        """What ``write`` makes of the report with its attachments; without those that the character set cannot say."""
        found = self._of(report)
        if found:
            try:
                return write(attachments=found)
            except UnwritableError:
                alone = write()
                self.left_out = True
                return alone
        return write()

    def _of(self, report: Report) -> Sequence[Attachment]:
        mapped = [(n, self._codes.map(result, report.specimen.type)) for n, result in enumerate(report.results) if _may_be(result)]
        tests = {n: one.test.code if one.test else "" for n, one in mapped if one.action == "attach"}
        if not tests:
            return ()
        if self._found is None:
            self._found = self._read()
        specimen, *said = _likeness(report)
        whole = self._found.get((specimen, *said))
        if whole is None and report.specimen.source == "manual" and (specimen, *said) not in self._found:
            whole = self._found.get((None, *said))  # a person has corrected its specimen id
        if whole is None:
            self.left_out = True
            return ()
        found = [Attachment(n, test, *_content(whole.results[n])) for n, test in tests.items()]
        return [one for one in found if one.content.strip()]

    def _read(self) -> dict[object, Report | None]:
        """The reports in the message by what is known of them; None where several are alike and differ in attachments."""
        payload = self._message()
        if not payload:
            return {}
        try:
            if self._profile.protocol == "hl7v2":
                reading = hl7v2.read(payload, self._profile, self._zone, whole=True)
            else:
                reading = lis02.read(payload, self._profile, self._zone)
        except RemoteProtocolError:
            return {}
        found: dict[object, Report | None] = {}
        for report in reading.reports:
            specimen, *said = _likeness(report)
            for key in ((specimen, *said), (None, *said)):
                known = found.setdefault(key, report)
                if known is not report and (known is None or [*map(_content, known.results)] != [*map(_content, report.results)]):
                    found[key] = None
        return found


def _may_be(result: Result) -> bool:
    return result.kind in ("attachment", "text") and result.status not in _TAKEN_BACK


def _likeness(report: Report) -> tuple[object, ...]:
    """What is the same of a report, however its attachments are read."""
    said = [(one.code, one.kind, one.measured, "" if one.kind == "attachment" else one.value) for one in report.results]
    return report.specimen.id, report.role, tuple(said)


def _content(result: Result) -> tuple[str, str]:
    """OBX-2 and OBX-5: what was sent in HL7, or a pointer to the file that is named."""
    attached = result.kind == "attachment" and result.number
    return (result.number, result.value) if attached else ("RP", er7.escape(result.value))
