"""Lab IT maps a code: seen on Unmapped, mapped by a click, released; the tables edited, checked, tried out and saved."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.helpers import SLOW_MS, ConsoleLab, serious_faults
from tests.e2e.helpers import RBC, fresh, observations
from tests.support import wait_until

TABLE = "mindray-bc.csv"


@pytest.fixture(scope="module")
def lab(
    make_lab: Callable[..., AbstractContextManager[ConsoleLab]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsoleLab]:
    folder = tmp_path_factory.mktemp("mappings")
    with make_lab(extra=f'[library]\nmappings = "{folder}"\n') as made:
        made.mappings = folder  # type: ignore[attr-defined]
        yield made


def own(lab: ConsoleLab, name: str = TABLE) -> Path:
    return lab.mappings / name  # type: ignore[attr-defined, no-any-return]


def hold(lab: ConsoleLab, code: str, name: str = "NEWWBC") -> str:
    """A specimen of which one result has a code that nobody knows."""
    specimen = fresh()
    lab.tell(specimen, (f"{code}^{name}^99MRC", "5.52", "10*9/L"), RBC)
    wait_until(lambda: lab.held(specimen), 5, "held")
    return specimen


def code_card(page: Page, code: str) -> Locator:
    return page.get_by_role("article").filter(has=page.get_by_role("heading", name=code, exact=True))


def editor(lab: ConsoleLab, page: Page, account: str = "it", table: str = TABLE) -> None:
    lab.login(page, account)
    page.goto(f"{lab.url_of_console}/mappings?table={table}")
    expect(page.locator(".ag-cell").first).to_be_visible()


def cell(page: Page, row: str, column: str) -> Locator:
    """A cell of the grid, by a text of its row and the name of its column."""
    at = page.locator(".ag-header-cell").filter(has_text=re.compile(rf"^\s*{column}\s*$")).get_attribute("col-id")
    return page.locator(".ag-row").filter(has_text=row).locator(f'[col-id="{at}"]')


def type_into(page: Page, where: Locator, text: str) -> None:
    where.dblclick()
    page.locator(".ag-cell-inline-editing input").fill(text)
    page.keyboard.press("Enter")


def test_an_unmapped_code_is_mapped_by_a_click_and_its_results_are_released(lab: ConsoleLab, page: Page) -> None:
    specimen = hold(lab, "99001")
    lab.login(page, "it", path="/unmapped")
    card = code_card(page, "99001")
    expect(card).to_contain_text("5.52")
    expect(card).to_contain_text("NEWWBC")
    card.get_by_role("button", name="Map to WBC", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(re.compile(r"\d+: 99001,10\*9/L,,WBC,,,,,"))
    dialog.get_by_label("Reason").fill("new assay")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text(f"his receives for {specimen}")
    expect(dialog).to_contain_text("|H001^")
    assert own(lab).read_text("utf-8").endswith("99001,10*9/L,,WBC,,,,,\n")
    assert lab.held(specimen)
    dialog.get_by_label("Reason").fill("mapped")
    dialog.get_by_role("button", name="Release what is mapped").click()
    _, (_, second) = lab.ward.wait(specimen, 2)
    assert observations(second)["H001"][5] == "5.52"
    expect(card).to_have_count(0)


def test_a_mapping_with_a_mistake_cannot_be_saved_until_it_is_mended(lab: ConsoleLab, page: Page) -> None:
    hold(lab, "99002")
    lab.login(page, "it", path="/unmapped")
    code_card(page, "99002").get_by_role("button", name="Map …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("is not in tests.csv")
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    test = dialog.get_by_label("Test")
    test.fill("NEUT%")
    page.get_by_role("option", name=re.compile("^NEUT% ")).click()
    expect(dialog).to_contain_text("never one test")
    test.fill("NEUT#")
    page.get_by_role("option", name=re.compile("^NEUT# ")).click()
    expect(dialog).not_to_contain_text("never one test")
    expect(dialog.get_by_role("button", name="Save")).to_be_enabled()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    expect(code_card(page, "99002")).to_be_visible()
    assert not (faults := serious_faults(page)), "\n".join(faults)


def test_a_viewer_sees_the_codes_and_maps_nothing(lab: ConsoleLab, page: Page) -> None:
    hold(lab, "99003", "<img src=x onerror=alert(1)>" + "\x07" + "x" * 100_000)
    lab.login(page, "viewer", path="/unmapped")
    card = code_card(page, "99003")
    expect(card).to_contain_text(re.compile(r"<img src=x onerror=alert\(1\)>\\x07x{50,100}(?!x)"))
    expect(card.get_by_role("button")).to_have_count(0)
    assert not (faults := serious_faults(page)), "\n".join(faults)
    editor(lab, page, "viewer")
    expect(page.get_by_role("button", name="Save …")).to_have_count(0)
    cell(page, "6690-2", "test").first.dblclick()
    expect(page.locator(".ag-cell-inline-editing")).to_have_count(0)


def test_an_open_page_follows_what_comes_and_what_is_mapped_elsewhere(lab: ConsoleLab, page: Page) -> None:
    hold(lab, "99010")
    lab.login(page, "super", path="/unmapped")
    card = code_card(page, "99010")
    expect(card).to_contain_text("reports that wait: 1")
    hold(lab, "99010")
    expect(card).to_contain_text("reports that wait: 2", timeout=SLOW_MS)
    hold(lab, "99011")
    expect(code_card(page, "99011")).to_be_visible(timeout=SLOW_MS)
    lab.well("map", "set", "bc-1", "99010", "WBC", "--unit", "10*9/L", "--reason", "elsewhere")
    expect(card).to_contain_text("mapped by now", timeout=SLOW_MS)
    expect(card.get_by_role("button")).to_have_count(0)
    page.get_by_role("button", name="What would leave?").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("his receives for")
    dialog.get_by_role("button", name="Cancel").click()
    lab.well("queue", "release-mapped", "--yes")
    expect(card).to_have_count(0, timeout=SLOW_MS)


def test_a_page_that_connects_late_shows_what_came_meanwhile(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "super", path="/unmapped")
    late, scripts = page.context.new_page(), re.compile(r"\.js\b")
    late.route(scripts, lambda route: None)  # they wait
    late.goto(f"{lab.url_of_console}/unmapped", wait_until="commit")
    hold(lab, "99020")
    expect(code_card(page, "99020")).to_be_visible(timeout=SLOW_MS)
    expect(code_card(late, "99020")).to_have_count(0)
    late.unroute(scripts)
    expect(code_card(late, "99020")).to_be_visible(timeout=30_000)  # not with the look of every minute


def test_in_chinese(lab: ConsoleLab, page: Page) -> None:
    hold(lab, "99004")
    lab.login(page, "it", "zh", path="/unmapped")
    expect(code_card(page, "99004").get_by_role("button", name="对照 …")).to_be_visible()
    page.get_by_role("link", name="对照表", exact=True).first.click()
    expect(page.get_by_role("button", name="保存 …")).to_be_visible()


def test_a_table_is_checked_as_one_types_tried_out_and_saved(lab: ConsoleLab, page: Page) -> None:
    specimen = hold(lab, "99005")
    before = lab.well("map", "show", TABLE)
    editor(lab, page)
    save = page.get_by_role("button", name="Save …")
    expect(save).to_be_disabled()
    type_into(page, cell(page, "6690-2", "comment").first, "ours, too")
    expect(page.get_by_text("no mistakes · not saved yet")).to_be_visible()
    type_into(page, cell(page, "ours, too", "test"), "NOPE")
    expect(page.get_by_text("mistakes: 1")).to_be_visible()
    expect(page.get_by_text("test: 'NOPE' is not in tests.csv")).to_be_visible()
    expect(cell(page, "ours, too", "test")).to_have_class(re.compile("lb-cell-wrong"))
    expect(save).to_be_disabled()
    type_into(page, cell(page, "ours, too", "test"), "WBC")
    expect(page.locator(".lb-cell-wrong")).to_have_count(0)
    expect(save).to_be_enabled()
    page.get_by_role("button", name="Add a row").click()
    type_into(page, page.locator('.ag-row-last [col-id="c0"]'), "99005")
    type_into(page, cell(page, "99005", "analyzer_unit"), "10*9/L")
    type_into(page, cell(page, "99005", "test"), "WBC")
    expect(page.get_by_text("no mistakes · not saved yet")).to_be_visible()
    page.get_by_text("Try it out").click()
    page.get_by_label("Message", exact=True).fill(specimen)
    page.get_by_role("option", name=re.compile(specimen)).click()
    page.get_by_role("button", name="Try", exact=True).click()
    tried = page.locator(".lb-tried tr").filter(has_text="99005")
    expect(tried).to_contain_text("5.52 10^9/L")
    assert not (faults := serious_faults(page)), "\n".join(faults)
    save.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("+ 2: 6690-2")
    expect(dialog).to_contain_text("99005,10*9/L,,WBC")
    dialog.get_by_label("Reason").fill("ours")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("your own")).to_be_visible()
    expect(page.get_by_text("no mistakes", exact=True)).to_be_visible()
    first, second, *rest = before.splitlines(keepends=True)
    assert own(lab).read_text("utf-8") == "".join(
        [first, second.replace(",\n", ',"ours, too"\n'), *rest, "99005,10*9/L,,WBC,,,,,\n"]
    )


PASTED = """MSH|^~\\&|BC-6800|Mindray|||20261121101500||ORU^R01|7|P|2.3.1||||||UNICODE
PID|1||P1^^^^MR||DOE^JO||19800101|Male
OBR|1||12345678|00001^Automated Count^99MRC||20261121101500|20261121101500
OBX|1|NM|99006^<script>alert(1)</script>^99MRC||5.04|10*9/L||N|||F|||20261121101500||
"""


def test_a_captured_message_is_tried_and_a_draft_that_somebody_else_overtook_is_not_saved(lab: ConsoleLab, page: Page) -> None:
    editor(lab, page)
    page.get_by_text("Try it out").click()
    page.get_by_label("or paste a captured message").fill(PASTED)
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator(".lb-tried tr").filter(has_text="99006")).to_contain_text("is not mapped")
    page.get_by_label("Search").fill("789-8")
    expect(page.locator(".ag-row").filter(has_text="6690-2")).to_have_count(0)
    page.locator(".ag-row").filter(has_text="789-8").first.get_by_role("checkbox").check()
    page.get_by_role("button", name="Delete rows").click()
    page.get_by_label("Search").fill("")
    expect(page.get_by_text("no mistakes · not saved yet")).to_be_visible()
    lab.well("map", "set", "bc-1", "OTHER", "--action", "ignore", "--reason", "meanwhile")
    page.get_by_role("button", name="Save …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("789-8")
    dialog.get_by_label("Reason").fill("mine")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("changed by somebody else meanwhile")).to_be_visible()
    assert "OTHER" in own(lab).read_text("utf-8")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    expect(page.get_by_text("no mistakes", exact=True)).to_be_visible()
    page.get_by_label("Search").fill("OTHER")
    expect(page.locator(".ag-row").filter(has_text="OTHER")).to_have_count(1)
