//! Builds the settings of the other modules from the configuration.

use std::num::{NonZeroU32, NonZeroUsize};

use session_core::cluster::{ClusterTiming, ClusterTimingError};
use session_core::connection_limiter::ConnectionLimits;
use session_core::ledger::AdmissionPolicy;
use session_core::session::SessionSettings;
use thiserror::Error;

use super::value::Bound;
use super::{Authentication, Config};
use crate::auth::{KeyEndpoint, KeyError, KeyProvider, KeySource, Keys, Secret, TokenValidation, Verifier};
use crate::net::settings::ConnectionSettings;
use crate::net::tls::{CertificateFiles, TlsError};
use crate::runtime::host_name::host_name;
use crate::store::{LmdbConfig, RedisConfig, RedisPassword, RedisPlace};

/// Why the server cannot verify tokens.
#[derive(Debug, Error)]
pub enum VerifierError {
    /// No key is configured.
    #[error("the secret for tokens is missing: set the environment variable SESSIONS_JWT_SECRET, or jwt_secret_file")]
    NoSecret,
    /// Both the environment and a file have a secret.
    #[error("both SESSIONS_JWT_SECRET and jwt_secret_file are set: set only one secret")]
    TwoSecrets,
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// Why the store that several servers share cannot be used.
#[derive(Debug, Error)]
pub enum RedisSettingsError {
    /// It is not known where the store is.
    #[error("store = \"redis\" needs redis_url, redis_sentinels or redis_cluster")]
    NoPlace,
    /// Both the environment and a file have a password.
    #[error("both SESSIONS_REDIS_PASSWORD and redis_password_file are set: set only one password")]
    TwoPasswords,
    /// The URL has a password, and there is another.
    #[error("redis_url has a password, so neither SESSIONS_REDIS_PASSWORD nor redis_password_file may be set")]
    PasswordInUrl,
    /// A user is named, and there is no password.
    #[error(
        "a user of the store needs a password: set the environment variable SESSIONS_REDIS_PASSWORD, or \
             redis_password_file"
    )]
    UserWithoutPassword,
    /// The times do not fit together.
    #[error(transparent)]
    Timing(#[from] ClusterTimingError),
}

/// What `max_message_bytes = "auto"` means.
const MESSAGE_BYTES: Bound = Bound::AtMost(NonZeroU32::new(4096).expect("it is not 0"));
/// The same for the messages up to the one with the token. Tokens with the user's groups and roles have some 8 KB.
const MESSAGE_BYTES_WITH_TOKEN: Bound = Bound::AtMost(NonZeroU32::new(16_384).expect("it is not 0"));

impl Config {
    /// Descriptors that connections cannot take. The store, the log, the listeners and refused connections need them.
    pub const SPARE_DESCRIPTORS: u64 = 128;

    /// The bounds of a session.
    #[must_use]
    pub fn session_settings(&self) -> SessionSettings {
        SessionSettings {
            auth_timeout: self.auth_timeout,
            ping_interval: self.ping_interval,
            pong_timeout: self.pong_timeout,
            max_bad_messages: number(self.max_bad_messages).map(|max| u16::try_from(max.get()).unwrap_or(u16::MAX)),
            max_message_rate: number(self.max_message_rate),
        }
    }

