"""What is done with results in a browser: each deed with the real daemon, and what the hospital has received of it."""

import re

from playwright.sync_api import Page, expect

from tests.console.hands import HELD_MS, confirm, dialog, listed, opened, pending, row, side, tell_held
from tests.console.helpers import ConsoleLab
from tests.e2e.helpers import WBC, fresh, observations
from tests.support import oru, wait_until

LOW = ("718-7^HGB^LN", "41", "g/L")
ABSURD = ("731-0^LYM#^LN", "900", "10*9/L")
# What the progress of a group has said, whatever became of it since.
RECORD = """() => { window.said = []; new MutationObserver(() => {
  for (const one of document.querySelectorAll('.q-dialog [role=status]'))
    if (window.said.at(-1) !== one.innerText) window.said.push(one.innerText);
}).observe(document.body, {subtree: true, childList: true, characterData: true}) }"""


def test_a_new_specimen_is_asked_for(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW, WBC)
    pending(lab, page, "tech")
    opened(page, specimen)
    page.keyboard.press("F6")
    dialog(page).get_by_role("button", name="clotted").click()
    expect(dialog(page).get_by_text(re.compile("H025 Hemoglobin .*[X]"))).to_be_visible()
    confirm(page)
    expect(side(page).get_by_text("Recollect")).to_have_count(2)  # the button, and what was done
    message = lab.ward.wait(specimen, 2)[-1][1]
    assert (observations(message)["H025"][5], observations(message)["H025"][11]) == ("", "X")
    assert b"new specimen" in message
    assert b"clotted" in message


