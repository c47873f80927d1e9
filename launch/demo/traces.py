"""Write the reasoning traces that the giant demo tier learns: short, regular, in small steps.

A small network learns long arithmetic only when each step needs a fact it can hold (one digit by
one digit) and operands it has just written. Each trace therefore writes what it uses and keeps the
running result after `>`, so that the final answer is a copy of the last thing written.
"""

from itertools import pairwise


def _digits_from_right(top: str, bottom: str) -> str:
    return f"{' '.join(reversed(top))}|{' '.join(reversed(bottom))}"


def column_sum(a: int, b: int) -> str:
    """Add by columns from the right: `7 4 3|8 5 7+8=15>5 4+5+1=10>05 3+1=4>405` for 347 + 58."""
    top, bottom = sorted((str(a), str(b)), key=len, reverse=True)
    steps, carry, result = [_digits_from_right(top, bottom)], 0, ""
    for i in range(1, len(top) + 1):
        digits = [top[-i]] + ([bottom[-i]] if i <= len(bottom) else []) + (["1"] if carry else [])
        total = sum(map(int, digits))
        carry = total // 10
        is_leftmost = i == len(top)
        result = (str(total) if is_leftmost else str(total % 10)) + result
        steps.append(f"{'+'.join(digits)}={total}>{result}")
    return " ".join(steps)


def column_difference(a: int, b: int) -> str:
    """Subtract by columns, a >= b; `!` marks a borrow: `3 1|7 3-7=6!>6 1-1=0>06 6` for 13 - 7."""
    top, bottom = str(a), str(b)
    steps, borrow, result = [_digits_from_right(top, bottom)], 0, ""
    for i in range(1, len(top) + 1):
        digits = [top[-i]] + ([bottom[-i]] if i <= len(bottom) else []) + (["1"] if borrow else [])
        value = int(digits[0]) - sum(map(int, digits[1:]))
        borrow = int(value < 0)
        result = str(value % 10) + result
        steps.append(f"{'-'.join(digits)}={value % 10}{'!' if borrow else ''}>{result}")
    return " ".join(steps) + f" {int(result)}"


def _times_digit(a: int, digit: int) -> str:
    steps, carry, result = [], 0, ""
    text = str(a)
    for i in range(1, len(text) + 1):
        total = int(text[-i]) * digit + carry
        added = f"+{carry}" if carry else ""
        result = (str(total) if i == len(text) else str(total % 10)) + result
        steps.append(f"{text[-i]}*{digit}{added}={total}>{result}")
        carry = total // 10
    return " ".join(steps)


def long_product(a: int, b: int) -> str:
    """Multiply with one line per digit of the shorter factor, then add the lines by columns."""
    top, bottom = sorted((a, b), key=lambda n: len(str(n)), reverse=True)
    parts, total = [], 0
    for place, digit in enumerate(reversed(str(bottom))):
        partial = top * int(digit)
        shifted = partial * 10**place
        parts.append(f"{top}*{digit}:{_times_digit(top, int(digit))}")
        if place:
            parts.append(f"{shifted}+{total}:{column_sum(shifted, total)}")
        total += shifted
    return ";".join(parts) + f" {total}"


def digit_comparison(a: int, b: int) -> str:
    """Compare digits from the left until one differs; unequal lengths compare their lengths."""
    left, right = str(a), str(b)
    if len(left) != len(right):
        return f"#{len(left)}{'>' if len(left) > len(right) else '<'}{len(right)} {max(a, b)}"
    steps = [f"{' '.join(left)}|{' '.join(right)}"]
    for x, y in zip(left, right, strict=True):
        steps.append(f"{x}{'=' if x == y else '>' if x > y else '<'}{y}")
        if x != y:
            break
    return " ".join(steps) + f" {max(a, b)}"


def selection_sort(numbers: list[int]) -> str:
    """Take the least number again and again: `7:52 31 90;31:52 90;52:90;90:`."""
    left, steps = list(numbers), []
    while left:
        least = min(left)
        left.remove(least)
        steps.append(f"{least}:{' '.join(map(str, left))}")
    return ";".join(steps)


def running_count(letter: str, word: str) -> str:
    """Write each letter next to the one sought, and the count: `de/0 ee=1 ee=2` for e in dee."""
    return " ".join(
        f"{char}{letter}{'=' if char == letter else '/'}{word[: i + 1].count(letter)}"
        for i, char in enumerate(word)
    )


def indexed_reversal(word: str) -> str:
    """Number each letter, then write the same from the last place back: `p1l2o3 o3l2p1`."""
    indexed = [f"{char}{i}" for i, char in enumerate(word, start=1)]
    return f"{''.join(indexed)} {''.join(reversed(indexed))}"


def steps_of_sequence(shown: list[int], answer: int) -> str:
    """Write the steps by column subtraction, the next step, and the sum or difference by columns.

    For 3 5 7 and 9: `5-3:5|3 5-3=2>2 2;7-5:7|5 7-5=2>2 2;2 2>2;7+2:7|2 7+2=9>9`.
    """
    is_rising = answer >= shown[-1]
    pairs = [(b, a) if is_rising else (a, b) for a, b in pairwise(shown)]
    walked = ";".join(f"{a}-{b}:{column_difference(a, b)}" for a, b in pairs)
    steps, step = " ".join(str(a - b) for a, b in pairs), abs(answer - shown[-1])
    last = column_sum(shown[-1], step) if is_rising else column_difference(shown[-1], step)
    return f"{walked};{steps}>{step};{shown[-1]}{'+' if is_rising else '-'}{step}:{last}"


def running_digit_sum(number: int) -> str:
    """Write the digits, then the running total over them: `4 8 2|4+8=12+2=14` for 482."""
    digits = [int(char) for char in str(number)]
    total, text = digits[0], f"{' '.join(str(number))}|{digits[0]}"
    for digit in digits[1:]:
        total += digit
        text += f"+{digit}={total}"
    return text


def long_division(number: int, divisor: int) -> str:
    """Divide as at school, remainders only: `3/7=0r3 34/7=4r6 67/7=9r4` for 347 mod 7."""
    steps, rest = [], 0
    for char in str(number):
        value = rest * 10 + int(char)
        rest = value % divisor
        steps.append(f"{value}/{divisor}={value // divisor}r{rest}")
    return " ".join(steps)
