"""The packaged catalogue, limits, panels and code maps: what a laboratory relies on before it has changed anything."""

import csv
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from labbridge import mapping
from labbridge.model import Result

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "mappings"
TABLES = {"tests", "limits", "panels"}
MAPS = sorted({path.name.split(".")[0] for path in FOLDER.glob("*.csv")} - TABLES)


@pytest.fixture(scope="module")
def catalogue() -> mapping.Catalogue:
    return mapping.load_catalogue([FOLDER])


@pytest.fixture(scope="session")
def ucum_parser() -> Any:
    import ucumvert

    return ucumvert.get_ucum_parser()


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_has_the_tests_of_a_hospitals_laboratory(catalogue: mapping.Catalogue) -> None:
    assert len(catalogue.tests) >= 120
    assert catalogue.notices == ()
    for test in catalogue.tests.values():
        assert test.name, test.code
        assert re.search(r"[\u4e00-\u9fff]|^pH$", test.name_zh), test.code
        assert bool(test.unit in ("", "{INR}", "{ratio}", "[pH]")) or test.print_unit, test.code
        assert test.codes["his"]
    hospital = [test.codes["his"] for test in catalogue.tests.values()]
    assert len(set(hospital)) == len(hospital)


def test_every_loinc_has_its_check_digit(catalogue: mapping.Catalogue) -> None:
    # conformance: H12
    coded = [test.loinc for test in catalogue.tests.values() if test.loinc]
    assert len(coded) >= 190
    assert len(set(coded)) == len(coded)
    for loinc in coded:
        body, digit = loinc.split("-")
        odd = str(int(body[::-1][::2][::-1]) * 2) + body[::-1][1::2][::-1]  # the standard's own way, by strings
        assert int(digit) == -sum(map(int, odd)) % 10, loinc


def test_every_unit_is_ucum(catalogue: mapping.Catalogue, ucum_parser: Any) -> None:
    # conformance: H11
    for unit in {test.unit for test in catalogue.tests.values()} - {""}:
        ucum_parser.parse(unit)


def test_a_share_never_has_the_loinc_of_a_count(catalogue: mapping.Catalogue) -> None:
    shares = {code[:-1]: test for code, test in catalogue.tests.items() if code.endswith("%")}
    for name, share in shares.items():
        count = catalogue.tests.get(f"{name}#")
        if count is None:
            assert name == "PT"
            continue
        assert (share.unit, count.unit) == ("%", "10*9/L")
        assert share.loinc != count.loinc or not share.loinc


@pytest.mark.parametrize(
    ("loinc", "unit", "test"),
    [
        ("6690-2", "10*3/uL", "WBC"), ("789-8", "10*6/uL", "RBC"), ("718-7", "g/dL", "HGB"), ("4544-3", "%", "HCT"),
        ("787-2", "fL", "MCV"), ("785-6", "pg", "MCH"), ("786-4", "g/dL", "MCHC"), ("21000-5", "fL", "RDW-SD"),
        ("788-0", "%", "RDW-CV"), ("777-3", "10*3/uL", "PLT"), ("32207-3", "fL", "PDW"), ("32623-1", "fL", "MPV"),
        ("1751-7", "g/L", "ALB"), ("6768-6", "U/L", "ALP"), ("1920-8", "U/L", "AST"), ("1742-6", "U/L", "ALT"),
        ("14631-6", "umol/L", "TBIL"), ("14749-6", "mmol/L", "GLU"), ("14682-9", "umol/L", "CREA"),
        ("2951-2", "mmol/L", "NA"), ("2823-3", "mmol/L", "K"), ("2075-0", "mmol/L", "CL"), ("3016-3", "uIU/mL", "TSH"),
    ],
)  # fmt: skip
def test_the_codes_that_analyzers_and_hospitals_agree_on(catalogue: mapping.Catalogue, loinc: str, unit: str, test: str) -> None:
    # conformance: H09, H10
    assert catalogue.tests[test].loinc == loinc
    mapped = mapping.load_code_map("generic-hl7", [FOLDER], catalogue).map(Result(loinc, "5", "number", "5", unit=unit))
    assert (mapped.action, mapped.test and mapped.test.code) == ("report", test)


@pytest.mark.parametrize(
    ("loinc", "value", "test", "reported"),
    [
        ("1975-2", "1.0", "TBIL", "17.1"), ("2345-7", "100", "GLU", "5.55"), ("2160-0", "1.0", "CREA", "88"),
        ("2093-3", "200", "TC", "5.17"), ("2571-8", "150", "TG", "1.69"), ("3094-0", "14", "UREA", "5.0"),
    ],
)  # fmt: skip
def test_mass_concentrations_have_codes_and_factors_of_their_own(
    catalogue: mapping.Catalogue, loinc: str, value: str, test: str, reported: str
) -> None:
    # conformance: H08, H10
    codes = mapping.load_code_map("generic-hl7", [FOLDER], catalogue)
    mapped = codes.map(Result(loinc, value, "number", value, unit="mg/dL"))
    assert (mapped.test and mapped.test.code, mapped.value) == (test, reported)
    molar = catalogue.tests[test].loinc
    assert codes.map(Result(molar, value, "number", value, unit="mg/dL")).action == "hold"


