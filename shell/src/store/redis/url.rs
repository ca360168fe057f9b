//! The URL of a Redis. It may hold a user and a password, which are never shown.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, IntoConnectionInfo as _, parse_redis_url};

/// Stands for what is not shown.
const HIDDEN: &str = "***";

/// The port that Sentinels have by default.
const SENTINEL_PORT: u16 = 26_379;

const FORMS: &str = "it must be redis://HOST[:PORT][/DB], rediss://HOST[:PORT][/DB] for TLS, or unix:///PATH[?db=DB]";

/// Where a Redis is: `redis://HOST[:PORT][/DB]`, the same with `rediss` for TLS, or `unix:///PATH[?db=DB]`.
///
/// A user and a password may be in it: `redis://USER:PASSWORD@HOST`, or `unix:///PATH?user=USER&pass=PASSWORD`, with percent
/// encoding. `Display` and `Debug` show `***` in their place.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// With the password.
    secret: String,
    shown: String,
}

impl RedisUrl {
    /// What may be shown of a text that should be such a URL. Of any other text nothing: a password may be anywhere in it.
    #[must_use]
    pub fn redact(text: &str) -> String {
        match text.parse::<Self>() {
            Ok(url) => url.shown,
            Err(_) if text.is_empty() => String::new(),
            Err(_) => HIDDEN.into(),
        }
    }

    /// As [`RedisUrl::from_str`], with the port of Sentinels unless one is given.
    ///
    /// # Errors
    /// As [`RedisUrl::from_str`].
    pub fn from_str_at_sentinel(text: &str) -> Result<Self, String> {
        let url = Self::from_str(text)?;
        let Some(mut with_port) = parse_redis_url(text).filter(|parsed| parsed.port().is_none()) else {
            return Ok(url);
        };
        // It has no port only if it has a host.
        let _is_set = with_port.set_port(Some(SENTINEL_PORT));
        Self::from_str(with_port.as_str())
    }

    /// Whether it asks for TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.secret.starts_with("rediss:")
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.secret.starts_with("unix:")
    }

    /// Whether it names a database other than 0.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.to_connection_info().redis_settings().db() != 0
    }

    /// Whether it names a user.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.to_connection_info().redis_settings().username().is_some()
    }

    /// Whether it has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.to_connection_info().redis_settings().password().is_some()
    }

    /// The same as the crate `redis` reads it.
    pub(super) fn to_connection_info(&self) -> ConnectionInfo {
        self.secret.as_str().into_connection_info().expect("a RedisUrl was read once")
    }
}