    /// The limits of connections, if the process may open this number of descriptors.
    #[must_use]
    pub fn connection_limits(&self, descriptors: u64) -> ConnectionLimits {
        let available = usize::try_from(descriptors.saturating_sub(Self::SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
        let available = NonZeroUsize::new(available).unwrap_or(NonZeroUsize::MIN);
        let threads = NonZeroU32::new(self.threads.into()).unwrap_or(NonZeroU32::MIN);
        ConnectionLimits {
            connections: size(self.max_connections).map(|max| max.min(available)),
            unauthenticated: size(self.max_unauthenticated),
            per_client: size(self.max_connections_per_address),
            rate_per_client: number(self.max_connection_rate),
            work_per_client: number(self.max_work_per_address),
            work: number(self.max_work_per_thread).map(|work| work.saturating_mul(threads)),
            per_user: size(self.max_connections_per_user),
        }
    }

    /// The settings of connections.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn connection_settings(&self) -> Result<ConnectionSettings, TlsError> {
        let certificate = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = certificate.map(|(certificate, key)| CertificateFiles { certificate, key }.load()).transpose()?;
        let bytes = |bound| size(bound).map_or(usize::MAX, NonZeroUsize::get);
        Ok(ConnectionSettings {
            session: self.session_settings(),
            max_message_bytes: bytes(self.max_message_bytes.unwrap_or(MESSAGE_BYTES)),
            max_unauthenticated_message_bytes: Some(bytes(self.max_authenticate_bytes())),
            header_timeout: self.header_timeout.unwrap_or(self.auth_timeout).min(self.auth_timeout),
            max_header_bytes: bytes(self.max_header_bytes),
            paths: self.path.iter().cloned().collect(),
            subprotocols: self.subprotocols.iter().cloned().collect(),
            origins: self.allowed_origins.iter().cloned().collect(),
            hosts: self.allowed_hosts.iter().cloned().collect(),
            trusted_proxies: self.trusted_proxies.iter().copied().collect(),
            forwarded_header: self.forwarded_header,
            proxy_protocol: self.proxy_protocol,
            tls,
            ..ConnectionSettings::default()
        })
    }

    /// The verifier of tokens. The keys of a provider are not fetched yet.
    ///
    /// # Errors
    /// [`VerifierError`]: no key is configured, or the keys cannot be used.
    pub fn verifier(&self, secret: Option<Secret>) -> Result<Verifier, VerifierError> {
        let keys = Keys::load(&self.jwt_algorithm, &self.key_source(secret)?)?;
        Ok(Verifier { keys, rules: self.token_validation() })
    }

    /// The source of the keys that verify tokens.
    ///
    /// # Errors
    /// [`VerifierError::NoSecret`] or [`VerifierError::TwoSecrets`].
    pub fn key_source(&self, secret: Option<Secret>) -> Result<KeySource, VerifierError> {
        let sources = [
            self.jwt_secret_file.clone().map(KeySource::SecretFile),
            self.jwt_public_key_file.clone().map(KeySource::PublicKeyFile),
            self.jwt_key_set_file.clone().map(KeySource::KeySetFile),
            self.key_provider().map(KeySource::Provider),
        ];
        match (secret, sources.into_iter().flatten().next()) {
            (Some(_), Some(KeySource::SecretFile(_))) => Err(VerifierError::TwoSecrets),
            // A public key needs no secret. One in the environment does no harm.
            (_, Some(source)) => Ok(source),
            (Some(secret), None) => Ok(KeySource::Secret(secret)),
            (None, None) => Err(VerifierError::NoSecret),
        }
    }

    /// Who publishes the keys, if they are neither a secret nor in a file.
    pub(super) fn key_provider(&self) -> Option<KeyProvider> {
        // Loading has checked that it is a URL.
        let issuer = || self.jwt_issuer.first().filter(|_| self.jwt_discovery).and_then(|issuer| issuer.parse().ok());
        let endpoint =
            self.jwt_key_set_url.clone().map(KeyEndpoint::KeySet).or_else(|| issuer().map(KeyEndpoint::Issuer));
        Some(KeyProvider { endpoint: endpoint?, ca: self.jwt_key_set_ca.clone() })
    }

    /// The claims that a token needs.
    #[must_use]
    pub fn token_validation(&self) -> TokenValidation {
        TokenValidation {
            user_claim: self.jwt_user_claim.clone(),
            user_id_form: self.user_id_form,
            limit_claim: self.jwt_limit_claim.clone(),
            device_claim: self.jwt_device_claim.clone(),
            audiences: self.jwt_audience.clone(),
            issuers: self.jwt_issuer.clone(),
            leeway: self.jwt_leeway,
        }
    }

    /// The bytes that the kernel may buffer for a client that does not read, if bounded.
    #[must_use]
    pub fn send_buffer_bytes(&self) -> Option<usize> {
        size(self.max_unsent_bytes).map(NonZeroUsize::get)
    }

    /// The longest message of a client that is not authenticated.
    #[must_use]
    pub fn max_authenticate_bytes(&self) -> Bound {
        self.max_message_bytes.unwrap_or(match self.auth {
            Authentication::Open => MESSAGE_BYTES,
            Authentication::Jwt => MESSAGE_BYTES_WITH_TOKEN,
        })
    }

    /// Whether the message with which a client authenticates may be so long.
    #[must_use]
    pub fn fits_message(&self, bytes: usize) -> bool {
        size(self.max_authenticate_bytes()).is_none_or(|max| bytes <= max.get())
    }

    /// The policy that decides who gets a slot.
    #[must_use]
    pub fn admission_policy(&self) -> AdmissionPolicy {
        AdmissionPolicy {
            when_full: self.when_full,
            client_choice: self.client_choice,
            lingering_first: self.lingering_first,
            count_by: self.count,
            sessions_per_device: self.max_sessions_per_device,
            linger: self.linger,
            linger_grace: self.linger_grace,
            max_waiting: self.max_waiting,
            ..AdmissionPolicy::new(self.limit)
        }
    }

    /// The settings of the LMDB store.
    #[must_use]
    pub fn lmdb(&self) -> LmdbConfig {
        LmdbConfig {
            live_writes: self.live_writes,
            forget_after: self.forget_after,
            max_known_users: size(self.max_known_users).map_or(usize::MAX, NonZeroUsize::get),
            policy: self.admission_policy(),
            ..LmdbConfig::new(&self.data, self.limit)
        }
    }

    /// The settings of the store in a Redis, with the password that the environment has, if any.
    ///
    /// # Errors
    /// [`RedisSettingsError`]: no URL is set, passwords contradict each other, or the times do not fit together.
    pub fn redis(&self, password: Option<RedisPassword>) -> Result<RedisConfig, RedisSettingsError> {
        let password = self.redis_password(password)?;
        let certificate = self.redis_cert.clone().zip(self.redis_key.clone());
        Ok(RedisConfig {
            place: self.redis_place().ok_or(RedisSettingsError::NoPlace)?,
            replicas: self.redis_replicas,
            waits: self.redis_wait,
            user: self.redis_user.clone(),
            password,
            ca: self.redis_ca.clone(),
            certificate,
            prefix: self.redis_prefix.clone(),
            timing: ClusterTiming::new(self.node_beat, self.node_fence, self.node_lease, self.store_timeout)?,
            call_timeout: self.store_timeout,
            node_name: self.resolved_node_name(),
            policy: self.admission_policy(),
        })
    }

    /// Where the store is that several servers share.
    #[must_use]
    pub fn redis_place(&self) -> Option<RedisPlace> {
        let sentinels = || {
            let master = self.redis_master.clone()?;
            let sentinels = Some(self.redis_sentinels.clone()).filter(|sentinels| !sentinels.is_empty())?;
            Some(RedisPlace::Sentinels { sentinels, master })
        };
        let cluster =
            || Some(self.redis_cluster.clone()).filter(|servers| !servers.is_empty()).map(RedisPlace::Cluster);
        self.redis_url.clone().map(RedisPlace::Server).or_else(sentinels).or_else(cluster)
    }

    /// The password for the store in a Redis, unless its URL has it.
    pub(super) fn redis_password(
        &self,
        given: Option<RedisPassword>,
    ) -> Result<Option<RedisPassword>, RedisSettingsError> {
        let (in_url, user_in_url) = self
            .redis_url
            .as_ref()
            .or_else(|| self.redis_cluster.first())
            .map_or((false, false), |url| (url.has_password(), url.has_user()));
        match (given, self.redis_password_file.clone().map(RedisPassword::File)) {
            (Some(_), Some(_)) => Err(RedisSettingsError::TwoPasswords),
            (Some(_), None) | (None, Some(_)) if in_url => Err(RedisSettingsError::PasswordInUrl),
            (None, None) if !in_url && (self.redis_user.is_some() || user_in_url) => {
                Err(RedisSettingsError::UserWithoutPassword)
            }
            (given, file) => Ok(given.or(file)),
        }
    }

    /// How operators see this server among the others.
    fn resolved_node_name(&self) -> String {
        let name = Some(&self.node_name).filter(|name| !name.is_empty()).cloned();
        name.or_else(host_name).unwrap_or_else(|| "unnamed".into())
    }

    /// Whether clients from other machines authenticate without proof.
    #[must_use]
    pub fn is_open_to_the_network(&self) -> bool {
        self.auth == Authentication::Open && self.listens_beyond()
    }

    /// Whether tokens cross the network unencrypted.
    #[must_use]
    pub fn sends_tokens_in_the_clear(&self) -> bool {
        let is_protected = self.tls_cert.is_some() || !self.trusted_proxies.is_empty();
        self.auth == Authentication::Jwt && self.listens_beyond() && !is_protected
    }

    fn listens_beyond(&self) -> bool {
        self.listen.iter().any(|listen| !listen.is_local())
    }
}

fn number(bound: Bound) -> Option<NonZeroU32> {
    match bound {
        Bound::Unlimited => None,
        Bound::AtMost(max) => Some(max),
    }
}

fn size(bound: Bound) -> Option<NonZeroUsize> {
    number(bound).and_then(|max| NonZeroUsize::try_from(max).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroU16;
    use std::time::Duration;

    use session_core::Timestamp;
    use session_core::ledger::{CountBy, SlotLimit, UserOverrides, WhenFull};

    use super::*;
    use crate::config::{ConfigLoader, Flags};
    use crate::net::forwarded::ForwardedHeader;
    use crate::net::origins::Origin;
    use crate::net::subprotocols::Selection;
    use crate::runtime::user_id_form::UserIdForm;

    fn config(given: &[(&str, &str)]) -> Config {
        let environment = given.iter().map(|&(key, value)| (format!("SESSIONS_{key}").into(), value.into()));
        ConfigLoader::new(Flags::default(), environment).load().unwrap().config
    }

    #[test]
    fn bounds_are_numbers_or_unlimited() {
        let names = ["CONNECTIONS", "UNAUTHENTICATED", "CONNECTIONS_PER_ADDRESS", "CONNECTION_RATE", "BAD_MESSAGES"];
        let more =
            ["MESSAGE_RATE", "MESSAGE_BYTES", "HEADER_BYTES", "UNSENT_BYTES", "WORK_PER_ADDRESS", "WORK_PER_THREAD"];
        let names = [&names[..], &more].concat();
        let set = |texts: [&str; 11]| {
            let names: Vec<_> = names.iter().map(|name| format!("MAX_{name}")).collect();
            config(&names.iter().map(String::as_str).zip(texts).collect::<Vec<_>>())
        };

        let some = set(["5", "4", "3", "2", "65535", "7", "1024", "8193", "4097", "65536", "2000000"]);
        let bounds = ConnectionLimits {
            connections: NonZeroUsize::new(5),
            unauthenticated: NonZeroUsize::new(4),
            per_client: NonZeroUsize::new(3),
            rate_per_client: NonZeroU32::new(2),
            work_per_client: NonZeroU32::new(65_536),
            work: NonZeroU32::new(2_000_000 * u32::from(some.threads)),
            per_user: None,
        };
        assert_eq!(some.connection_limits(u64::MAX), bounds);
        let limits = some.session_settings();
        assert_eq!((limits.max_bad_messages, limits.max_message_rate), (Some(65_535), NonZeroU32::new(7)));
        let policy = some.connection_settings().unwrap();
        assert_eq!((policy.session, policy.max_message_bytes, policy.max_header_bytes), (limits, 1024, 8193));
        assert_eq!(some.send_buffer_bytes(), Some(4097));

        let none = set(["unlimited"; 11]);
        assert_eq!(none.connection_limits(u64::MAX), ConnectionLimits::default());
        let limits = none.session_settings();
        assert_eq!((limits.max_bad_messages, limits.max_message_rate), (None, None));
        let policy = none.connection_settings().unwrap();
        assert_eq!((policy.max_message_bytes, policy.max_header_bytes), (usize::MAX, usize::MAX));
        assert_eq!(none.send_buffer_bytes(), None);
    }

    #[test]
    fn open_files_limit_the_connections() {
        let config = config(&[("MAX_CONNECTIONS", "10")]);
        for (descriptors, connections) in [(0, 1), (128, 1), (129, 1), (130, 2), (137, 9), (138, 10), (139, 10)] {
            let bounds = config.connection_limits(descriptors);
            assert_eq!(bounds.connections, NonZeroUsize::new(connections), "{descriptors}");
        }
    }

    #[test]
    fn header_timeout_is_at_most_the_auth_timeout() {
        for (header, auth, seconds) in [("5s", "10s", 5), ("20s", "10s", 10), ("unlimited", "7s", 7)] {
            let config = config(&[("HEADER_TIMEOUT", header), ("AUTH_TIMEOUT", auth)]);
            assert_eq!(config.connection_settings().unwrap().header_timeout, Duration::from_secs(seconds), "{header}");
        }
    }

    #[test]
    fn connection_settings_follow_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (certificate, key) = (path("cert"), path("key"));
        let tls = [("TLS_CERT", &*certificate), ("TLS_KEY", &*key)];
        assert!(matches!(config(&tls).connection_settings(), Err(TlsError::Certificate { .. })));
        let mine = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&certificate, mine.cert.pem()).unwrap();
        fs::write(&key, mine.signing_key.serialize_pem()).unwrap();
        assert!(
            config(&tls).connection_settings().unwrap().tls.is_some()
                && config(&[]).connection_settings().unwrap().tls.is_none()
        );

        let policy = config(&[
            ("ALLOWED_ORIGINS", "https://a.example,null"),
            ("ALLOWED_HOSTS", "b.example"),
            ("TRUSTED_PROXIES", "10.0.0.0/8"),
            ("PROXY_PROTOCOL", "true"),
            ("FORWARDED_HEADER", "forwarded"),
            ("PATH", "/chess,/go"),
            ("SUBPROTOCOLS", "chess.v2,chess.v1"),
        ]);
        let policy = policy.connection_settings().unwrap();
        let origins = ["https://a.example", "null"].map(|origin| origin.parse::<Origin>().unwrap());
        assert_eq!(policy.origins, origins.into_iter().collect());
        assert_eq!(policy.forwarded_header, ForwardedHeader::Forwarded);
        assert!(policy.paths.contains("/go") && !policy.paths.contains("/"));
        assert_eq!(policy.subprotocols.select(&["chess.v1"]), Selection::Selected("chess.v1"));
        let default = config(&[]).connection_settings().unwrap();
        let expected = ConnectionSettings::default();
        assert_eq!((default.paths, default.subprotocols), (expected.paths, expected.subprotocols));
        assert_eq!(default.forwarded_header, expected.forwarded_header);
        assert!(policy.hosts.allows(Some(b"b.example")) && !policy.hosts.allows(Some(b"a.example")));
        assert!(policy.trusted_proxies.is_trusted([10, 0, 0, 1].into()) && policy.proxy_protocol);
    }