def test_blood_groups_are_always_released_by_a_person(catalogue: mapping.Catalogue) -> None:
    assert {catalogue.tests[code].release for code in ("ABO", "RHD", "ABSCR")} == {"manual"}


def test_panels_are_named_in_both_languages(catalogue: mapping.Catalogue) -> None:
    for panel in catalogue.panels.values():
        assert panel.name
        assert re.search(r"[\u4e00-\u9fff]", panel.name_zh)
        assert set(panel.tests) <= set(catalogue.tests)
    needed = "CBC CBC-DIFF RET LIVER RENAL LIPID ELEC COAG URINE THYROID CARDIAC BGA RESP-PCR"
    assert set(needed.split()) <= set(catalogue.panels)
    assert "CBC" in catalogue.panels_of("WBC")


def test_every_limit_names_its_source_and_waits_for_approval() -> None:
    for row in rows("limits"):
        assert row["source"], row
        assert not row["approved_by"], row


def inside(inner: mapping.Interval | None, outer: mapping.Interval | None) -> bool:
    if inner is None or outer is None or inner.words or outer.words:
        return True
    return (inner.low.is_infinite() or outer.low <= inner.low) and (inner.high.is_infinite() or inner.high <= outer.high)


def test_reference_lies_inside_critical_and_critical_inside_absurd(catalogue: mapping.Catalogue) -> None:
    ages = (0, 5, 28, 100, 200, 400, 1000, 3000, 5000, 7000, 10000, 20000, 30000)
    judged = 0
    for test, sex, age in itertools.product(catalogue.tests, "MF", ages):
        limits = catalogue.limits(test, sex, age)
        if limits is not None:
            judged += 1
            assert inside(limits.reference, limits.critical), (test, sex, age)
            assert inside(limits.critical, limits.absurd), (test, sex, age)
            assert inside(limits.reference, limits.absurd), (test, sex, age)
    assert judged > 2000


def test_numbers_have_limits_written_with_no_more_decimals_than_are_reported(catalogue: mapping.Catalogue) -> None:
    for row in rows("limits"):
        decimals = catalogue.tests[row["test"]].decimals
        for limit in (row["low"], row["high"]):
            assert len(limit.partition(".")[2]) <= decimals, row


def test_a_background_count_is_no_patient(catalogue: mapping.Catalogue) -> None:
    for test in ("WBC", "RBC", "HGB", "HCT"):
        limits = catalogue.limits(test, "", None)
        assert limits is not None
        assert limits.judge("0").absurd, test


def test_a_positive_hiv_test_is_critical(catalogue: mapping.Catalogue) -> None:
    limits = catalogue.limits("HIV", "", None)
    assert limits is not None
    assert limits.judge("Positive") == ("A", False, True)


def test_every_profile_has_a_map(catalogue: mapping.Catalogue) -> None:
    profiles = {path.parent.name for path in (ROOT / "analyzers").glob("*/profile.toml")}
    assert profiles <= set(MAPS)


@pytest.mark.parametrize("name", MAPS)
def test_every_map_loads_and_reports_known_tests(catalogue: mapping.Catalogue, name: str) -> None:
    codes = mapping.load_code_map(name, [FOLDER], catalogue)
    assert codes.notices == ()
    for row in rows(name):
        unit = "" if row["analyzer_unit"] == "*" else row["analyzer_unit"]
        mapped = codes.map(Result(row["code"], "555", "number", "555", unit=unit), row["specimen"])
        expected = row["action"] or "report"
        if expected != "report":
            assert (mapped.action, mapped.test and mapped.test.code) == (expected, row["test"] or None)
            continue
        assert mapped.test is not None, row
        assert mapped.test.code == row["test"]
        assert mapped.action == ("hold" if mapped.test.kind == "coded" else "report"), row


def report(name: str, catalogue: mapping.Catalogue, code: str, value: str, unit: str = "") -> tuple[str, str, str]:
    kind = "number" if re.fullmatch(r"-?[\d.]+", value) else "text"
    mapped = mapping.load_code_map(name, [FOLDER], catalogue).map(Result(code, value, kind, value, unit=unit))  # type: ignore[arg-type]
    return mapped.action, mapped.test.code if mapped.test else "", mapped.value


