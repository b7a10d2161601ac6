//! A terminal of 80 columns and 24 rows, as far as our kernel uses one: what somebody would see.
//!
//! What it does not know it keeps and tells, so that no escape sequence goes by unseen.

pub(crate) const COLUMNS: usize = 80;
pub(crate) const ROWS: usize = 24;

/// The screen.
pub(crate) struct Terminal {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Escape sequences that it does not know, and lines that were too long.
    pub(crate) complaints: Vec<String>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let rows = vec![Vec::new(); ROWS];
        Self { rows, row: 0, column: 0, complaints: Vec::new() }
    }

    /// The rows, without blanks at their ends.
    pub(crate) fn rows(&self) -> Vec<String> {
        let text = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_owned();
        self.rows.iter().map(text).collect()
    }

    /// Shows what was sent.
    pub(crate) fn feed(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '\r' => self.column = 0,
                '\n' => self.line_feed(),
                '\x08' => self.column = self.column.saturating_sub(1),
                '\x1b' => {
                    let mut sequence = String::new();
                    for letter in rest.by_ref() {
                        sequence.push(letter);
                        if letter.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    self.escape(&sequence);
                }
                letter => self.put(letter),
            }
        }
    }

    fn line_feed(&mut self) {
        if self.row + 1 < ROWS {
            self.row += 1;
        } else {
            self.rows.remove(0);
            self.rows.push(Vec::new());
        }
    }

    fn put(&mut self, letter: char) {
        if self.column == COLUMNS {
            let row: String = self.rows[self.row].iter().collect();
            self.complaints.push(format!("too long: {row}"));
            self.column = 0;
            self.line_feed();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = letter;
        self.column += 1;
    }

    fn escape(&mut self, sequence: &str) {
        match sequence {
            "[H" => (self.row, self.column) = (0, 0),
            "[K" => self.rows[self.row].truncate(self.column),
            "[J" => {
                self.rows[self.row].truncate(self.column);
                self.rows[self.row + 1..].iter_mut().for_each(Vec::clear);
            }
            "[2J" => self.rows.iter_mut().for_each(Vec::clear),
            _ => self.complaints.push(format!("unknown: {sequence:?}")),
        }
    }
}