    #[test]
    fn admission_policy_follows_the_configuration() {
        assert_eq!(config(&[]).admission_policy(), AdmissionPolicy::default());
        let policy = config(&[
            ("LIMIT", "5"),
            ("WHEN_FULL", "evict-oldest"),
            ("CLIENT_CHOICE", "true"),
            ("LINGER", "90s"),
            ("LINGER_GRACE", "7s"),
            ("LINGERING_FIRST", "false"),
            ("COUNT", "devices"),
            ("MAX_SESSIONS_PER_DEVICE", "7"),
            ("MAX_WAITING", "9"),
        ]);
        let expected = AdmissionPolicy {
            limit: SlotLimit::new(5).unwrap(),
            overrides: UserOverrides::default(),
            when_full: WhenFull::EvictOldest,
            client_choice: true,
            lingering_first: false,
            count_by: CountBy::Devices,
            sessions_per_device: NonZeroU16::new(7).unwrap(),
            linger: Duration::from_secs(90),
            linger_grace: Duration::from_secs(7),
            max_waiting: 9,
            reuses_above_limit: true,
            serving_since: Timestamp::default(),
        };
        assert_eq!((policy.admission_policy(), policy.lmdb().policy), (expected, expected));
    }

    #[test]
    fn redis_settings_follow_the_configuration() {
        let default = config(&[("STORE", "redis"), ("REDIS_URL", "redis://localhost")]).redis(None).unwrap();
        assert_eq!((default.timing, default.call_timeout), (ClusterTiming::default(), Duration::from_secs(5)));
        assert_eq!((&*default.prefix, default.node_name), ("sessions", host_name().unwrap_or("unnamed".into())));
        assert_eq!((default.user, default.password, default.ca, default.certificate), (None, None, None, None));
        let given = config(&[
            ("STORE", "redis"),
            ("REDIS_URL", "rediss://localhost/3"),
            ("REDIS_USER", "ada"),
            ("REDIS_PASSWORD_FILE", "there"),
            ("REDIS_CA", "ca"),
            ("REDIS_CERT", "cert"),
            ("REDIS_KEY", "key"),
            ("REDIS_PREFIX", "a:b"),
            ("NODE_NAME", "left"),
            ("NODE_BEAT", "1s"),
            ("NODE_FENCE", "5s"),
            ("NODE_LEASE", "6s"),
            ("STORE_TIMEOUT", "2s"),
            ("LIMIT", "7"),
        ]);
        let seconds = Duration::from_secs;
        let expected = RedisConfig {
            place: RedisPlace::Server("rediss://localhost/3".parse().unwrap()),
            replicas: 0,
            waits: false,
            user: Some("ada".into()),
            password: Some(RedisPassword::File("there".into())),
            ca: Some("ca".into()),
            certificate: Some(("cert".into(), "key".into())),
            prefix: "a:b".into(),
            timing: ClusterTiming::new(seconds(1), seconds(5), seconds(6), seconds(2)).unwrap(),
            call_timeout: seconds(2),
            node_name: "left".into(),
            policy: AdmissionPolicy::new(SlotLimit::new(7).unwrap()),
        };
        assert_eq!(given.redis(None).unwrap(), expected);
        assert!(matches!(config(&[]).redis(None), Err(RedisSettingsError::NoPlace)));
    }

