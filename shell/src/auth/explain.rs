//! Explains a token: its content, and why the server accepts or refuses it.

use std::fmt::Write as _;
use std::time::Duration;

use session_core::UnixSeconds;
use session_core::protocol::{CredentialError, TokenError};
use session_core::session::Identity;

use crate::auth::authenticator::{InvalidClaim, InvalidCredential};
use crate::auth::claim_name::ClaimName;
use crate::auth::claims::{Claims, Header, TokenParts};
use crate::auth::jwt::Verifier;
use crate::runtime::bare_token::bare_token;
use crate::runtime::rfc3339;

/// Explains a token to its holder: its content, each step of the check until one refuses it, and `Ok` if the server accepts
/// it. The text shows the claims, but never
/// the signature.
///
/// # Errors
/// The same text, if the server refuses the token.
pub fn explain(verifier: &Verifier, token: &str, now: UnixSeconds) -> Result<String, String> {
    let token = bare_token(token);
    let result = verifier.verify(token, now);
    let mut text = String::new();
    describe(&mut text, token, now);
    let checked = check_steps(&mut text, verifier, token, now);
    // Only the log wants to know the user of a refused token.
    let refused = result.clone().map_err(|invalid| InvalidCredential { user: None, ..invalid });
    debug_assert_eq!(checked.err(), refused.err(), "the steps are those of the server");
    match result {
        Ok(Identity { user, limit, expires, device, resume_token: _ }) => {
            let device = device.map_or(String::new(), |device| format!(", on device {device:?}"));
            let has_no_slot = limit.is_some_and(|limit| limit.slots() == 0);
            let limit = limit.map_or("the server's limit".into(), |limit| format!("a limit of {limit}"));
            let left = expires.map_or(0, |end| end.unix_seconds().saturating_sub(now.unix_seconds()));
            let left = humantime::format_duration(Duration::from_secs(left));
            let note = if has_no_slot { "; with a limit of 0 it never gets a session" } else { "" };
            let user = user.as_str();
            let _infallible = write!(text, "accepted: user {user:?}{device}, with {limit}, for another {left}{note}");
            Ok(text)
        }
        Err(InvalidCredential { error, claim, user: _ }) => {
            if let Some(InvalidClaim { name, found }) = claim {
                let _infallible = writeln!(text, "the claim at fault: {name:?}, {found}");
            }
            let _infallible = write!(text, "refused: {}{}", error.message(), advice(verifier, error));
            Err(text)
        }
    }
}

/// Describes the readable parts of a token, whether its signature is valid or not.
fn describe(text: &mut String, token: &str, now: UnixSeconds) {
    let Ok(parts) = TokenParts::split(token) else { return };
    if let Ok(Header { algorithm, key_id, .. }) = Header::read(parts.header) {
        let key = key_id.map_or(String::new(), |id| format!(", key {id:?}"));
        let _infallible = writeln!(text, "signed with {algorithm:?}{key}");
    }
    let Ok(claims) = Claims::read(parts.claims) else { return };
    let _infallible = writeln!(text, "claims {}", claims.pretty());
    for (name, label) in [(ClaimName::NBF, "valid from"), (ClaimName::EXP, "valid until")] {
        if let Ok(Some(seconds)) = claims.seconds(&name) {
            // Read as milliseconds the time is plausible: between half and twice the present time since 1970.
            let is_millis = (now.unix_seconds() / 2..now.unix_seconds().saturating_mul(2)).contains(&(seconds / 1000));
            let unit = if is_millis { "; the claim counts seconds, is this milliseconds?" } else { "" };
            let _infallible = writeln!(text, "{label} {}{unit}", describe_time(seconds, now));
        }
    }
}

