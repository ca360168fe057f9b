//! The WebSocket subprotocol of a connection (RFC 6455 §1.9, §4.2.2).
//!
//! A client that offers subprotocols expects the server to select one. Browsers, and many libraries, fail a connection for
//! which none is selected.

use std::fmt;
use std::str::FromStr;

use session_core::protocol::SUBPROTOCOL;

/// The subprotocols that the server may select. By default [`SUBPROTOCOL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocols(Vec<Subprotocol>);

/// The name of a subprotocol: a token (RFC 7230 §3.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocol(String);

/// What the server selects from the subprotocols that a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// The client offers none, so none is selected.
    NoneOffered,
    /// The first of the client's that the server may select.
    Selected(&'a str),
    /// The server may select none of those that the client offers.
    NoneMatches,
}

impl Subprotocols {
    /// Selects from these lines of `Sec-WebSocket-Protocol`, in their order. Upper and lower case differ.
    #[must_use]
    pub fn select(&self, lines: &[&str]) -> Selection<'_> {
        let mut offered =
            lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty()).peekable();
        if offered.peek().is_none() {
            return Selection::NoneOffered;
        }
        let selected = offered.find_map(|name| self.0.iter().find(|Subprotocol(ours)| ours == name));
        selected.map_or(Selection::NoneMatches, |Subprotocol(name)| Selection::Selected(name))
    }
}

impl Default for Subprotocols {
    fn default() -> Self {
        Self(vec![Subprotocol(SUBPROTOCOL.into())])
    }
}

impl FromIterator<Subprotocol> for Subprotocols {
    fn from_iter<I: IntoIterator<Item = Subprotocol>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl FromStr for Subprotocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_token) {
            return Err(format!("it must be a token of letters, digits and !#$%&'*+-.^_`|~, as in {SUBPROTOCOL}"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_offered_name_in_the_list_is_selected() {
        let ours: Subprotocols = ["sessions.v1", "chat"].map(|name| name.parse().unwrap()).into_iter().collect();
        for (lines, expected) in [
            (&[][..], Selection::NoneOffered),
            (&["", " , "], Selection::NoneOffered),
            (&["sessions.v1"], Selection::Selected("sessions.v1")),
            (&["graphql-ws, sessions.v1"], Selection::Selected("sessions.v1")),
            (&["graphql-ws", "mqtt", " sessions.v1 "], Selection::Selected("sessions.v1")),
            // The client's order counts, not ours.
            (&["chat,sessions.v1"], Selection::Selected("chat")),
            (&["chat", "sessions.v1"], Selection::Selected("chat")),
            (&["graphql-ws"], Selection::NoneMatches),
            (&["Sessions.V1"], Selection::NoneMatches),
            (&["sessions.v1 chat"], Selection::NoneMatches),
            (&["sessions.v2", "sessions"], Selection::NoneMatches),
        ] {
            assert_eq!(ours.select(lines), expected, "{lines:?}");
        }
        let none = Subprotocols::from_iter([]);
        assert_eq!(none.select(&["sessions.v1"]), Selection::NoneMatches);
        assert_eq!(Subprotocols::default().select(&["sessions.v1"]), Selection::Selected("sessions.v1"));
    }

    #[test]
    fn name_is_a_token() {
        assert_eq!("v1.a-b_c!".parse::<Subprotocol>().unwrap().to_string(), "v1.a-b_c!");
        for text in ["", "a b", "a,b", "a\r\nX: y", "\"a\"", "é", "a/b"] {
            assert!(text.parse::<Subprotocol>().unwrap_err().contains("as in sessions.v1"), "{text}");
        }
    }
}
