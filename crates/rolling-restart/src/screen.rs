//! The terminal for the line that changes. A terminal that takes nothing, stopped with Ctrl-S or behind a connection that stalls, blocks
//! whoever writes to it, and a run that is blocked starts no host and heeds no signal. So a picture is put together first, and drawn
//! when there is room for it, or never.

use std::fmt::{self, Display};
use std::io::{self, Stderr, Write as _};
use std::sync::{Mutex, PoisonError};

use console::Term;
use host::Patient;
use indicatif::TermLike;

/// Standard error, of which is known that it is a terminal.
pub struct Screen {
    /// For its size, which changes.
    terminal: Term,
    picture: Mutex<Picture>,
}

struct Picture {
    /// What is not drawn yet.
    strokes: String,
    stderr: Patient<Stderr>,
}

impl Screen {
    /// Nothing is drawn yet.
    pub fn new() -> Self {
        let picture = Picture { strokes: String::new(), stderr: Patient::new(io::stderr()) };
        Self { terminal: Term::stderr(), picture: Mutex::new(picture) }
    }

    fn add(&self, stroke: impl Display) {
        self.with(|picture| picture.strokes += &stroke.to_string());
    }

    fn with(&self, work: impl FnOnce(&mut Picture)) {
        work(&mut self.picture.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A sequence of ECMA-48: CSI, a number, and what is to be done so often. For none there is nothing to do: 0 would count as 1.
    fn move_cursor(&self, by: usize, to: char) -> io::Result<()> {
        if by > 0 {
            self.add(format_args!("\x1b[{by}{to}"));
        }
        Ok(())
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.terminal.size().1
    }

    fn height(&self) -> u16 {
        self.terminal.size().0
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(format_args!("{text}\n"));
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K");
        Ok(())
    }

    /// Draws it. What finds no room is gone: the next picture is another one.
    fn flush(&self) -> io::Result<()> {
        self.with(|Picture { strokes, stderr }| {
            // It fails never.
            let _ = stderr.write(std::mem::take(strokes).as_bytes());
        });
        Ok(())
    }
}
