//! A line editor for a terminal at the other end of a byte stream.
//!
//! Bytes in, bytes to echo out; no input or output of its own. It knows the arrows (also for the
//! history), Home, End, Delete, Backspace, and Ctrl-A, B, C, D, E, F, H, K, N, P, U, W. Printable
//! ASCII is inserted; anything else is ignored, unknown escape sequences as a whole.

use alloc::string::String;
use alloc::vec::Vec;

/// The longest line, in bytes. What is typed beyond it rings the bell.
pub const LINE_MAX: usize = 512;
/// How many lines the history keeps.
pub const HISTORY_MAX: usize = 32;

/// What a byte completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing yet.
    Nothing,
    /// A line, without its end.
    Line(String),
    /// Ctrl-C: the line is dropped.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
}

/// How far into an escape sequence the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    /// After ESC.
    Begun,
    /// After ESC [ or ESC O, with the number that was read.
    Sequence(u8),
}

/// A line that is being edited, and those before it.
#[derive(Debug)]
pub struct Editor {
    prompt: &'static str,
    line: String,
    cursor: usize,
    escape: Escape,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    returned: bool,
    history: Vec<String>,
    /// Which line of the history is shown; its length stands for the line being typed.
    shown: usize,
}

const BELL: &str = "\x07";

