//! Tables that stay aligned with wide characters, and readable in narrow terminals.

use super::Colour;
use super::wrap::{width_of, wrap, wrap_after};

/// Between two columns.
const GAP: usize = 2;

/// A column is made no narrower, or there would be a word a line.
const LEAST: usize = 16;

/// Rows of text in columns as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Self {
        Self {
            headings: headings.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.to_vec());
    }

    /// The table's lines, without blanks at their ends. Where they do not fit into `width`
    /// columns, cells are broken between words; where that is not enough, each row becomes a
    /// list of its cells.
    pub fn render(&self, width: Option<usize>) -> String {
        let natural = self.widths(width_of);
        let Some(width) = width.filter(|width| total(&natural) > *width) else {
            return self.columns(&natural);
        };
        let longest_word = |cell: &str| cell.split(' ').map(width_of).max().unwrap_or(0);
        let least = self.widths(longest_word).into_iter().zip(&natural);
        let least: Vec<usize> = least
            .map(|(word, natural)| word.max(LEAST.min(*natural)))
            .collect();
        match narrowed(natural, &least, width) {
            Some(widths) => self.columns(&widths),
            None => self.lists(width),
        }
    }

    fn widths(&self, of: impl Fn(&str) -> usize) -> Vec<usize> {
        (0..self.headings.len())
            .map(|column| {
                let rows = std::iter::once(&self.headings).chain(&self.rows);
                let cells = rows.filter_map(|row| row.get(column));
                cells.map(|cell| of(cell)).max().unwrap_or(0)
            })
            .collect()
    }

    fn columns(&self, widths: &[usize]) -> String {
        let headings = self
            .headings
            .iter()
            .map(|heading| Colour::Heading.paint(heading));
        let mut text = String::new();
        add_row(&mut text, &headings.collect::<Vec<_>>(), widths);
        for row in &self.rows {
            add_row(&mut text, row, widths);
        }
        text
    }

    fn lists(&self, width: usize) -> String {
        let indent = self.headings.iter().map(|heading| width_of(heading)).max();
        let indent = indent.unwrap_or(0) + GAP;
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            for (heading, cell) in self.headings.iter().zip(row) {
                let blanks = " ".repeat(indent - width_of(heading));
                let cell = wrap_after(cell, Some(width), indent);
                let line = format!("{}{blanks}{cell}", Colour::Heading.paint(heading));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Takes from the widest column, again and again, but from none more than it bears.
fn narrowed(mut widths: Vec<usize>, least: &[usize], width: usize) -> Option<Vec<usize>> {
    while total(&widths) > width {
        let widest = (0..widths.len())
            .filter(|column| widths.get(*column) > least.get(*column))
            .max_by_key(|column| widths.get(*column).copied())?;
        *widths.get_mut(widest)? -= 1;
    }
    Some(widths)
}

/// A row takes as many lines as its tallest cell.
fn add_row(text: &mut String, cells: &[String], widths: &[usize]) {
    let cells: Vec<Vec<String>> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| wrap(cell, *width))
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for number in 0..height {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let part = cell.get(number).map_or("", String::as_str);
            line.push_str(part);
            line.push_str(&" ".repeat((width + GAP).saturating_sub(width_of(part))));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(table: &Table, width: Option<usize>) -> String {
        anstream::adapter::strip_str(&table.render(width)).to_string()
    }

    #[test]
    fn columns_align_whatever_the_width_of_characters() {
        let mut table = Table::new(["NAME", "SIZE"]);
        table.row(["日本".to_owned(), "1".to_owned()]);
        table.row(["ab".to_owned(), "22".to_owned()]);
        assert_eq!(plain(&table, None), "NAME  SIZE\n日本  1\nab    22\n");
        // A colour takes no column.
        table.row([Colour::Good.paint("abc"), "3".to_owned()]);
        assert!(plain(&table, None).ends_with("abc   3\n"));
    }

    #[test]
    fn a_narrow_terminal_breaks_cells_and_a_narrower_one_lists_them() {
        let mut table = Table::new(["LINE", "WHY"]);
        let why = "it installs packages, which only a container can do";
        table.row(["1".to_owned(), why.to_owned()]);
        assert_eq!(
            plain(&table, Some(36)),
            "LINE  WHY\n1     it installs packages, which\n      only a container can do\n"
        );
        let mut table = Table::new(["IMAGE", "KEY"]);
        table.row([
            "sha256:0123456789ab".to_owned(),
            "dags/a/very/long/key.py".to_owned(),
        ]);
        assert_eq!(
            plain(&table, Some(36)),
            "IMAGE  sha256:0123456789ab\nKEY    dags/a/very/long/key.py\n"
        );
    }
}
