//! Aligned columns. A table that goes on page by page keeps its widths, or widens: what was printed stays.

use super::one_line;

/// The space between columns.
const GAP: &str = "  ";

#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [(&'static str, bool)],
    widths: Vec<usize>,
    has_head: bool,
}

impl Table {
    /// Columns by their names, and whether they are of numbers, which stand to the right.
    pub(super) fn new(columns: &'static [(&'static str, bool)]) -> Self {
        Self {
            columns,
            widths: columns.iter().map(|(name, _)| width(name)).collect(),
            has_head: false,
        }
    }

    /// The next rows, below the head if they are the first.
    pub(super) fn lines(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        let plain = |row: &Vec<String>| row.iter().map(|cell| one_line(cell)).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
        for row in &rows {
            for (least, cell) in self.widths.iter_mut().zip(row) {
                *least = width(cell).max(*least);
            }
        }
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.has_head, true) {
            let names: Vec<_> = self
                .columns
                .iter()
                .map(|(name, _)| name.to_string())
                .collect();
            lines.push(self.line(&names));
        }
        lines.extend(rows.iter().map(|row| self.line(row)));
        lines
    }

    fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for ((cell, least), (_, is_number)) in cells.iter().zip(&self.widths).zip(self.columns) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let blanks = " ".repeat(least.saturating_sub(width(cell)));
            match is_number {
                true => line.extend([blanks.as_str(), cell]),
                false => line.extend([cell, blanks.as_str()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// In characters; those that take two cells of a terminal misalign their row, and no more.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_go_on_page_by_page() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let mut table = Table::new(&[("NAME", false), ("SUM", true)]);
        let first = table.lines(&[row("Åda", "1.00 EUR"), row("Grace", "10.00 EUR")]);
        let expected = ["NAME         SUM", "Åda     1.00 EUR", "Grace  10.00 EUR"];
        assert_eq!(first, expected);
        assert_eq!(table.lines(&[row("A\n", "2.00 EUR")]), ["A       2.00 EUR"]);
    }
}
