"""Text in a table widget."""

from __future__ import annotations

from collections.abc import Sequence

import qt


def fill_table(table: qt.QTableWidget, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the content of a table."""
    table.setColumnCount(len(header))
    table.setRowCount(len(rows))
    table.setHorizontalHeaderLabels(list(header))
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(text))
    table.resizeColumnsToContents()
