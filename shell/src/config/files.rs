//! Errors of the files that a configuration names: certificate, key, secret, key set and password.

use super::conflicts::Conflict;
use super::table::{Authentication, Config, StoreKind};
use crate::auth::{KeyError, KeySource, Keys, Secret};
use crate::config::environment::{REDIS_PASSWORD, SECRET};
use crate::config::error::ConfigSource;
use crate::config::{RedisSettingsError, VerifierError};
use crate::net::tls::{TlsError, check_files};
use crate::store::{RedisConfig, RedisPassword};

/// What is known of the secrets that the server's environment may hold.
#[derive(Debug)]
pub(super) enum EnvironmentSecrets {
    /// Nothing: another process will be the server. So a missing secret is no error.
    Unknown,
    /// This is the server's environment.
    Known {
        /// The secret of tokens, if it has one.
        jwt: Option<Secret>,
        /// The password of the shared store, if it has one.
        redis: Option<RedisPassword>,
    },
}

/// Every error of every file.
pub(super) fn check(config: &Config, secrets: &EnvironmentSecrets) -> Vec<Conflict> {
    let mut errors = certificate_errors(config);
    match config.store {
        StoreKind::Lmdb | StoreKind::Memory => {}
        StoreKind::Redis => errors.extend(redis_errors(config, secrets)),
    }
    match config.auth {
        // They are not used.
        Authentication::Open => {}
        Authentication::Jwt => errors.extend(key_errors(config, secrets)),
    }
    errors
}

fn certificate_errors(config: &Config) -> Vec<Conflict> {
    let conflict = |error: TlsError| {
        let keys: &[&str] = match error {
            TlsError::Certificate { .. } | TlsError::NoCertificate { .. } => &["tls_cert"],
            TlsError::Key { .. } => &["tls_key"],
            TlsError::Unusable { .. } => &["tls_key", "tls_cert"],
        };
        Conflict::new(keys, error.to_string())
    };
    check_files(config.tls_cert.as_deref(), config.tls_key.as_deref()).into_iter().map(conflict).collect()
}

fn redis_errors(config: &Config, secrets: &EnvironmentSecrets) -> Vec<Conflict> {
    let conflict = |error: TlsError| {
        let keys: &[&str] = match error {
            TlsError::Certificate { .. } | TlsError::NoCertificate { .. } => &["redis_cert"],
            TlsError::Key { .. } => &["redis_key"],
            TlsError::Unusable { .. } => &["redis_key", "redis_cert"],
        };
        Conflict::new(keys, error.to_string())
    };
    let certificates = check_files(config.redis_cert.as_deref(), config.redis_key.as_deref());
    let mut errors: Vec<_> = certificates.into_iter().map(conflict).collect();
    let authorities = config.redis_ca.as_deref().map(RedisConfig::read_authorities);
    errors.extend(authorities.and_then(Result::err).map(|error| Conflict::new(&["redis_ca"], error.to_string())));
    errors.extend(redis_password_error(config, secrets));
    errors
}

fn redis_password_error(config: &Config, secrets: &EnvironmentSecrets) -> Option<Conflict> {
    let (given, is_known) = match secrets {
        EnvironmentSecrets::Unknown => (None, false),
        EnvironmentSecrets::Known { jwt: _, redis } => (redis.clone(), true),
    };
    let in_environment = |error: String| Conflict {
        source: Some(ConfigSource::Variable(REDIS_PASSWORD.into())),
        ..Conflict::new(&["redis_url"], error)
    };
    match config.redis_password(given) {
        Ok(None) => None,
        Ok(Some(password @ RedisPassword::File(_))) => {
            password.text().err().map(|error| Conflict::new(&["redis_password_file"], error.to_string()))
        }
        Ok(Some(password @ RedisPassword::Given(_))) => {
            password.text().err().map(|error| in_environment(error.to_string()))
        }
        Err(error @ RedisSettingsError::TwoPasswords) => {
            Some(Conflict::new(&["redis_password_file"], error.to_string()))
        }
        Err(error @ RedisSettingsError::UserWithoutPassword) if is_known => {
            Some(Conflict::new(&["redis_user", "redis_url", "redis_password_file"], error.to_string()))
        }
        // With the file it is a conflict between keys.
        Err(error @ RedisSettingsError::PasswordInUrl) if config.redis_password_file.is_none() => {
            Some(in_environment(error.to_string()))
        }
        Err(
            RedisSettingsError::PasswordInUrl
            | RedisSettingsError::UserWithoutPassword
            | RedisSettingsError::NoPlace
            | RedisSettingsError::Timing(_),
        ) => None,
    }
}