impl Editor {
    /// An empty line behind `prompt`, which is printable ASCII.
    pub const fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            line: String::new(),
            cursor: 0,
            escape: Escape::No,
            returned: false,
            history: Vec::new(),
            shown: 0,
        }
    }

    /// Prints the prompt and the line as it stands.
    pub fn redraw(&self, echo: &mut String) {
        echo.push('\r');
        echo.push_str(self.prompt);
        echo.push_str(&self.line);
        echo.push_str("\x1b[K");
        for _ in self.cursor..self.line.len() {
            echo.push('\x08');
        }
    }

    /// Takes one byte and appends to `echo` what the terminal is to show.
    pub fn feed(&mut self, byte: u8, echo: &mut String) -> Input {
        let returned = core::mem::replace(&mut self.returned, byte == b'\r');
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Sequence(0),
            (Escape::Sequence(_), b'0'..=b'9' | b';') => self.escape = Escape::Sequence(byte),
            (Escape::Sequence(number), _) => {
                self.escape = Escape::No;
                self.sequence(number, byte, echo);
            }
            (_, 0x1b) => self.escape = Escape::Begun,
            (Escape::Begun, _) => self.escape = Escape::No,
            (Escape::No, b'\n') if returned => {}
            (Escape::No, b'\r' | b'\n') => return self.finish(echo),
            (Escape::No, 0x03) => return self.interrupt(echo),
            (Escape::No, 0x04) if self.line.is_empty() => return Input::End,
            (Escape::No, b' '..=b'~') => self.insert(char::from(byte), echo),
            (Escape::No, _) => self.control(byte, echo),
        }
        Input::Nothing
    }

    /// Drops what is typed.
    fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.shown = self.history.len();
    }

    fn finish(&mut self, echo: &mut String) -> Input {
        echo.push('\n');
        let line = core::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        self.clear();
        Input::Line(line)
    }

    fn interrupt(&mut self, echo: &mut String) -> Input {
        echo.push_str("^C\n");
        self.clear();
        Input::Interrupt
    }

    fn insert(&mut self, character: char, echo: &mut String) {
        if self.line.len() >= LINE_MAX {
            echo.push_str(BELL);
            return;
        }
        self.line.insert(self.cursor, character);
        self.cursor += 1;
        if self.cursor == self.line.len() {
            echo.push(character);
        } else {
            self.redraw(echo);
        }
    }

    fn control(&mut self, byte: u8, echo: &mut String) {
        match byte {
            0x01 => self.cursor = 0,
            0x02 => self.cursor = self.cursor.saturating_sub(1),
            0x04 => self.delete(self.cursor, self.cursor + 1),
            0x05 => self.cursor = self.line.len(),
            0x06 => self.cursor = self.line.len().min(self.cursor + 1),
            0x08 | 0x7f => self.delete(self.cursor.saturating_sub(1), self.cursor),
            0x0b => self.line.truncate(self.cursor),
            0x0e => self.recall(self.shown + 1),
            0x10 => self.recall(self.shown.wrapping_sub(1)),
            0x15 => self.delete(0, self.cursor),
            0x17 => self.delete(self.word_start(), self.cursor),
            _ => return,
        }
        self.redraw(echo);
    }

    /// An escape sequence that ended with `last`.
    fn sequence(&mut self, number: u8, last: u8, echo: &mut String) {
        let control = match (number, last) {
            (_, b'A') => 0x10,
            (_, b'B') => 0x0e,
            (_, b'C') => 0x06,
            (_, b'D') => 0x02,
            (_, b'H') | (b'1' | b'7', b'~') => 0x01,
            (_, b'F') | (b'4' | b'8', b'~') => 0x05,
            (b'3', b'~') => 0x04,
            _ => return,
        };
        self.control(control, echo);
    }

    /// Deletes from `from` to `to`, as far as there is something.
    fn delete(&mut self, from: usize, to: usize) {
        let to = to.min(self.line.len());
        if from < to {
            self.line.replace_range(from..to, "");
            self.cursor = from;
        }
    }

    /// Where the word before the cursor begins.
    fn word_start(&self) -> usize {
        let before = self.line[..self.cursor].trim_end();
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    /// Shows a line of the history; the place behind the last one is an empty line.
    fn recall(&mut self, index: usize) {
        if index > self.history.len() {
            return;
        }
        self.shown = index;
        self.line = self.history.get(index).cloned().unwrap_or_default();
        self.cursor = self.line.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal shows after the last prompt, and what was completed.
    fn typed(editor: &mut Editor, bytes: &[u8]) -> Vec<Input> {
        let mut echo = String::new();
        let inputs = bytes.iter().map(|&byte| editor.feed(byte, &mut echo));
        inputs.filter(|input| *input != Input::Nothing).collect()
    }

    fn line_of(bytes: &[u8]) -> String {
        match typed(&mut Editor::new("> "), bytes).as_slice() {
            [Input::Line(line)] => line.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_ends_with_return_newline_or_both() {
        assert_eq!(line_of(b"help\r"), "help");
        assert_eq!(line_of(b"help\n"), "help");
        assert_eq!(line_of(b"help\r\n"), "help");
        let lines = typed(&mut Editor::new(""), b"a\r\rb\n\n");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_cursor_moves_and_edits_in_the_middle() {
        assert_eq!(line_of(b"hlp\x1b[D\x1b[De\r"), "help");
        assert_eq!(line_of(b"elp\x01h\r"), "help");
        assert_eq!(line_of(b"xhelp\x1b[H\x1b[3~\r"), "help");
        assert_eq!(line_of(b"helpp\x7f\r"), "help");
        assert_eq!(line_of(b"help me\x17\x17help\r"), "help");
        assert_eq!(line_of(b"junk\x15help\r"), "help");
        assert_eq!(line_of(b"helpxx\x02\x02\x0b\r"), "help");
        assert_eq!(
            line_of(b"\x7f\x1b[D\x1b[C\x1b[3~\x0bhelp\r"),
            "help",
            "nothing to do at the ends"
        );
    }

    #[test]
    fn the_history_is_recalled_and_is_bounded() {
        let mut editor = Editor::new("> ");
        for index in 0..HISTORY_MAX + 1 {
            let mut line = alloc::format!("line {index}");
            line.push('\r');
            typed(&mut editor, line.as_bytes());
        }
        assert_eq!(editor.history.len(), HISTORY_MAX);
        assert_eq!(typed(&mut editor, b"\x1b[A\x1b[A\r"), [Input::Line("line 31".into())]);
        assert_eq!(typed(&mut editor, b"\x10\x0e\r"), [Input::Line(String::new())]);
        for _ in 0..100 {
            typed(&mut editor, b"\x1b[A");
        }
        assert_eq!(typed(&mut editor, b"\r"), [Input::Line("line 2".into())]);
    }

    #[test]
    fn ctrl_c_drops_the_line_and_ctrl_d_ends_an_empty_one() {
        let mut editor = Editor::new("> ");
        assert_eq!(typed(&mut editor, b"junk\x03"), [Input::Interrupt]);
        assert_eq!(typed(&mut editor, b"a\x04\r"), [Input::Line("a".into())]);
        assert_eq!(typed(&mut editor, b"\x04"), [Input::End]);
    }

    #[test]
    fn the_longest_line_is_taken_and_what_is_beyond_rings() {
        let mut editor = Editor::new("> ");
        for _ in 0..LINE_MAX {
            typed(&mut editor, b"a");
        }
        let mut echo = String::new();
        assert_eq!(editor.feed(b'a', &mut echo), Input::Nothing);
        assert_eq!(echo, BELL);
        let [Input::Line(line)] = &typed(&mut editor, b"\r")[..] else { panic!("no line") };
        assert_eq!(line.len(), LINE_MAX);
    }

    #[test]
    fn a_redraw_puts_the_cursor_back() {
        let mut editor = Editor::new("> ");
        typed(&mut editor, b"abc\x1b[D\x1b[D");
        let mut echo = String::new();
        editor.redraw(&mut echo);
        assert_eq!(echo, "\r> abc\x1b[K\x08\x08");
    }

    #[test]
    fn any_bytes_are_fed_without_panic_and_the_cursor_stays_inside() {
        let mut editor = Editor::new("> ");
        let mut seed = 3_u32;
        let mut echo = String::new();
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = if seed >> 31 == 0 {
                seed.to_be_bytes()[1]
            } else {
                b"ab \x1b[AD\x7f"[(seed >> 20) as usize % 8]
            };
            editor.feed(byte, &mut echo);
            assert!(editor.cursor <= editor.line.len() && editor.line.len() <= LINE_MAX);
            echo.clear();
        }
    }
}