@pytest.mark.parametrize(
    ("name", "code", "value", "unit", "expected"),
    [
        ("sysmex-xn", "HGB", "8.0", "g/dL", ("report", "HGB", "80")),
        ("sysmex-xn", "Blasts/Abn_Lympho?", "40", "", ("ignore", "", "")),
        ("sysmex-xn", "RET#", "0.0523", "10*6/uL", ("report", "RET#", "52.3")),
        ("sysmex-xp", "MXD#", "0.4", "10*3/uL", ("report", "MID#", "0.40")),
        ("mindray-bc", "4544-3", "0.405", "", ("report", "HCT", "40.5")),
        ("mindray-bc", "4544-3", "43.3", "%", ("report", "HCT", "43.3")),
        ("mindray-bc", "10002", "1.40", "mL/L", ("report", "PCT", "0.140")),
        ("mindray-bc", "20482-6", "75.7", "%", ("report", "GRAN%", "75.7")),
        ("mindray-bc", "20482-6", "5.7", "10*9/L", ("report", "GRAN#", "5.70")),
        ("mindray-bc", "08001", "O", "", ("ignore", "", "")),
        ("mindray-bs", "BUN", "15.351990", "mg/dL", ("report", "UREA", "5.5")),
        ("mindray-bs", "ALT", "0.1", "mmol/L", ("hold", "", "")),
        ("roche-cobas-c311", "685", "22.4", "U/l", ("report", "ALT", "22")),
        ("roche-cobas-c311", "990", "4.1", "mmol/l", ("report", "K", "4.10")),
        ("roche-cobas-c111", "767", "0.83", "g/l", ("report", "GLU", "4.61")),
        ("roche-cobas-e411", "10", "1.95", "uIU/ml", ("report", "TSH", "1.950")),
        ("roche-cobas-e411", "8", "1.95", "uIU/ml", ("unmapped", "", "")),
        ("horiba-yumizen", "WBC", "7.2", "1E03/mm3", ("report", "WBC", "7.20")),
        ("horiba-yumizen", "MCV", "90.6", "um3", ("report", "MCV", "90.6")),
        ("siemens-clinitek", "GLU", "Negative", "", ("report", "U-GLU", "Negative")),
        ("siemens-clinitek", "PRO", "0.3", "g/L", ("report", "U-PRO", "0.3 g/L")),
        ("siemens-clinitek", "URO", "3.2", "umol/L", ("report", "U-URO", "Normal")),
        ("cepheid-genexpert", "RIF/1/MTB", "MTB DETECTED HIGH", "", ("report", "MTB", "Detected, high")),
        ("cepheid-genexpert", "COVFLUPLUS/FLUB/Flu B", "POSITIVE", "", ("report", "FLUB", "Detected")),
        ("cepheid-genexpert", "COVFLUPLUS/FLUB/Flu B", "POS", "", ("ignore", "FLUB", "")),
        ("cepheid-genexpert", "COVFLUPLUS/FLUB/Flu B", "INVALID", "", ("hold", "FLUB", "")),
        ("cepheid-genexpert", "HIVVL", "1234.56", "copies/mL", ("report", "HIVVL", "1235")),
        ("cepheid-genexpert", "HIVVL", "DETECTED", "copies/mL", ("unreadable", "HIVVL", "")),
        ("cepheid-genexpert", "HIVVL/LOG", "3.09", "copies/mL", ("report", "HIVLOG", "3.09")),
        ("radiometer-abl80", "Glu/M", "100", "mg/dL", ("report", "GLU-BLD", "5.6")),
        ("bio-rad-d-10", "S/AREA", "38.1", "%", ("hold", "HBA1C", "")),
        ("sysmex-uwam", "RBC/RAW", "12.4", "/µL", ("report", "U-RBC", "12.4")),
        ("77-elektronika-urised-mini", "RBC", "1477.40", "p/HPF", ("report", "U-RBC/HPF", "1477.4")),
        ("77-elektronika-urised-mini", "RBC", "6500.56", "p/ul", ("report", "U-RBC", "6500.6")),
        ("euroimmun-analyzer", "SARSCOV2IGG", "2.145", "Ratio", ("report", "SARS2-IGG", "2.15")),
        ("generic-hl7", "883-9", "AB", "", ("report", "ABO", "AB")),
        ("generic-hl7", "94500-6", "阴性", "", ("report", "SARS2", "Negative")),
        ("generic-astm", "PCO2", "5.33", "kPa", ("report", "PCO2", "40.0")),
    ],
)
def test_what_models_really_send(
    catalogue: mapping.Catalogue, name: str, code: str, value: str, unit: str, expected: tuple[str, str, str]
) -> None:
    assert report(name, catalogue, code, value, unit) == expected
