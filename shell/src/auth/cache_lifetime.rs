//! How long an answer may be kept, by its headers (RFC 9111, for a cache that serves one user).

use std::time::{Duration, SystemTime};

use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES};
use http::{HeaderMap, HeaderName};

/// How long an answer with these headers, which has just come, stays fresh. `None` if they do not say.
///
/// Zero also stands for `no-store` and `no-cache`, and for a lifetime that makes no sense (section 4.2.1).
pub(super) fn lifetime(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let (mut max_age, mut is_forbidden) = (None, false);
    for (name, value) in
        headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).flat_map(directives)
    {
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => is_forbidden = true,
            "max-age" => max_age = max_age.or(Some(seconds(value).unwrap_or_default())),
            // `s-maxage` is for caches that many users share.
            _ => {}
        }
    }
    let age = text(headers, &AGE).and_then(seconds).unwrap_or_default();
    let expires = || {
        let expires = text(headers, &EXPIRES)?;
        let date = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        let until = httpdate::parse_http_date(expires).ok();
        Some(until.and_then(|until| until.duration_since(date).ok()).unwrap_or_default())
    };
    if is_forbidden {
        return Some(Duration::ZERO);
    }
    max_age.or_else(expires).map(|lifetime| lifetime.saturating_sub(age))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A number of seconds (section 1.2.2). One that is too large for that counts as the largest.
fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()))
}

/// The directives with their values, without the quotes around them. A comma or an equals sign in quotes is part of a value.
fn directives(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut is_quoted = false;
    let parts = header.split(move |character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    });
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE_1: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const A_MINUTE_LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

    fn seconds_of(headers: &[(&str, &str)]) -> Option<u64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let now = httpdate::parse_http_date(DATE_1).unwrap() + Duration::from_secs(20);
        lifetime(&map, now).map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn lifetime_is_what_cache_control_allows() {
        for (header, expected) in [
            ("max-age=300", Some(300)),
            ("public, max-age=19080, must-revalidate, no-transform", Some(19_080)),
            ("Max-Age = 60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=0", Some(0)),
            ("max-age=99999999999999999999", Some(u32::MAX.into())),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age", Some(0)),
            ("max-age=60, max-age=30", Some(60)),
            ("no-store", Some(0)),
            ("max-age=300, no-cache", Some(0)),
            ("NO-STORE,max-age=300", Some(0)),
            ("no-cache=\"a, b\", max-age=300", Some(0)),
            ("extension=\"max-age=1, no-store\", max-age=300", Some(300)),
            ("s-maxage=10", None),
            ("public", None),
            ("", None),
            (",,=,", None),
        ] {
            assert_eq!(seconds_of(&[("cache-control", header)]), expected, "{header:?}");
        }
        assert_eq!(seconds_of(&[]), None);
        assert_eq!(seconds_of(&[("cache-control", "public"), ("cache-control", "max-age=9")]), Some(9));
    }

    #[test]
    fn age_is_deducted() {
        let aged = |age| seconds_of(&[("cache-control", "max-age=300"), ("age", age)]);
        assert_eq!(["0", "100", "300", "301", "x"].map(aged), [300, 200, 0, 0, 300].map(Some));
        assert_eq!(seconds_of(&[("age", "100")]), None);
    }

    #[test]
    fn expires_counts_from_the_date_of_the_answer() {
        let at = |expires, more: &[(&str, &str)]| seconds_of(&[&[("expires", expires)], more].concat());
        assert_eq!(at(A_MINUTE_LATER, &[("date", DATE_1)]), Some(60));
        assert_eq!(at(A_MINUTE_LATER, &[("date", DATE_1), ("age", "10")]), Some(50));
        assert_eq!(at(A_MINUTE_LATER, &[]), Some(40), "by the clock of this machine");
        assert_eq!(at(DATE_1, &[("date", A_MINUTE_LATER)]), Some(0));
        assert_eq!((at("0", &[]), at("-1", &[("date", DATE_1)])), (Some(0), Some(0)));
        assert_eq!(at(A_MINUTE_LATER, &[("date", DATE_1), ("cache-control", "max-age=5")]), Some(5));
        assert_eq!(at(A_MINUTE_LATER, &[("date", DATE_1), ("cache-control", "no-cache")]), Some(0));
    }
}
