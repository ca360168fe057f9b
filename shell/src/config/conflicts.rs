//! Checks the values of several keys against each other.

use super::table::{Authentication, Config};
use crate::net::listen_address::ListenAddress;

/// Keys that do not go together, and why.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) keys: &'static [&'static str],
    pub(crate) reason: String,
}

/// Every set of keys whose values are good, but not together.
pub(crate) fn check_conflicts(config: &Config) -> Vec<Conflict> {
    let mut disagreements = Vec::new();
    let mut disagree = |keys, reason: &str| disagreements.push(Conflict { keys, reason: reason.into() });
    match (&config.tls_cert, &config.tls_key) {
        (Some(_), None) => disagree(&["tls_cert", "tls_key"], "a certificate needs its key"),
        (None, Some(_)) => disagree(&["tls_key", "tls_cert"], "a key needs its certificate"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // Of port 0 there are many.
    let is_twice = |at: usize, listen: &ListenAddress| !listen.is_any_port() && config.listen[..at].contains(listen);
    if let Some((_, listen)) = config.listen.iter().enumerate().find(|&(at, listen)| is_twice(at, listen)) {
        disagree(&["listen"], &format!("{listen} is given twice"));
    }
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        disagree(
            &["proxy_protocol", "trusted_proxies"],
            "no proxy is trusted, so no header of that protocol would count",
        );
    }
    let keys = [&config.jwt_secret_file, &config.jwt_public_key_file, &config.jwt_key_set_file];
    if keys.into_iter().flatten().count() > 1 {
        disagree(
            &["jwt_secret_file", "jwt_public_key_file", "jwt_key_set_file"],
            "only one of them can say which keys tokens are signed with",
        );
    }
    if config.auth == Authentication::Jwt
        && !config.jwt_algorithm.is_symmetric()
        && keys[1..].iter().all(|key| key.is_none())
    {
        disagree(
            &["jwt_algorithm", "jwt_public_key_file", "jwt_key_set_file"],
            "this algorithm needs a public key: give it in jwt_public_key_file, or several in jwt_key_set_file",
        );
    }
    if config.is_open_to_the_network() && !config.allow_open_auth {
        disagree(
            &["listen", "auth", "allow_open_auth"],
            "with open authentication whoever says `ada` is taken for ada, and this server is to listen beyond this machine: have \
             users show tokens (auth = \"jwt\"), let it listen on localhost, or set allow_open_auth if something before it \
             knows who they are",
        );
    }
    disagreements
}
