"""Tables in Markdown, whose columns line up in the text as well."""

from __future__ import annotations

from collections.abc import Sequence


def shown(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"


def table(lines: Sequence[Sequence[str]], words_from: int | None = None) -> list[str]:
    """
    @param lines: of cells; the first one is the head. Numbers stand in all columns but the first.
    @param words_from: from this column on, they have words again.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words_from = len(widths) if words_from is None else words_from
    is_words = [number == 0 or number >= words_from for number in range(len(widths))]
    rule = [
        "-" * width if words else "-" * (width - 1) + ":"
        for width, words in zip(widths, is_words, strict=True)
    ]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if words else cell.rjust(width)
            for cell, width, words in zip(cells, widths, is_words, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    return [row(cells) for cells in (lines[0], rule, *lines[1:])]
