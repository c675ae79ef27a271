"""What a profile need not say: how HL7 v2 and LIS02 place things as their standards have it.

Data only, in the language of a profile (see ``profiles``): a profile's own words are laid over those of its protocol,
and these over those of ``any``, section by section and key by key.
"""

from collections.abc import Mapping
from typing import Any

_ANY: Mapping[str, Mapping[str, Any]] = {
    "profile": {"discipline": "", "sender": []},
    "evidence": {},
    "link": {
        "charset": ["UTF-8"],
        "timezone": "",
        "local_escapes": "",
        "ends_message": "L",
        "frame_size": 240,
        "checksum": True,
        "numbered": True,
        "timers": {},
    },
    "times": {"formats": [], "null": ["18991230", "00000000000000", "00000000"]},
    "value": {"absent": [], "attachment": [], "decimal": ".", "thousands": ""},
    # R-7 of LIS02 and HL7 table 0078 have the same letters: L H LL HH < > N A U D B W.
    "flags": {},
    "alarms": {"none": [], "codes": {}},
    "query": {"types": []},
}
_HL7V2: Mapping[str, Mapping[str, Any]] = {
    "link": {"framing": "mllp"},
    "specimen": {
        "id": "OBR-3.1",
        "agree": "SPM-2.1.1",
        "type": ["SPM-4.1", "OBR-15.1.1"],
        "rack": "SAC-10.1",
        "position": "SAC-11.1",
        "collected": "SPM-17.1",
    },
    "patient": {
        "id": ["PID-3.1", "PID-2.1"],
        "family": "PID-5.1.1",
        "given": "PID-5.2",
        "birth": "PID-7",
        "sex": "PID-8",
        "location": "PV1-3.1",
    },
    "report": {"order": ["OBR-2.1", "ORC-2.1"], "sender": "MSH-3.1", "sent": "MSH-7.1", "comments": "NTE-3"},
    "result": {
        "record": "OBX",
        "code": "OBX-3.1",
        "value": "OBX-5",
        "unit": "OBX-6.1",
        "flags": "OBX-8.1",
        "status": "OBX-11",
        "name": "OBX-3.2",
        "reference": "OBX-7",
        "measured": ["OBX-19.1", "OBX-14.1", "OBR-22.1"],
        "run": "OBX-4",
        "operator": "OBX-16.1",
        "comments": "NTE-3",
    },
    "roles": {
        "qc": [{"MSH-11.1": "Q"}, {"SPM-11.1": "[BEFGLOQR]"}],
        "calibration": {"SPM-11.1": "[CV]"},
        "test": {"MSH-11.1": "[TD]"},
        "unknown": {"MSH-11.1": "[^P].*"},
    },
    "status": {code: code for code in "ABCDFINOPRSUVWX"},
    "query": {"types": ["QRY^Q02", "QBP^Q11", "QBP^Z03"], "specimens": ["QRD-8.1", "QPD-3.1"], "echo": ["QRD-4", "QPD-2"]},
}
_LIS02: Mapping[str, Mapping[str, Any]] = {
    "link": {"framing": "lis01"},
    "specimen": {"id": ["O-3.1", "O-4.1"], "type": "O-16.1", "collected": "O-8"},
    "patient": {
        "id": ["P-3.1", "P-4.1", "P-5.1"],
        "family": "P-6.1",
        "given": "P-6.2",
        "birth": "P-8",
        "sex": "P-9",
        "location": "P-26.1",
    },
    "report": {"sender": "H-5.1", "sent": "H-14", "comments": "C-4"},
    "result": {
        "record": "R",
        "code": ["R-3.4", "R-3.5", "R-3.1"],
        "value": "R-4",
        "unit": "R-5.1",
        "flags": "R-7.1",
        "status": "R-9",
        "reference": "R-6.1",
        "measured": ["R-13", "R-12"],
        "operator": "R-11.1",
        "comments": "C-4",
    },
    "roles": {"qc": [{"O-12": "Q"}, {"H-12": "Q"}], "test": {"H-12": "[TD]"}},
    # LIS02 has letters of its own: R was sent before, V was verified, Q answers a query, S is partial, and W is
    # questionable, which in HL7 would be a retraction: it becomes "not verified". M is no status but says that the
    # result is a MIC, so that nothing is known of it.
    "status": {code: code for code in "CFINPX"} | {"R": "F", "V": "F", "Q": "F", "S": "P", "W": "R"},
    "query": {
        "specimens": ["Q-3.2", {"from": "Q-3", "pattern": "[^^]+"}],
        "tests": "Q-5",
        "echo": "Q-3",
        "cancel": {"from": "Q-13", "pattern": "A"},
    },
}
DEFAULTS = {"any": _ANY, "hl7v2": _HL7V2, "lis02": _LIS02}
# Of each protocol: the header, the record that comments on another, the record that is a result, and those that may be in
# force above it, none where that is any.
RECORDS: Mapping[str, tuple[str, str, str, str]] = {"hl7v2": ("MSH", "NTE", "OBX", ""), "lis02": ("H", "C", "R", "HPO")}