fn key_errors(config: &Config, secrets: &EnvironmentSecrets) -> Vec<Conflict> {
    let is_symmetric = config.jwt_algorithm.iter().map(|algorithm| algorithm.is_symmetric());
    // That is an error by itself, and no key fits such algorithms.
    let is_mixed = is_symmetric.clone().any(|is| is) && !is_symmetric.clone().all(|is| is);
    let files: [(&[&str], _); 4] = [
        (&["jwt_secret_file", "jwt_algorithm"], config.jwt_secret_file.clone().map(KeySource::SecretFile)),
        (&["jwt_public_key_file", "jwt_algorithm"], config.jwt_public_key_file.clone().map(KeySource::PublicKeyFile)),
        (&["jwt_key_set_file", "jwt_algorithm"], config.jwt_key_set_file.clone().map(KeySource::KeySetFile)),
        // Its keys are not fetched for this, only the file with the authorities is read.
        (&["jwt_key_set_ca"], config.key_provider().map(KeySource::Provider)),
    ];
    let mut errors = Vec::new();
    for (keys, source) in files {
        let Some(source) = source else { continue };
        match Keys::load(&config.jwt_algorithm, &source) {
            Ok(_) => {}
            Err(KeyError::Unusable { .. }) if is_mixed => {}
            // The algorithm is named too: it may be the one that is wrong.
            Err(error @ KeyError::Unusable { .. }) => errors.push(Conflict::new(keys, error.to_string())),
            Err(error @ (KeyError::Unreadable { .. } | KeyError::Provider { .. })) => {
                errors.push(Conflict::new(&keys[..1], error.to_string()))
            }
        }
    }
    // With a provider the algorithm is at fault, and a secret would not help.
    let is_published = config.jwt_key_set_url.is_some() || config.jwt_discovery;
    let needs_secret = is_symmetric.clone().all(|is| is) && !is_published;
    match secrets {
        EnvironmentSecrets::Known { jwt, redis: _ } if needs_secret => match config.key_source(jwt.clone()) {
            Err(error @ VerifierError::NoSecret) => {
                errors.push(Conflict::new(&["auth", "jwt_secret_file"], error.to_string()));
            }
            Err(error) => errors.push(Conflict::new(&["jwt_secret_file"], error.to_string())),
            Ok(source @ KeySource::Secret(_)) => {
                errors.extend(Keys::load(&config.jwt_algorithm, &source).err().map(|error| Conflict {
                    source: Some(ConfigSource::Variable(SECRET.into())),
                    ..Conflict::new(&["auth"], error.to_string())
                }))
            }
            Ok(
                KeySource::SecretFile(_)
                | KeySource::PublicKeyFile(_)
                | KeySource::KeySetFile(_)
                | KeySource::Provider(_),
            ) => {}
        },
        EnvironmentSecrets::Known { .. } | EnvironmentSecrets::Unknown => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::config::{ConfigErrors, ConfigLoader, Flags};

    fn messages(errors: &ConfigErrors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    /// The errors of a file with this text, whose paths begin with `DIR`.
    fn errors_of(directory: &Path, text: &str) -> Vec<String> {
        let path = directory.join("sessions.toml");
        fs::write(&path, text.replace("DIR", directory.to_str().unwrap())).unwrap();
        let errors =
            ConfigLoader::from_file(path).load_for_other_server().err().as_ref().map(messages).unwrap_or_default();
        errors.iter().map(|error| error.replace(directory.to_str().unwrap(), "DIR")).collect()
    }

    fn assert_errors(errors: &[String], expected: &[&str]) {
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, start) in errors.iter().zip(expected) {
            assert!(error.starts_with(start), "{error}\n{start}");
        }
    }

    #[test]
    fn every_bad_file_is_reported_with_its_key() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("short"), "short").unwrap();
        let errors = errors_of(
            directory.path(),
            "tls_cert = \"DIR/a\"\ntls_key = \"DIR/b\"\nauth = \"jwt\"\njwt_secret_file = \"DIR/short\"\nlimit = 2000\n",
        );
        assert_errors(
            &errors,
            &[
                "DIR/sessions.toml:1:1: tls_cert: cannot read DIR/a: No such file",
                "DIR/sessions.toml:2:1: tls_key: cannot read DIR/b: No such file",
                "DIR/sessions.toml:4:1: jwt_secret_file, jwt_algorithm: DIR/short cannot be used for HS256: it has 5 bytes",
                "DIR/sessions.toml:5:1: limit: invalid value '2000'",
            ],
        );
        let errors = errors_of(
            directory.path(),
            "auth = \"jwt\"\njwt_algorithm = \"ES256\"\njwt_public_key_file = \"DIR/a\"\njwt_key_set_file = \"DIR/short\"\ntls_cert = \"DIR/c\"",
        );
        assert_errors(
            &errors,
            &[
                "DIR/sessions.toml:3:1: jwt_public_key_file: cannot read DIR/a: ",
                "DIR/sessions.toml:4:1: jwt_secret_file, jwt_public_key_file, jwt_key_set_file, jwt_key_set_url, jwt_discovery: set only one of them",
                "DIR/sessions.toml:4:1: jwt_key_set_file, jwt_algorithm: DIR/short cannot be used for ES256: ",
                "DIR/sessions.toml:5:1: tls_cert, tls_key: a certificate needs its key",
                "DIR/sessions.toml:5:1: tls_cert: cannot read DIR/c: ",
            ],
        );
    }

    #[test]
    fn error_that_follows_from_another_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("short"), "short").unwrap();
        let errors =
            errors_of(directory.path(), "auth = \"jwt\"\njwt_algorithm = \"XS1\"\njwt_secret_file = \"DIR/short\"");
        assert_errors(&errors, &["DIR/sessions.toml:2:1: jwt_algorithm: invalid value 'XS1'"]);
        let errors = errors_of(
            directory.path(),
            "auth = \"jwt\"\njwt_algorithm = \"RS256,HS256\"\njwt_key_set_file = \"DIR/short\"",
        );
        assert_errors(&errors, &["DIR/sessions.toml:2:1: jwt_algorithm: HS256, HS384 and HS512 need a secret"]);
        // Nothing uses the file.
        assert_errors(&errors_of(directory.path(), "jwt_secret_file = \"DIR/missing\""), &[]);
    }

    #[test]
    fn source_of_a_bad_file_may_be_a_variable() {
        let load = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|&(name, value)| (name.into(), value.into()));
            ConfigLoader::new(Flags::default(), variables)
                .load_for_server()
                .err()
                .as_ref()
                .map(messages)
                .unwrap_or_default()
        };
        let missing = [("SESSIONS_TLS_CERT", "/missing/a"), ("SESSIONS_TLS_KEY", "/missing/b")];
        assert_errors(
            &load(&missing),
            &["SESSIONS_TLS_CERT: cannot read /missing/a: ", "SESSIONS_TLS_KEY: cannot read /missing/b: "],
        );
        let jwt = ("SESSIONS_AUTH", "jwt");
        assert_errors(&load(&[jwt]), &["SESSIONS_AUTH: auth, jwt_secret_file: the secret for tokens is missing"]);
        assert_errors(
            &load(&[jwt, ("SESSIONS_JWT_DISCOVERY", "true")]),
            &[
                "SESSIONS_JWT_DISCOVERY: jwt_discovery, jwt_issuer: ",
                "SESSIONS_JWT_DISCOVERY: jwt_algorithm, jwt_key_set_url, jwt_discovery: a provider publishes public keys",
            ],
        );
        let short = [jwt, ("SESSIONS_JWT_SECRET", "short")];
        assert_errors(&load(&short), &["SESSIONS_JWT_SECRET: the secret in the environment cannot be used for HS256"]);
        assert!(!load(&short)[0].contains("short"), "the secret is not printed");
        let long = "a secret that is as long as its hash is";
        assert_errors(&load(&[jwt, ("SESSIONS_JWT_SECRET", long)]), &[]);
        let two = [jwt, ("SESSIONS_JWT_SECRET", long), ("SESSIONS_JWT_SECRET_FILE", "/dev/null")];
        let errors = load(&two);
        assert!(errors.iter().any(|error| error.contains("set only one secret")), "{errors:?}");
    }
}