impl FromStr for RedisUrl {
    /// The reason, for the person who wrote it. It has nothing of the text in it.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut url = parse_redis_url(text).ok_or(FORMS)?;
        let is_socket = match url.scheme() {
            "redis" | "rediss" => false,
            "unix" => true,
            _ => return Err(FORMS.into()),
        };
        if url.fragment().is_some() {
            return Err("it must not have a fragment (#); write a # in a password as %23".into());
        }
        if is_socket {
            if !url.path().starts_with('/') || url.path() == "/" {
                return Err(FORMS.into());
            }
            let mut keys: Vec<_> = url.query_pairs().map(|(key, _)| key.into_owned()).collect();
            keys.sort_unstable();
            if !keys.iter().all(|key| ["db", "user", "pass"].contains(&&**key)) || !keys.is_sorted_by(|a, b| a < b) {
                return Err("after the path it can have ?db=, user= and pass=, each once and separated by &".into());
            }
        } else if url.query().is_some() {
            return Err("it must not have a query (?); write a ? in a password as %3F".into());
        } else if url.port() == Some(0) {
            return Err("port 0 is not a port to connect to".into());
        }
        let info = text.into_connection_info().map_err(|_| FORMS)?;
        let settings = info.redis_settings();
        if !(0..=i64::from(i32::MAX)).contains(&settings.db()) {
            return Err("the number of the database must be 0 or more".into());
        }
        if settings.username() == Some("") || settings.password() == Some("") {
            return Err("its user or password is empty".into());
        }
        let is_secret = settings.username().is_some() || settings.password().is_some();
        if settings.username() == Some(HIDDEN) || settings.password() == Some(HIDDEN) {
            return Err(
                "*** stands for the user and the password, which are never printed: write them in its place".into()
            );
        }
        // Built from what the crate has read, so that it shows where the server really connects.
        let hidden =
            |before: &str, after: &str| if is_secret { format!("{before}{HIDDEN}{after}") } else { String::new() };
        let db = |before: &str| if settings.db() == 0 { String::new() } else { format!("{before}{}", settings.db()) };
        let shown = if is_socket {
            url.set_query(None);
            let db = db("?db=");
            let hidden = hidden(if db.is_empty() { "?user=" } else { "&user=" }, "");
            format!("{url}{db}{hidden}")
        } else {
            let host = url.host_str().ok_or(FORMS)?;
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{host}{port}{}", url.scheme(), hidden("", "@"), db("/"))
        };
        Ok(Self { secret: text.into(), shown })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_says_where_to_connect() {
        for (text, address, db, is_tls) in [
            ("redis://localhost", "localhost:6379", 0, false),
            ("redis://localhost/", "localhost:6379", 0, false),
            ("redis://192.0.2.1:7000/3", "192.0.2.1:7000", 3, false),
            ("redis://[2001:db8::1]:7000", "2001:db8::1:7000", 0, false),
            ("rediss://redis.example.com/1", "redis.example.com:6379", 1, true),
            ("unix:///run/redis.sock", "/run/redis.sock", 0, false),
            ("unix:/run/redis.sock?db=2", "/run/redis.sock", 2, false),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            let info = url.to_connection_info();
            assert_eq!((info.addr().to_string(), info.redis_settings().db()), (address.into(), db), "{text}");
            assert_eq!((url.is_tls(), url.has_user(), url.has_password()), (is_tls, false, false), "{text}");
            assert_eq!(url.to_string().parse::<RedisUrl>().unwrap().to_string(), url.to_string(), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_read_and_never_shown() {
        for (text, user, shown) in [
            ("redis://ada:hun%2Fter2@localhost:7000/3", Some("ada"), "redis://***@localhost:7000/3"),
            ("rediss://:hun%2Fter2@[::1]", None, "rediss://***@[::1]"),
            ("unix:///run/a%20b?user=ada&pass=hun%2Fter2&db=2", Some("ada"), "unix:///run/a%20b?db=2&user=***"),
            ("unix:///run/a?pass=hun%2Fter2", None, "unix:///run/a?user=***"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            let info = url.to_connection_info();
            let settings = info.redis_settings();
            assert_eq!((settings.username(), settings.password()), (user, Some("hun/ter2")), "{text}");
            assert!(url.has_password() && url.has_user() == user.is_some(), "{text}");
            assert_eq!((url.to_string(), RedisUrl::redact(text)), (shown.into(), shown.into()));
            assert_eq!(format!("{url:?}"), format!("RedisUrl({shown:?})"));
            assert!(shown.parse::<RedisUrl>().unwrap_err().contains("stands for the user"), "{shown}");
        }
    }

    #[test]
    fn other_text_is_an_error_that_does_not_repeat_it() {
        for (text, message) in [
            ("hunter2", FORMS),
            ("localhost:6379", FORMS),
            ("http://:hunter2@localhost", FORMS),
            ("redis+unix:///hunter2", FORMS),
            ("redis://:hunter2@", FORMS),
            ("redis:///1", FORMS),
            ("redis://:hunter2@localhost:99999", FORMS),
            ("redis://:hunter2@localhost/one", FORMS),
            ("redis://:hunter2@0.0.0.0", FORMS),
            ("redis://:hunter2@localhost/-1", "must be 0 or more"),
            ("redis://:hunter2@localhost:0", "port 0"),
            ("unix:///run/a?pass=", "is empty"),
            ("unix:///run/a?user=&pass=hunter2", "is empty"),
            ("redis://:hunter2@localhost?protocol=resp3", "%3F"),
            ("redis://:hunter2#@localhost", FORMS),
            ("rediss://:hunter2@localhost/#insecure", "%23"),
            ("unix:///run/a?password=hunter2", "user= and pass="),
            ("unix:///run/a?pass=hunter2&pass=hunter2", "each once"),
            ("unix:run/hunter2", FORMS),
            ("unix://hunter2/a", FORMS),
            ("unix:///", FORMS),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err();
            assert!(error.contains(message) && !error.contains("hunter2"), "{text}: {error}");
            assert_eq!(RedisUrl::redact(text), HIDDEN);
        }
        assert_eq!(RedisUrl::redact(""), "");
    }
}
