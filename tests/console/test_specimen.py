"""Specimen in the browser: its story, its messages, its export and its paper; and nothing that a message says is obeyed."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests import passport
from tests.console.helpers import SLOW_MS, ConsoleLab, serious_faults
from tests.e2e.helpers import RBC, UNKNOWN, WBC, fresh
from tests.support import END, START, astm, field, oru

MARKUP = "<img src=x onerror=hacked()><script>hacked()</script><b class=hacked>{{ 7*7 }}</b>"
NAME = "<svg/onload=hacked()>" + "N" * 100_000


def test_the_story_of_a_delivered_specimen(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC, RBC)
    [(control_id, sent)] = lab.ward.wait(specimen)
    lab.login(page, "tech", path=f"/specimen/{specimen}")
    expect(page.get_by_role("heading", name=specimen)).to_be_visible()
    for what in ("message", "reading", "mapping", "verdict", "delivery", "answer"):
        expect(page.locator(f".lb-event[data-what={what}]")).to_have_count(1)
    expect(page.locator(".lb-event[data-what=answer]")).to_contain_text("his accepted delivery")
    expect(page.locator(".lb-event[data-what=mapping]")).to_contain_text("2 of 2 results mapped")
    panel = page.get_by_role("region", name="The message itself")
    expect(panel).to_contain_text("BC-6800")
    panel.get_by_role("tab", name="Fields").click()
    panel.locator(".q-tree__node-header", has_text="OBX|1|").locator(".q-tree__arrow").click()
    expect(panel.get_by_text("OBX-5 Observation value:  5.50")).to_be_visible()
    panel.get_by_role("tab", name="Bytes").click()
    expect(panel.get_by_text("00000000  4d 53 48 7c")).to_be_visible()
    page.locator(".lb-event[data-what=delivery]").get_by_role("button", name="Show the message").click()
    expect(panel).to_contain_text(control_id)
    expect(panel).to_contain_text(field(sent, b"OBR", 3))
    page.locator(".lb-event[data-what=mapping]").get_by_role("button", name="Results").click()
    expect(page.locator(".lb-event[data-what=mapping] td", has_text="6690-2").first).to_be_visible()
    assert serious_faults(page) == []


def test_what_happens_meanwhile_appears_and_who_looked_is_told(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC, UNKNOWN)
    lab.login(page, "tech", path=f"/specimen/{specimen}")
    expect(page.locator(".lb-event[data-what=verdict]")).to_contain_text("code 99999 (g) is not mapped")
    expect(page.locator(".lb-event[data-what=audit]")).to_contain_text("tech looked at it")
    lab.ask("reject", specimen=specimen, reason="not ours")
    expect(page.locator(".lb-event[data-what=person]")).to_contain_text("rejected results")
    expect(page.locator(".lb-event[data-what=person]")).to_contain_text("not ours")


def test_the_export_is_proven_by_another_program(lab: ConsoleLab, page: Page, tmp_path: Path) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC)
    lab.ward.wait(specimen)
    lab.login(page, "it", path=f"/specimen/{specimen}")
    expect(page.locator(".lb-event[data-what=answer]")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export").click()
    waiting.value.save_as(tmp_path / "passport.json")
    text = (tmp_path / "passport.json").read_text("utf-8")
    assert waiting.value.suggested_filename == f"{specimen}.json"
    assert json.loads(text)["specimen"] == specimen
    assert passport.verify(text) >= 6
    expect(page.locator(".lb-event[data-what=audit]", has_text="it exported it")).to_be_visible()
    lab.login(page, "viewer", path=f"/specimen/{specimen}")
    expect(page.get_by_role("link", name="Print")).to_be_visible()
    expect(page.get_by_role("button", name="Export")).to_have_count(0)


def test_an_administrator_sees_no_specimen(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC)
    for path in (f"/specimen/{specimen}", f"/specimen/{specimen}/print"):
        lab.login(page, "admin", path=path)
        expect(page.get_by_text("Your role may not see this page.")).to_be_visible()
        expect(page.get_by_text("DOE")).to_have_count(0)


def test_the_paper_has_what_is_released_in_both_languages(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, ("6690-2^WBC^LN", "12.50", "10*9/L"), UNKNOWN)
    lab.login(page, "viewer", path=f"/specimen/{specimen}/print")
    paper = page.get_by_role("article")
    for text in (specimen, "DOE JO", "检验报告单", "Reference 参考区间", "12.50", "白细胞", "↑ H", "automatic 自动", "3.5-9.5"):
        expect(paper).to_contain_text(text)
    expect(paper).to_contain_text(re.compile("therefore not printed .*: 99999"))
    assert serious_faults(page) == []
    page.emulate_media(media="print")
    expect(page.get_by_role("banner")).to_be_hidden()
    expect(page.get_by_role("button", name="Print")).to_be_hidden()
    document = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", document)) == 1
    assert re.search(rb"/MediaBox \[0 0 59[45][.0-9]* 84[12]", document)


def test_a_specimen_that_is_not_known_is_said_to_be_so(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC)
    lab.login(page, "viewer", path=f"/specimen/{specimen}9")
    expect(page.get_by_role("alert")).to_contain_text(f"Nothing is known of specimen {specimen}9")
    assert serious_faults(page) == []
    page.get_by_role("link", name=specimen).click()
    expect(page.get_by_role("heading", name=specimen)).to_be_visible()


def test_a_message_that_could_not_be_read_has_its_bytes_and_can_be_settled(lab: ConsoleLab, page: Page) -> None:
    with lab.hl7_client() as client:
        client.send(b"MSH|broken\x00<script>hacked()</script>")
    [row] = lab.messages("unreadable")
    page.goto(f"{lab.url_of_console}/specimen/%23{row['id']}")  # the login leads there
    lab.login(page, "super", path=f"/specimen/%2523{row['id']}")
    expect(page.get_by_text("MSH|broken\\x00<script>hacked()</script>")).to_be_visible()
    page.get_by_role("button", name="Settle message").click()
    page.get_by_role("textbox", name="Reason").fill("a test of the cable")
    page.get_by_role("dialog").get_by_role("button", name="Settle message").click()
    expect(page.get_by_text("settled", exact=False).first).to_be_visible()
    assert lab.messages("unreadable") == []


def test_in_chinese(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC, UNKNOWN)
    lab.ward.wait(specimen)
    lab.login(page, "tech", language="zh", path=f"/specimen/{specimen}")
    expect(page.get_by_text("全过程")).to_be_visible()
    expect(page.locator(".lb-event[data-what=mapping]")).to_contain_text("2 项结果中已对照 1 项")
    expect(page.locator(".lb-event[data-what=verdict]")).to_contain_text("待审核")
    expect(page.locator(".lb-event[data-what=answer]")).to_contain_text("接收了发送")
    expect(page.get_by_role("link", name="打印")).to_be_visible()


def test_200_results_of_several_analyzers_stand_on_one_page(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, *[(f"T{n}^Test {n}^99MRC", f"{n}", "g") for n in range(180)])
    with lab.astm_client() as client:
        assert client.send(astm(specimen, [(f"A{n}", f"{n}", "g") for n in range(30)]))
    lab.login(page, "tech", path=f"/specimen/{specimen}")
    expect(page.locator(".lb-results tbody tr").nth(199)).to_be_attached()
    assert page.locator(".lb-results tbody tr").count() == 210
    expect(page.locator(".lb-event[data-what=message]")).to_have_count(2)
    page.goto(f"{lab.url_of_console}/specimen/{specimen}/print")
    expect(page.get_by_role("article")).to_contain_text("therefore not printed")


def hostile(specimen: str, text: str, name: str) -> bytes:
    """A message with this text in every field that a reader looks at, and more."""
    header = f"MSH|^~\\&|{text}|{text}|{text}|{text}|20261121101500||ORU^R01|{text}|P|2.3.1||||||UNICODE"
    person = f"PID|1||{text}^^^^MR||{name}^{text}||{text}|{text}|{text}|{text}"
    order = (
        f"OBR|1|{text}|{specimen}|00001^{text}^99MRC||20261121101500|20261121101500|||{text}|||||||{text}||||||||HM||{text}||||||"
    )
    result = f"OBX|1|ST|{text}^{text}^{text}||{text}|{text}|{text}|{text}|||F|||20261121101500||{text}"
    return "\r".join([header, person, order, result, f"NTE|1||{text}", ""]).encode()


@pytest.mark.parametrize(
    "text", [MARKUP, "\x1b]0;x\x07\x00\u202e\x7f{{constructor.constructor('hacked()')()}}", "javascript:hacked()"]
)
def test_what_a_message_says_is_shown_and_never_obeyed(lab: ConsoleLab, page: Page, text: str) -> None:
    """Markup, templates, control characters and names of 100 kB, in every field."""
    specimen = fresh()
    with lab.hl7_client() as client:
        client.raw(START + hostile(specimen, text, NAME) + END)
        client.answer()
        client.raw(START + hostile(f"S{specimen}{text}"[:60], text, text) + END)
        client.answer()
    page.add_init_script("window.hacked = () => { window.was = true }")
    lab.login(page, "super", path=f"/specimen/{specimen}")
    expect(page.locator(".lb-event[data-what=reading]").first).to_be_visible()
    for button in page.get_by_role("button", name="Results").all():
        button.click()
    panel = page.get_by_role("region", name="The message itself")
    panel.get_by_role("tab", name="Fields").click()
    expect(panel.locator(".q-tree__node-header").first).to_be_visible()
    for segment in ("MSH|", "PID|", "OBX|"):
        panel.locator(".q-tree__node-header", has_text=segment).locator(".q-tree__arrow").click()
    expect(panel.get_by_text("PID-5").first).to_be_visible()
    for path in (f"/specimen/{specimen}/print", "/pending", "/queue"):
        assert page.evaluate("[window.was, document.querySelectorAll('.hacked, img[src=x], svg[onload]').length]") == [None, 0]
        assert len(page.content()) < 1_000_000
        page.goto(lab.url_of_console + path)
        expect(page.get_by_role("banner")).to_be_visible(timeout=SLOW_MS)
    assert page.evaluate("[window.was, document.querySelectorAll('.hacked, img[src=x], svg[onload]').length]") == [None, 0]
    assert "49" not in page.locator("main").inner_text().split()


def test_a_specimen_id_may_be_anything(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "viewer")
    for specimen in ("A/B", "100%", "#1", "<b>id</b>"):
        with lab.hl7_client(lab.plain_hl7) as client:
            assert b"MSA|AA" in client.send(oru(specimen, 1, [WBC]))
        page.goto(f"{lab.url_of_console}/specimen/{''.join(f'%{byte:02X}' for byte in specimen.encode())}")
        expect(page.get_by_role("heading", name=specimen, exact=True)).to_be_visible()
