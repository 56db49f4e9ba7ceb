//! What a configuration mistake looks like to the person who made it.
//!
//! Owns the error type and its rendering: a frame with the offending line, a caret under the offending
//! text, the cause, the fix, and the related place (e.g. the first of two equal jobs). Every error has a
//! stable code `E1xxx`. Invariant: rendering needs nothing but the error itself; lines are cut to
//! `LINE_MAX` characters, so that a one-line megabyte file stays readable.

use std::fmt;
use std::sync::Arc;

use koios_model::{Code, Coded};

/// Longest source line shown in a frame, in characters.
const LINE_MAX: usize = 160;
/// Errors kept for one file; a file this wrong is better fixed in rounds.
pub(crate) const ERRORS_MAX: usize = 200;

/// A range of text in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File as named by the user.
    pub file: Arc<str>,
    /// 1-based line; 0 when the error concerns the file as a whole.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
    /// Characters that the caret underlines, at least 1.
    pub len: u32,
    /// The text of the line.
    pub text: String,
}

/// A second place that explains the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub note: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Stable code, printed as `E1xxx`.
    pub number: u16,
    /// Where.
    pub place: Place,
    /// What is wrong and why.
    pub cause: String,
    /// What to write instead.
    pub fix: String,
    /// Another place that matters, e.g. the first definition of a duplicate.
    pub related: Option<Related>,
}

impl ConfigError {
    /// `E1xxx`.
    pub fn id(&self) -> String {
        format!("E{}", self.number)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.id(), self.cause)?;
        frame(f, &self.place)?;
        write!(f, "  = fix: {}", self.fix)?;
        if let Some(related) = &self.related {
            writeln!(f, "\nnote: {}", related.note)?;
            frame(f, &related.place)?;
        }
        Ok(())
    }
}

fn frame(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    if place.line == 0 {
        return writeln!(f, " --> {}", place.file);
    }
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let column = place.column.max(1) as usize;
    // A long line is shown from a little before the place.
    let skip = if column > LINE_MAX - 20 { column - 20 } else { 0 };
    let shown: String = place.text.chars().skip(skip).take(LINE_MAX).collect();
    let shown = shown.replace('\t', " ");
    let at = column - 1 - skip;
    let room = shown.chars().count().saturating_sub(at).max(1);
    let carets = (place.len.max(1) as usize).min(room);
    writeln!(f, "{gutter}--> {}:{}:{}", place.file, place.line, place.column)?;
    writeln!(f, "{gutter} |")?;
    writeln!(f, "{number} | {shown}")?;
    writeln!(f, "{gutter} | {}{}", " ".repeat(at), "^".repeat(carets))
}

impl std::error::Error for ConfigError {}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        Code::BadData
    }
}

/// All mistakes found in one configuration, in file order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }

    /// One line for logs and for the reload endpoint: the first mistake and how many there are.
    pub fn summary(&self) -> String {
        let Some(first) = self.0.first() else { return String::new() };
        let place = if first.place.line == 0 {
            first.place.file.to_string()
        } else {
            format!("{}:{}:{}", first.place.file, first.place.line, first.place.column)
        };
        let more = match self.0.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        format!("{place}: {} [{}]; fix: {}{more}", first.cause, first.id(), first.fix)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Coded for ConfigErrors {
    fn code(&self) -> Code {
        Code::BadData
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32, len: u32, text: &str) -> Place {
        Place { file: "a.yml".into(), line, column, len, text: text.into() }
    }

    #[test]
    fn frame_points_at_the_text() {
        let e = ConfigError {
            number: 1301,
            place: place(12, 5, 8, "  - job_name: x"),
            cause: "job \"x\" is defined twice".into(),
            fix: "rename one of them".into(),
            related: Some(Related {
                place: place(3, 5, 8, "  - job_name: x"),
                note: "first defined here".into(),
            }),
        };
        let want = "error[E1301]: job \"x\" is defined twice\n  --> a.yml:12:5\n   |\n12 |   - job_name: x\n   |     ^^^^^^^^\n  \
                    = fix: rename one of them\nnote: first defined here\n --> a.yml:3:5\n  |\n3 |   - job_name: x\n  |     ^^^^^^^^\n";
        assert_eq!(e.to_string(), want);
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let e = ConfigError {
            number: 1001,
            place: place(1, 5000, 3, &"x".repeat(100_000)),
            cause: "c".into(),
            fix: "f".into(),
            related: None,
        };
        assert!(e.to_string().lines().all(|l| l.chars().count() <= LINE_MAX + 8));
    }
}
