//! The text at the end of a command's help, wrapped with hanging indents.
//!
//! clap wraps that text too, but it puts the continuation of an indented line at the margin, and wraps a second time what
//! was wrapped in the source.

use std::env;
use std::io::{stderr, stdin, stdout};

use clap::Command;
use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;

/// The columns of help: those of the terminal, at most this many, as clap has it.
const MAX_WIDTH: usize = 100;

/// The width of the terminal, or what `COLUMNS` says, or the maximum.
pub(super) fn width() -> usize {
    fn columns(terminal: impl AsFd) -> Option<usize> {
        tcgetwinsize(terminal).ok().map(|size| size.ws_col.into()).filter(|&columns| columns > 0)
    }
    let terminal = columns(stdout()).or_else(|| columns(stderr())).or_else(|| columns(stdin()));
    let width = terminal.or_else(|| env::var("COLUMNS").ok()?.parse().ok());
    width.unwrap_or(MAX_WIDTH).min(MAX_WIDTH)
}

/// Lets the command, and its subcommands, print help of this width.
pub(super) fn with_width(command: Command, width: usize) -> Command {
    let end = command.get_after_help().map(|text| wrap(&text.to_string(), width));
    let command = command.term_width(width);
    let command = match end {
        Some(end) => command.after_help(end),
        None => command,
    };
    command.mut_subcommands(|inner| with_width(inner, width))
}

/// Wraps each line. A line that begins with a name and two spaces, such as `  0  done`, continues below its text.
fn wrap(text: &str, width: usize) -> String {
    let lines: Vec<_> = text.lines().map(|line| wrap_line(line, width)).collect();
    lines.join("\n")
}

fn wrap_line(line: &str, width: usize) -> String {
    let (first, rest) = line.split_at(hanging_indent(line));
    let (mut wrapped, mut column) = (first.to_owned(), first.len());
    let mut is_first = true;
    for word in rest.split_whitespace() {
        let length = word.chars().count();
        if !is_first && column + 1 + length > width {
            wrapped += &format!("\n{}", " ".repeat(first.len()));
            column = first.len();
        } else if !is_first {
            wrapped.push(' ');
            column += 1;
        }
        wrapped += word;
        column += length;
        is_first = false;
    }
    wrapped
}

/// Where the text of a list's item begins; 0 for a line that is not indented.
fn hanging_indent(line: &str) -> usize {
    let indent = line.len() - line.trim_start().len();
    if indent == 0 {
        return 0;
    }
    let item = line.trim_start();
    let text = item.find("  ").map_or(0, |end| end + item[end..].len() - item[end..].trim_start().len());
    indent + text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn list_item_continues_below_its_text() {
        let text = "Codes:\n  0  all is well and good\n  10  a\n\nA paragraph of its own.";
        assert_eq!(wrap(text, 16), "Codes:\n  0  all is well\n     and good\n  10  a\n\nA paragraph of\nits own.");
        assert_eq!(wrap(text, 80), text);
        assert_eq!(wrap("a-word-that-is-too-long b", 8), "a-word-that-is-too-long\nb");
    }

    /// Whether this line ends before it is full, although the next one continues it.
    fn is_wrapped_early(line: &str, next: &str, width: usize) -> bool {
        let indent = next.len() - next.trim_start().len();
        let item = next.trim_start();
        let is_start = item.starts_with('[') || item.starts_with("- ") || line.ends_with(':');
        let own = line.len() - line.trim_start().len();
        // Below the text of an option or of a list's item, or below a line of the same paragraph.
        let is_below = own == indent || (line.get(..indent).is_some_and(|start| start.ends_with("  ")) && own < indent);
        let is_command_or_option = indent > 0 && (item.contains("  ") || item.starts_with('-'));
        if line.trim().is_empty() || item.is_empty() || is_start || !is_below || is_command_or_option {
            return false;
        }
        let word = item.split(' ').next().unwrap_or_default();
        line.chars().count() + 1 + word.chars().count() <= width
    }

    #[test]
    fn early_break_is_noticed() {
        for (line, next, is_early) in [
            ("A line ends", "early", true),
            ("  0  this one", "     as well", true),
            ("  0  this one", "too", false),
            ("      --js  Print", "            it", true),
            ("      --json", "          Print JSON", false),
            ("Exit codes:", "  0  done", false),
            ("0123456789012345", "6789", false),
        ] {
            assert_eq!(is_wrapped_early(line, next, 20), is_early, "{line}\n{next}");
        }
    }

    /// Fails if a line of any help of this program is too long, or wrapped early.
    pub(crate) fn assert_help_is_wrapped_once(command: &Command) {
        for width in [80, 100] {
            let mut command = with_width(command.clone(), width);
            command.build();
            check(&mut command, width);
        }
    }

    fn check(command: &mut Command, width: usize) {
        for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
            let lines: Vec<_> = help.lines().collect();
            for line in &lines {
                let is_example = line.starts_with('{');
                assert!(line.chars().count() <= width || is_example, "longer than {width}: {line}\n{help}");
            }
            for pair in lines.windows(2) {
                assert!(!is_wrapped_early(pair[0], pair[1], width), "at {width}: {}\n{}\n{help}", pair[0], pair[1]);
            }
        }
        for inner in command.get_subcommands_mut() {
            check(inner, width);
        }
    }
}