def test_a_specimen_is_rejected_and_nothing_leaves(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    pending(lab, page, "super")
    listed(page, specimen)
    opened(page, specimen)
    side(page).get_by_role("button", name="Reject").click()
    expect(dialog(page).get_by_text("The hospital receives nothing.")).to_be_visible()
    dialog(page).get_by_label("Reason").fill("a blank run")
    dialog(page).get_by_label("Reason").press("Enter")  # a scanner's Enter confirms nothing
    expect(dialog(page).locator(".lb-confirm")).to_be_enabled()
    confirm(page)
    expect(row(page, specimen).get_by_text("settled")).to_be_visible(timeout=HELD_MS)
    expect(side(page).get_by_text("rejected").first).to_be_visible()
    assert not lab.held(specimen)
    assert not lab.ward.of(specimen)


def test_a_value_that_becomes_critical_leaves_as_a_correction_after_a_call(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, WBC)
    lab.ward.wait(specimen)
    pending(lab, page, "tech")
    opened(page, specimen)
    side(page).get_by_label("WBC").click()
    page.keyboard.press("F7")
    dialog(page).get_by_label("Value").fill("0.30")
    dialog(page).get_by_label("Reason").fill("counted again")
    expect(dialog(page).get_by_text("H001 Leukocytes 0.30 10*9/L LL [C]")).to_be_visible()
    expect(dialog(page).locator(".lb-confirm")).to_be_enabled()
    page.keyboard.press("Control+Enter")
    call = dialog(page).filter(has_text="This value is critical: tell the ward first.")
    expect(call).to_be_visible()
    assert len(lab.ward.of(specimen)) == 1
    call.get_by_label("Who was told").fill("Dr Wu")
    call.get_by_text("The value was read back to me").click()
    confirm(page)
    expect(side(page).get_by_text("released · called back")).to_be_visible()
    corrected = observations(lab.ward.wait(specimen, 2)[-1][1])["H001"]
    assert (corrected[5], corrected[8], corrected[11]) == ("0.30", "LL", "C")


def test_a_shifted_batch_is_proposed_at_once_and_confirmed_by_another(lab: ConsoleLab, page: Page) -> None:
    first, second, third = fresh(), fresh(), fresh()
    for specimen in (first, second):
        lab.tell(specimen, WBC)
        lab.ward.wait(specimen)
    pending(lab, page, "tech")
    page.get_by_role("button", name="Shifted batch").click()
    ids = dialog(page).get_by_label("Wrong and right ids by turns")
    dialog(page).get_by_label("Reason").fill("the rack was one place off")
    ids.fill(f"{first} {second}\n{third} {first}")
    expect(dialog(page).get_by_text(f"Not known, or without its right id: {third}")).to_be_visible()
    expect(dialog(page).locator(".lb-confirm")).to_be_disabled()
    ids.fill(f"{first} {second}\n{second} {third}")
    expect(dialog(page).get_by_text("[W]").first).to_be_visible()
    confirm(page)
    pending(lab, page, "super")
    expect(page.get_by_text(f"{first} → {second}, {second} → {third}")).to_be_visible(timeout=HELD_MS)
    page.get_by_role("button", name="Confirm the id").click()
    dialog(page).get_by_label("Reason").fill("seen the rack")
    confirm(page)
    assert observations(lab.ward.wait(third)[-1][1])["H001"][5] == "5.50"
    assert observations(lab.ward.wait(first, 2)[-1][1])["H001"][11] == "W"


def test_a_message_that_nobody_can_read_is_settled(lab: ConsoleLab, page: Page) -> None:
    with lab.hl7_client() as client:
        client.send(oru(fresh(), 1, [WBC]).replace(b"|ORU^R01|", b"||"))
    wait_until(lambda: lab.messages("unreadable"), 10, "it waits for a person")
    [message] = lab.messages("unreadable")
    pending(lab, page, "super", "zh")
    listed(page, f"#{message['id']}").click()
    expect(side(page).get_by_text(f"消息 #{message['id']}")).to_be_visible()
    side(page).get_by_role("button", name="处理完毕").click()
    dialog(page).get_by_label("原因").fill("seen")
    dialog(page).get_by_label("原因").press("Enter")
    expect(dialog(page).locator(".lb-confirm")).to_be_enabled()
    confirm(page)
    expect(side(page).get_by_role("button", name="处理完毕")).to_have_count(0)
    expect(row(page, f"#{message['id']}").get_by_text("已处理")).to_be_visible(timeout=HELD_MS)
    assert not lab.messages("unreadable")


def test_a_group_found_and_settled_by_keyboard_shows_how_far_it_is(lab: ConsoleLab, page: Page) -> None:
    specimens = [fresh() for _ in range(8)]
    for specimen in specimens:
        lab.tell(specimen, ABSURD)
    wait_until(lambda: lab.held(specimens[-1]), 10, "the last is held")
    pending(lab, page, "tech")
    listed(page, specimens[-1])
    page.get_by_text("By cause").click()
    group = row(page, "oldest").filter(has_text="LYMPH#")
    expect(group).to_be_visible()
    lines = page.locator("tr.cursor-pointer").all_inner_texts()
    for _ in range(["LYMPH#" in line for line in lines].index(True)):
        page.keyboard.press("ArrowDown")
    expect(group).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Recollect: all 8").click()
    expect(dialog(page).get_by_text("8 specimens. What leaves is shown of the first 3.")).to_be_visible()
    dialog(page).get_by_label("Reason").fill("lipaemic")
    expect(dialog(page).get_by_text(re.compile("receives for"))).to_have_count(3)
    lab.tell(fresh(), ABSURD)
    expect(page.locator(".lb-new")).to_be_visible(timeout=HELD_MS)  # the list is drawn anew under the dialog
    page.evaluate(RECORD)
    confirm(page)
    expect(page.get_by_text("8 specimens: Recollect")).to_be_visible()
    said = page.evaluate("() => window.said.filter(one => one)")
    assert len(said) > 1, said
    assert {one.partition(" of ")[2] for one in said} == {"8"}
    for specimen in specimens:
        [(_, message)] = lab.ward.wait(specimen)
        assert b"lipaemic" in message
