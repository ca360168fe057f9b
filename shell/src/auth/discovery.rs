//! OpenID Connect Discovery 1.0, section 4: where an issuer publishes its keys.

use serde::Deserialize;

use crate::auth::provider_url::ProviderUrl;

/// The URL of the issuer's configuration. A slash at the end of the issuer does not count there (section 4).
pub(super) fn configuration_url(issuer: &ProviderUrl) -> ProviderUrl {
    let issuer = issuer.as_str();
    let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    url.parse().expect("a path is appended to a valid URL without a query")
}

/// Checks that a URL can be an issuer: it has no query (section 3).
pub(crate) fn check_issuer(text: &str) -> Result<ProviderUrl, String> {
    let issuer: ProviderUrl = text.parse()?;
    if text.contains('?') { Err("an issuer must have no query (?)".into()) } else { Ok(issuer) }
}

/// The URL of the keys in an issuer's configuration. The configuration must be of exactly this issuer (section 4.3).
pub(super) fn key_set_url(issuer: &ProviderUrl, configuration: &[u8]) -> Result<ProviderUrl, String> {
    #[derive(Deserialize)]
    struct Configuration {
        issuer: String,
        jwks_uri: String,
    }

    let Configuration { issuer: named, jwks_uri } = serde_json::from_slice(configuration)
        .map_err(|error| format!("it is not the configuration of an OpenID provider: {error}"))?;
    if named != issuer.as_str() {
        return Err(format!(
            "it is the configuration of the issuer {named:?}, but jwt_issuer is {:?}",
            issuer.as_str()
        ));
    }
    let url: ProviderUrl =
        jwks_uri.parse().map_err(|why| format!("its jwks_uri {jwks_uri:?} cannot be used: {why}"))?;
    if issuer.is_https() && !url.is_https() {
        return Err(format!("its jwks_uri {jwks_uri:?} cannot be used: the issuer has https, and it has not"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ProviderUrl {
        text.parse().unwrap()
    }

    #[test]
    fn configuration_is_below_the_issuer() {
        for (issuer, expected) in [
            ("https://idp.example", "https://idp.example/.well-known/openid-configuration"),
            ("https://idp.example/", "https://idp.example/.well-known/openid-configuration"),
            ("https://idp.example:8443/a/b", "https://idp.example:8443/a/b/.well-known/openid-configuration"),
            ("https://idp.example/a/b/", "https://idp.example/a/b/.well-known/openid-configuration"),
            ("http://127.0.0.1:8080/realms/x", "http://127.0.0.1:8080/realms/x/.well-known/openid-configuration"),
        ] {
            assert_eq!(configuration_url(&check_issuer(issuer).unwrap()).as_str(), expected);
        }
        assert!(check_issuer("https://idp.example/?tenant=a").unwrap_err().contains("no query"));
        assert!(check_issuer("accounts.example").is_err(), "an issuer without https cannot be discovered");
    }

    #[test]
    fn configuration_must_be_of_exactly_this_issuer() {
        let keys = |issuer: &str, configuration: &str| key_set_url(&url(issuer), configuration.as_bytes());
        let good = r#"{"issuer":"https://idp.example/a","jwks_uri":"https://keys.example/k?v=1","x":[1]}"#;
        assert_eq!(keys("https://idp.example/a", good), Ok(url("https://keys.example/k?v=1")));
        for issuer in
            ["https://idp.example/a/", "https://idp.example", "https://IDP.example/a", "https://evil.example/a"]
        {
            let error = keys(issuer, good).unwrap_err();
            assert!(
                error.contains(r#"of the issuer "https://idp.example/a", but"#) && error.contains(issuer),
                "{error}"
            );
        }
    }

    #[test]
    fn configuration_of_another_kind_is_no_good() {
        for (configuration, message) in [
            ("<html>", "it is not the configuration of an OpenID provider"),
            ("{}", "missing field `issuer`"),
            (r#"{"issuer":"https://idp.example"}"#, "missing field `jwks_uri`"),
            (r#"{"issuer":"https://idp.example","jwks_uri":7}"#, "invalid type"),
            (r#"{"issuer":"https://idp.example","jwks_uri":"/keys"}"#, "expected a URL"),
            (r#"{"issuer":"https://idp.example","jwks_uri":"http://idp.example/k"}"#, "keys must come over https"),
            (
                r#"{"issuer":"https://idp.example","jwks_uri":"http://localhost/k"}"#,
                "the issuer has https, and it has not",
            ),
        ] {
            let error = key_set_url(&url("https://idp.example"), configuration.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{configuration}: {error}");
        }
    }
}
