"""Function keys and the barcode scanner: what is typed fast is a scan, and never does anything but open a specimen."""

from collections.abc import Awaitable, Callable

from nicegui import ui

Pressed = Callable[[str], Awaitable[None]]

# A key that follows another within 50 ms is a scanner's. A function key waits to see whether a scan follows it (some
# scanners are set to send one first). In a scan neither Enter nor a blank reaches a button or a field other than the
# barcode's; and what is typed outside of any field goes into that one.
_SCRIPT = """
if (!window.lbKeys) {
  window.lbKeys = true;
  let last = -1e9, waiting = 0;
  const acts = (e, types) => e.key === 'Enter' ? e.target.tagName !== 'TEXTAREA' : e.key === ' ' && !types;
  const lists = (at, scan) => scan && (at === scan || at === document.body || at.closest('.lb-list tr'));
  document.addEventListener('keydown', e => {
    if (/^(Shift|Control|Alt|AltGraph|Meta)$/.test(e.key)) return;
    const fast = e.timeStamp - last < 50, plain = !(e.ctrlKey || e.altKey || e.metaKey || e.shiftKey);
    const scan = document.querySelector('.lb-scan input'), asks = document.querySelector('.q-dialog');
    const types = e.target.matches('input, textarea, [contenteditable=true]');
    if (e.key.length === 1) last = e.timeStamp;
    clearTimeout(waiting);
    if (e.ctrlKey && e.key === 'Enter' && asks) {
      e.preventDefault();
      e.stopPropagation();
      [...document.querySelectorAll('.q-dialog .lb-confirm')].pop()?.click();
      return;
    }
    if (plain && /^F(2|4|6|7|8|9)$/.test(e.key)) {
      e.preventDefault();
      if (!fast && !e.repeat && !asks) waiting = setTimeout(() => emitEvent('lb-key', e.key), 60);
    } else if (plain && fast && !e.repeat && e.target !== scan && acts(e, types)) {
      e.preventDefault();
      e.stopPropagation();
    } else if (plain && !asks && lists(e.target, scan) && /^(ArrowUp|ArrowDown|PageUp|PageDown)$/.test(e.key)) {
      e.preventDefault();
      emitEvent('lb-key', e.key);
    } else if (scan && !asks && !types && e.key.length === 1 && e.key !== ' ' && !(e.ctrlKey || e.altKey || e.metaKey)) {
      scan.focus();
    }
  }, true);
}
"""


def guard() -> None:
    """Makes the page tell keys from scans; and Ctrl+Enter press a dialog's button that confirms."""
    ui.run_javascript(_SCRIPT)


def on_keys(pressed: Pressed) -> None:
    """Calls back with the name of each function key, and of an arrow or page key pressed in the barcode field."""
    guard()
    ui.on("lb-key", lambda event: pressed(str(event.args)))
