//! One line on a terminal that says how far the work is; nothing where nobody looks.

use std::io::{IsTerminal as _, Write as _};

/// Columns of the bar.
const WIDTH: usize = 30;
/// Characters of a step that are shown.
const WORDS_MAX: usize = 70;

/// The line.
pub(super) struct Progress {
    total: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    /// For about `total` steps.
    pub(super) fn new(total: usize) -> Self {
        Self { total, done: 0, shown: std::io::stderr().is_terminal() }
    }

    /// A step begins.
    pub(super) fn step(&mut self, words: &str) {
        if self.shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K{}", line(self.done, self.total, words));
        }
        self.done += 1;
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

fn line(done: usize, total: usize, words: &str) -> String {
    let total = total.max(done + 1);
    let full = WIDTH * done / total;
    let words: String = words.chars().take(WORDS_MAX).collect();
    format!("[{}{}] {}/{total} {words}", "=".repeat(full), " ".repeat(WIDTH - full), done + 1)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_bar_fills_and_more_steps_than_planned_do_not_overfill_it() {
        assert_eq!(line(0, 2, "a"), format!("[{}] 1/2 a", " ".repeat(30)));
        assert_eq!(line(1, 2, "b"), format!("[{}{}] 2/2 b", "=".repeat(15), " ".repeat(15)));
        assert!(line(7, 2, &"x".repeat(500)).ends_with(&format!("8/8 {}", "x".repeat(70))));
    }
}
