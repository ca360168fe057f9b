//! Conflicts between keys whose values are valid each by itself.

use super::error::ConfigSource;
use super::redis;
use super::table::{Authentication, Config};
use super::value::Bound;
use crate::auth::{Algorithm, check_issuer};
use crate::net::forwarded::ForwardedHeader;
use crate::net::listen_address::ListenAddress;

/// Keys whose values conflict, and the reason.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) keys: &'static [&'static str],
    pub(crate) reason: String,
    /// Where the error is, if not at the strongest source of the keys.
    pub(crate) source: Option<ConfigSource>,
}

impl Conflict {
    pub(super) fn new(keys: &'static [&'static str], reason: impl Into<String>) -> Self {
        Self { keys, reason: reason.into(), source: None }
    }
}

/// Every conflict in this configuration.
pub(crate) fn check_conflicts(config: &Config) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut add = |keys, reason: &str| conflicts.push(Conflict::new(keys, reason));
    match (&config.tls_cert, &config.tls_key) {
        (Some(_), None) => add(&["tls_cert", "tls_key"], "a certificate needs its key"),
        (None, Some(_)) => add(&["tls_key", "tls_cert"], "a key needs its certificate"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // Port 0 stands for another port each time.
    let is_twice = |at: usize, listen: &ListenAddress| !listen.is_any_port() && config.listen[..at].contains(listen);
    if let Some((_, listen)) = config.listen.iter().enumerate().find(|&(at, listen)| is_twice(at, listen)) {
        add(&["listen"], &format!("{listen} is given twice"));
    }
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        add(&["proxy_protocol", "trusted_proxies"], "proxy_protocol has no effect without trusted_proxies");
    }
    if config.forwarded_header != ForwardedHeader::default() && config.trusted_proxies.is_empty() {
        add(&["forwarded_header", "trusted_proxies"], "forwarded_header has no effect without trusted_proxies");
    }
    let sources = [
        config.jwt_secret_file.is_some(),
        config.jwt_public_key_file.is_some(),
        config.jwt_key_set_file.is_some(),
        config.jwt_key_set_url.is_some(),
        config.jwt_discovery,
    ];
    let is_published = config.jwt_key_set_url.is_some() || config.jwt_discovery;
    if sources.into_iter().filter(|is_set| *is_set).count() > 1 {
        add(
            &["jwt_secret_file", "jwt_public_key_file", "jwt_key_set_file", "jwt_key_set_url", "jwt_discovery"],
            "set only one of them",
        );
    }
    if config.jwt_key_set_ca.is_some() && !is_published {
        add(
            &["jwt_key_set_ca", "jwt_key_set_url", "jwt_discovery"],
            "jwt_key_set_ca has no effect without jwt_key_set_url or jwt_discovery",
        );
    }
    if config.jwt_discovery {
        let reason = match &config.jwt_issuer[..] {
            [issuer] => {
                check_issuer(issuer).err().map(|why| format!("the issuer {issuer:?} cannot be discovered: {why}"))
            }
            [] => Some("jwt_discovery needs the URL of the issuer in jwt_issuer".into()),
            [_, ..] => Some("jwt_discovery needs one issuer, and there are several".into()),
        };
        if let Some(reason) = reason {
            add(&["jwt_discovery", "jwt_issuer"], &reason);
        }
    }
    let is_symmetric = |algorithm: &Algorithm| algorithm.is_symmetric();
    if config.jwt_algorithm.iter().any(is_symmetric) && !config.jwt_algorithm.iter().all(is_symmetric) {
        add(
            &["jwt_algorithm"],
            "HS256, HS384 and HS512 need a secret, the others a public key: the algorithms must be of one kind",
        );
    }
    if config.auth == Authentication::Jwt
        && !config.jwt_algorithm.iter().any(is_symmetric)
        && !sources[1..].contains(&true)
    {
        add(
            &["jwt_algorithm", "jwt_public_key_file", "jwt_key_set_file", "jwt_key_set_url", "jwt_discovery"],
            "this algorithm needs a public key: set jwt_public_key_file, or jwt_key_set_file for several keys, or \
             jwt_key_set_url or jwt_discovery for those of an identity provider",
        );
    }
    if is_published && config.jwt_algorithm.iter().any(is_symmetric) {
        add(
            &["jwt_algorithm", "jwt_key_set_url", "jwt_discovery"],
            "a provider publishes public keys, and HS256, HS384 and HS512 need a secret: set jwt_algorithm to what it signs \
             with, such as RS256",
        );
    }
    if let Bound::AtMost(max) = config.max_connections_per_user {
        if config.auth == Authentication::Open {
            add(
                &["max_connections_per_user", "auth"],
                "open authentication lets any client name any user, so connections cannot be counted by user: require tokens \
                 (auth = \"jwt\"), or raise max_connections_per_address instead",
            );
        }
        if max.get() <= config.limit.slots() {
            add(
                &["max_connections_per_user", "limit"],
                "max_connections_per_user must be greater than limit: a client that is to replace or resume a session of its \
                 user connects before that session has ended",
            );
        }
    }
    if config.is_open_to_the_network() && !config.allow_open_auth {
        add(
            &["listen", "auth", "allow_open_auth"],
            "open authentication lets any client sign in as any user, and this server would listen beyond this machine: \
             require tokens (auth = \"jwt\"), listen on localhost, or set allow_open_auth if a proxy in front of the server \
             authenticates users",
        );
    }
    conflicts.extend(redis::conflicts(config).into_iter().map(|(keys, reason)| Conflict::new(keys, reason)));
    conflicts
}
