//! The paths at which clients open a WebSocket.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;

/// The paths at which clients may open a WebSocket. By default `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths(Vec<RequestPath>);

/// A path of a request, exactly as the client writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath(String);

impl Paths {
    /// Whether a WebSocket can be opened at this path. Case matters, and so does a slash at the end.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.0.iter().any(|RequestPath(ours)| ours == path)
    }

    /// The first path.
    #[must_use]
    pub fn first(&self) -> Option<&RequestPath> {
        self.0.first()
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self(vec![RequestPath("/".into())])
    }
}

impl FromIterator<RequestPath> for Paths {
    fn from_iter<I: IntoIterator<Item = RequestPath>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

impl FromStr for RequestPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = Some(text).filter(|text| text.starts_with('/')).and_then(|text| text.parse::<PathAndQuery>().ok());
        // The parser drops a fragment.
        match parsed {
            Some(parsed) if parsed.path() == text => Ok(Self(text.into())),
            Some(_) | None => Err("it must be the path of a URL without a query, as in / or /sessions".into()),
        }
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_matches_exactly() {
        let paths: Paths = ["/", "/chess/ws"].map(|path| path.parse().unwrap()).into_iter().collect();
        for (path, is_listed) in [
            ("/", true),
            ("/chess/ws", true),
            ("/chess/ws/", false),
            ("/Chess/ws", false),
            ("/chess", false),
            ("", false),
        ] {
            assert_eq!(paths.contains(path), is_listed, "{path}");
        }
        assert_eq!(Paths::default().first().unwrap().to_string(), "/");
        for text in ["", "chess", "/a b", "/a?b", "/a#b", "/\n", "http://x/", "*"] {
            assert!(text.parse::<RequestPath>().unwrap_err().contains("without a query"), "{text}");
        }
    }
}
