//! Says what is in a token and whether it lets anybody in, for whoever has one that does not.

use std::fmt::Write as _;
use std::time::Duration;

use session_core::UnixSeconds;
use session_core::protocol::{CredentialError, TokenError};
use session_core::session::Identity;

use crate::auth::claims::{Claims, Header, TokenParts};
use crate::auth::jwt::Verifier;
use crate::runtime::rfc3339;

/// What the token says, and what becomes of it: `Ok` if it lets its user in. The text is meant for the person who holds
/// the token: it shows its claims, but never its signature.
///
/// # Errors
/// The same text, when it lets nobody in.
pub fn explain(verifier: &Verifier, token: &str, now: UnixSeconds) -> Result<String, String> {
    let verdict = verifier.verify(token, now);
    let mut text = String::new();
    describe(&mut text, token, now);
    match verdict {
        Ok(Identity { user, limit, expires, device, resume_token: _ }) => {
            let device = device.map_or(String::new(), |device| format!(", on device {device:?}"));
            let is_nobody = limit.is_some_and(|limit| limit.slots() == 0);
            let limit = limit.map_or("the server's limit".into(), |limit| format!("a limit of {limit}"));
            let left = expires.map_or(0, |end| end.unix_seconds().saturating_sub(now.unix_seconds()));
            let left = humantime::format_duration(Duration::from_secs(left));
            let nobody = if is_nobody { "; but 0 sessions are none: it never gets one" } else { "" };
            let user = user.as_str();
            let _infallible = write!(text, "accepted: user {user:?}{device}, with {limit}, for another {left}{nobody}");
            Ok(text)
        }
        Err(error) => {
            let _infallible = write!(text, "refused: {}{}", error.message(), advice(verifier, error));
            Err(text)
        }
    }
}

/// What can be read of it, be it authentic or not.
fn describe(text: &mut String, token: &str, now: UnixSeconds) {
    let Ok(parts) = TokenParts::split(token) else { return };
    if let Ok(Header { algorithm, key_id, .. }) = Header::read(parts.header) {
        let key = key_id.map_or(String::new(), |id| format!(", key {id:?}"));
        let _infallible = writeln!(text, "signed with {algorithm:?}{key}");
    }
    let Ok(claims) = Claims::read(parts.claims) else { return };
    let _infallible = writeln!(text, "claims {}", claims.pretty());
    for (name, words) in [("nbf", "valid from"), ("exp", "valid until")] {
        if let Ok(Some(seconds)) = claims.seconds(name) {
            // Nobody means a time that is so many times as far from the year 1970.
            let is_millis = (now.unix_seconds() / 2..now.unix_seconds().saturating_mul(2)).contains(&(seconds / 1000));
            let unit = if is_millis { "; it counts in seconds, is that in milliseconds?" } else { "" };
            let _infallible = writeln!(text, "{words} {}{unit}", describe_time(seconds, now));
        }
    }
}

/// A time as people write it, and how far it is.
fn describe_time(seconds: u64, now: UnixSeconds) -> String {
    let far = humantime::format_duration(Duration::from_secs(seconds.abs_diff(now.unix_seconds())));
    let when = if seconds > now.unix_seconds() { format!("in {far}") } else { format!("{far} ago") };
    match rfc3339::try_format(Duration::from_secs(seconds)) {
        Some(time) => format!("{time}, {when}"),
        None => when,
    }
}

fn advice(verifier: &Verifier, error: CredentialError) -> String {
    let rules = &verifier.rules;
    let CredentialError::Token(error) = error else {
        return format!(" (the user is the claim {:?}, configured as jwt_user_claim)", rules.user_claim);
    };
    match error {
        TokenError::Algorithm => format!(" (jwt_algorithm is {})", verifier.keys.algorithm()),
        TokenError::Expired | TokenError::NotYetValid => {
            format!(" (by this machine's clock; jwt_leeway is {})", humantime::format_duration(rules.leeway))
        }
        TokenError::Audience => format!(" (jwt_audience is {})", rules.audiences.join(", ")),
        TokenError::Issuer => format!(" (jwt_issuer is {})", rules.issuers.join(", ")),
        TokenError::NoUser => format!(" (jwt_user_claim is {})", rules.user_claim),
        TokenError::Limit => format!(" (jwt_limit_claim is {})", rules.limit_claim),
        TokenError::Device | TokenError::NoDevice => {
            format!(" (jwt_device_claim is {})", rules.device_claim.as_deref().unwrap_or_default())
        }
        TokenError::UnknownKey | TokenError::NoKeyId => format!(" (of {} keys)", verifier.keys.count()),
        TokenError::Signature => " (it was signed with another key, or changed since)".into(),
        TokenError::Missing
        | TokenError::Malformed
        | TokenError::Critical
        | TokenError::DuplicateClaim
        | TokenError::NoExpiry
        | TokenError::ClaimType => String::new(),
    }
}
