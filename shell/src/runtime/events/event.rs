//! One kind of event, and how it is logged.

use tracing::Level;

/// One kind of event of the log. [`EVENTS`](super::EVENTS) lists all.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Its name, in the field `event` of its lines. A program can rely on it.
    pub name: &'static str,
    /// The level of its lines.
    pub level: Level,
    /// What it is about: `server`, or `session` for what happens to one session. The filter of the log can name it, as in
    /// `info,session=debug`.
    pub target: &'static str,
    /// How often it is logged.
    pub rate: Rate,
    /// The text of its lines, for people.
    pub message: &'static str,
    /// The fields of its lines, beside `event`, in their order. One without a value is left out.
    pub fields: &'static [&'static str],
    /// What has happened, and what an operator may do.
    pub description: &'static str,
}

/// How often an event is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Every time.
    Each,
    /// At most once a second. The next line says in `suppressed` how many were left out before it.
    OnePerSecond,
}

impl Event {
    /// Whether these are its fields. For `log_event!`, while compiling.
    pub(crate) const fn has_fields(&self, fields: &[&str]) -> bool {
        let mut at = 0;
        while at < fields.len() && at < self.fields.len() {
            if !is_equal(fields[at].as_bytes(), self.fields[at].as_bytes()) {
                return false;
            }
            at += 1;
        }
        fields.len() == self.fields.len()
    }
}

const fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_compared_in_order() {
        let event = Event {
            name: "session_lost",
            level: Level::DEBUG,
            target: "session",
            rate: Rate::Each,
            message: "lost",
            fields: &["user", "session", "reason"],
            description: "",
        };
        assert!(event.has_fields(&["user", "session", "reason"]));
        assert!(!event.has_fields(&["user", "session"]));
        assert!(!event.has_fields(&["user", "session", "reason", "reason"]));
        assert!(!event.has_fields(&["session", "user", "reason"]));
        assert!(!event.has_fields(&["user", "session", "reaso"]) && !event.has_fields(&["user", "session", "reasons"]));
        assert!(!event.has_fields(&[]) && Event { fields: &[], ..event }.has_fields(&[]));
    }
}
