"""Tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def align(cells: Sequence[Sequence[str]]) -> str:
    """Sets cells as plain text: the first column to the left, the others to the right.

    Args:
        cells: Rows of equally many cells, the head first.

    Returns:
        Lines joined by newlines.
    """
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return '\n'.join(
        '  '.join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    )


def markdown_table(cells: Sequence[Sequence[str]]) -> str:
    """Sets cells as a table of Markdown, for the same cells as :func:`align`."""
    lines = [[cell.replace('\\', '\\\\').replace('|', '\\|') for cell in line] for line in cells]
    lines.insert(1, ['---', *['---:'] * (len(cells[0]) - 1)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def format_scores(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]], decimals: int = 2) -> str:
    """Sets scores in a table of plain text, with their mean as last column.

    Args:
        title: What is measured; head of the first column.
        columns: Names of the images or sets.
        rows: Name of a method -> its score for each column.
        decimals: Digits after the point.

    Returns:
        Lines joined by newlines; columns are aligned.

    Raises:
        ValueError: A row has not one score for each column.
    """
    cells = [[title, *columns, 'mean']]
    for name, scores in rows.items():
        if len(scores) != len(columns) or not columns:
            raise ValueError(f'{name}: expected one score for each of {len(columns)} columns, found {len(scores)}.')
        cells.append([name, *(f'{score:.{decimals}f}' for score in (*scores, sum(scores) / len(scores)))])
    return align(cells)