    #[test]
    fn store_has_one_password() {
        let given = || Some(RedisPassword::Given(b"hunter2".into()));
        let file = ("REDIS_PASSWORD_FILE", "there");
        let user = ("REDIS_USER", "ada");
        let password = |keys: &[(&str, &str)], url: &str, password| {
            config(&[keys, &[("STORE", "redis"), ("REDIS_URL", url)]].concat()).redis(password)
        };
        let plain = "redis://localhost";
        for (keys, url, secret, expected) in [
            (&[][..], plain, None, None),
            (&[], plain, given(), given()),
            (&[user], plain, given(), given()),
            (&[file], plain, None, Some(RedisPassword::File("there".into()))),
            (&[], "redis://ada@localhost", given(), given()),
            (&[], "redis://:hunter2@localhost", None, None),
            (&[user], "redis://:hunter2@localhost", None, None),
        ] {
            assert_eq!(password(keys, url, secret).unwrap().password, expected, "{keys:?} {url}");
        }
        for (keys, url, secret, message) in [
            (&[file][..], plain, given(), "set only one password"),
            (&[], "redis://:hunter2@localhost", given(), "redis_url has a password"),
            (&[user], plain, None, "needs a password"),
            (&[], "redis://ada@localhost", None, "needs a password"),
        ] {
            let error = password(keys, url, secret).unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn message_bound_leaves_room_for_a_token_to_authenticate() {
        for (auth, given, before, after) in [
            ("open", "auto", 4096, 4096),
            ("jwt", "auto", 16_384, 4096),
            ("jwt", "1024", 1024, 1024),
            ("jwt", "100000", 100_000, 100_000),
            ("jwt", "unlimited", usize::MAX, usize::MAX),
        ] {
            let config = config(&[("AUTH", auth), ("MAX_MESSAGE_BYTES", given)]);
            let settings = config.connection_settings().unwrap();
            let bounds = (settings.max_unauthenticated_message_bytes, settings.max_message_bytes);
            assert_eq!(bounds, (Some(before), after), "{auth} {given}");
            assert!(config.fits_message(before) && (before == usize::MAX || !config.fits_message(before + 1)));
        }
    }

    #[test]
    fn key_source_is_one_secret_or_one_file() {
        let secret = || Some(Secret::new(b"a secret"));
        let source =
            |given: &[(&str, &str)], secret| config(given).key_source(secret).map_err(|error| error.to_string());
        assert_eq!(source(&[], secret()), Ok(KeySource::Secret(Secret::new(b"a secret"))));
        assert!(source(&[], None).unwrap_err().contains("SESSIONS_JWT_SECRET"));
        assert!(source(&[("JWT_SECRET_FILE", "there")], secret()).unwrap_err().contains("only one secret"));
        let there = || "there".into();
        for (key, file, secret) in [
            ("JWT_SECRET_FILE", KeySource::SecretFile(there()), None),
            ("JWT_PUBLIC_KEY_FILE", KeySource::PublicKeyFile(there()), None),
            ("JWT_KEY_SET_FILE", KeySource::KeySetFile(there()), None),
            // The secret is unused, and does no harm.
            ("JWT_PUBLIC_KEY_FILE", KeySource::PublicKeyFile(there()), secret()),
            ("JWT_KEY_SET_FILE", KeySource::KeySetFile(there()), secret()),
        ] {
            assert_eq!(source(&[(key, "there")], secret), Ok(file));
        }
    }

    #[test]
    fn verifier_has_the_configured_keys_and_claims() {
        let config = config(&[
            ("JWT_ALGORITHM", "HS384,HS512"),
            ("JWT_USER_CLAIM", "uid"),
            ("USER_ID_FORM", "nfc"),
            ("JWT_LIMIT_CLAIM", "/plan/seats"),
            ("JWT_DEVICE_CLAIM", "dev"),
            ("JWT_AUDIENCE", "chess,go"),
            ("JWT_ISSUER", "me"),
            ("JWT_LEEWAY", "5s"),
        ]);
        assert!(matches!(config.verifier(None), Err(VerifierError::NoSecret)));
        assert!(matches!(config.verifier(Some(Secret::new(b"short"))), Err(VerifierError::Keys(_))));
        let verifier = config.verifier(Some(Secret::new(&[b'x'; 64]))).unwrap();
        assert_eq!((&*verifier.keys.algorithm_names(), verifier.keys.count()), ("HS384, HS512", 1));
        let rules = TokenValidation {
            user_claim: "uid".parse().unwrap(),
            user_id_form: UserIdForm::Nfc,
            limit_claim: "/plan/seats".parse().unwrap(),
            device_claim: "dev".parse().ok(),
            audiences: vec!["chess".into(), "go".into()],
            issuers: vec!["me".into()],
            leeway: Duration::from_secs(5),
        };
        assert_eq!(verifier.rules, rules);
    }

    #[test]
    fn open_authentication_beyond_localhost_counts_as_open() {
        for (listen, auth, is_open) in [
            ("localhost:1", "open", false),
            ("127.0.0.1:1,[::1]:1", "open", false),
            ("127.0.0.1:1,192.0.2.1:1", "open", true),
            ("0.0.0.0:1", "open", true),
            ("[::]:1", "open", true),
            ("0.0.0.0:1", "jwt", false),
        ] {
            let config = config(&[("LISTEN", listen), ("AUTH", auth), ("ALLOW_OPEN_AUTH", "true")]);
            assert_eq!(config.is_open_to_the_network(), is_open, "{listen} {auth}");
        }
    }
}
