//! A token as people and applications hand it over.

/// The token without white space around it, and without the `Bearer` that precedes it in an HTTP header (RFC 6750 §2.1).
/// Applications copy both. Neither can be part of a token.
pub(crate) fn bare_token(text: &str) -> &str {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        Some(_) | None => text,
    }
}
