"""Reads and writes cursors from their description alone."""

import re
from typing import NamedTuple

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
FORM = re.compile(f"[{DIGITS}]{{12}}-[{DIGITS}]{{11}}")


class Cursor(NamedTuple):
    epoch: int
    sequence: int

    def __str__(self):
        return f"{_write(self.epoch, 12)}-{_write(self.sequence, 11)}"


def parse(text):
    assert FORM.fullmatch(text), f"not a cursor: {text!r}"
    return Cursor(_read(text[:12]), _read(text[13:]))


def sequences(events):
    return [parse(event.cursor).sequence for event in events]


def beside(text, distance):
    """The cursor so many events after this one (or before it)."""
    cursor = parse(text)
    return str(Cursor(cursor.epoch, cursor.sequence + distance))


def _read(digits):
    number = 0
    for digit in digits:
        number = number * 32 + DIGITS.index(digit)
    return number


def _write(number, width):
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits = DIGITS[digit] + digits
    return digits
