"""What would leave, as a person reads it: of any text, in lines that say what was written."""

from hypothesis import given
from hypothesis import strategies as st

from labbridge.views.leaving import lines_of


def test_observations_and_notes_are_told_in_lines() -> None:
    text = "MSH|^~\\&|labbridge\rOBX|1|NM|H025^Hemoglobin^L||41|g/L^^UCUM|115-150|LL|||F\rNTE|1||low \\T\\ told"
    assert lines_of(text) == ["H025 Hemoglobin 41 g/L LL [F]", "— low & told"]


def test_a_result_without_a_value_is_told_by_its_status() -> None:
    assert lines_of("OBX|1|ST|K^Potassium||||||||X") == ["K Potassium [X]"]


@given(st.lists(st.text(alphabet="OBXNTE|^\\&~\r\n1a", max_size=60), max_size=5).map("\r".join))
def test_any_text_is_read(text: str) -> None:
    lines = lines_of(text)
    assert len(lines) <= text.count("OBX") + text.count("NTE")