/// The steps of [`Verifier::verify`], with what each compares.
fn check_steps(text: &mut String, verifier: &Verifier, token: &str, now: UnixSeconds) -> Result<(), InvalidCredential> {
    let Verifier { keys, rules } = verifier;
    let mut passed = |step: &str, why: String| {
        let _infallible = writeln!(text, "{step} ok: {why}");
    };
    if let Some(origin) = keys.describe_origin() {
        passed("keys", origin);
    }
    let parts = TokenParts::split(token)?;
    let header = Header::read(parts.header)?;
    let algorithm = verifier.algorithm(&header)?;
    passed("algorithm", format!("{algorithm}, jwt_algorithm is {}", keys.algorithm_names()));
    if header.is_critical {
        return Err(TokenError::Critical.into());
    }
    keys.verify(algorithm, header.key_id.as_deref(), parts.signed.as_bytes(), parts.signature)?;
    let by = match &header.key_id {
        Some(id) if keys.has_key(id) => format!("by the key {id:?}, one of"),
        Some(_) | None => "by one of the keys".into(),
    };
    passed("signature", format!("{by}: {}", keys.describe().join(", ")));
    let claims = Claims::read(parts.claims)?;
    let expires = verifier.check_expiry(&claims, now)?;
    let left = Duration::from_secs(expires.unix_seconds().saturating_sub(now.unix_seconds()));
    let leeway = humantime::format_duration(rules.leeway);
    passed("times", format!("for another {}, jwt_leeway is {leeway}", humantime::format_duration(left)));
    let accepted = |accepted: &[String]| if accepted.is_empty() { "not set".into() } else { accepted.join(", ") };
    verifier.check_audience(&claims)?;
    passed("audience", format!("jwt_audience is {}", accepted(&rules.audiences)));
    verifier.check_issuer(&claims)?;
    passed("issuer", format!("jwt_issuer is {}", accepted(&rules.issuers)));
    let user = verifier.user(&claims)?;
    passed("user", format!("{user:?}, jwt_user_claim is {}, user_id_form is {}", rules.user_claim, rules.user_id_form));
    let limit =
        claims.limit(&rules.limit_claim)?.map_or("none, the server's applies".into(), |limit| limit.to_string());
    passed("limit", format!("{limit}, jwt_limit_claim is {}", rules.limit_claim));
    if let (Some(device), Some(claim)) = (verifier.device(&claims)?, &rules.device_claim) {
        passed("device", format!("{:?}, jwt_device_claim is {claim}", device.as_str()));
    }
    Ok(())
}

/// A time in RFC 3339, and its distance from now.
fn describe_time(seconds: u64, now: UnixSeconds) -> String {
    let distance = humantime::format_duration(Duration::from_secs(seconds.abs_diff(now.unix_seconds())));
    let when = if seconds > now.unix_seconds() { format!("in {distance}") } else { format!("{distance} ago") };
    match rfc3339::try_format(Duration::from_secs(seconds)) {
        Some(time) => format!("{time}, {when}"),
        None => when,
    }
}

fn advice(verifier: &Verifier, error: CredentialError) -> String {
    let rules = &verifier.rules;
    let CredentialError::Token(error) = error else {
        return format!(" (jwt_user_claim is {}, user_id_form is {})", rules.user_claim, rules.user_id_form);
    };
    match error {
        TokenError::Algorithm => format!(" (jwt_algorithm is {})", verifier.keys.algorithm_names()),
        TokenError::Expired | TokenError::NotYetValid => {
            format!(" (by this machine's clock; jwt_leeway is {})", humantime::format_duration(rules.leeway))
        }
        TokenError::Audience => format!(" (jwt_audience is {})", rules.audiences.join(", ")),
        TokenError::Issuer => format!(" (jwt_issuer is {})", rules.issuers.join(", ")),
        TokenError::NoUser => format!(" (jwt_user_claim is {})", rules.user_claim),
        TokenError::Limit => format!(" (jwt_limit_claim is {})", rules.limit_claim),
        TokenError::Device | TokenError::NoDevice => {
            format!(" (jwt_device_claim is {})", rules.device_claim.as_ref().map_or("", ClaimName::as_str))
        }
        TokenError::UnknownKey | TokenError::NoKeyId => {
            format!(" (the keys are {})", verifier.keys.describe().join(", "))
        }
        TokenError::Signature => " (it was signed with another key, or changed since)".into(),
        TokenError::Missing
        | TokenError::Malformed
        | TokenError::Critical
        | TokenError::DuplicateClaim
        | TokenError::NoExpiry
        | TokenError::ClaimType => String::new(),
    }
}
