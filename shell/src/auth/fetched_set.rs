//! A key set from a provider, and the file that keeps the last one over a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use session_core::UnixSeconds;

use crate::auth::key_provider::KeyProvider;
use crate::auth::provider_client::{Answer, fetch};
use crate::auth::provider_url::ProviderUrl;

/// A key set as it came from its provider. It has public keys only, so it is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchedSet {
    pub(super) provider: KeyProvider,
    /// Where it came from.
    pub(super) url: ProviderUrl,
    pub(super) json: Arc<[u8]>,
    pub(super) at: UnixSeconds,
    /// How long it stays fresh, if the provider has said so.
    pub(super) lifetime: Option<Duration>,
}

/// The file's content. It says for which provider it is, so that another one's keys are never taken for its own.
#[derive(Serialize, Deserialize)]
struct Stored {
    provider: String,
    url: String,
    fetched_at: u64,
    key_set: String,
}

/// The longest file: every byte of the set may be escaped.
const MAX_FILE_BYTES: u64 = 2 << 20;

impl FetchedSet {
    /// Fetches it. Blocks for some seconds at most.
    pub(super) fn fetch(provider: &KeyProvider, at: UnixSeconds) -> Result<Self, String> {
        let Answer { body, url, lifetime } = fetch(provider)?;
        Ok(Self { provider: provider.clone(), url, json: body.into(), at, lifetime })
    }

    /// The last set of this provider that was saved. `None` if there is none.
    pub(super) fn load(provider: &KeyProvider, file: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match fs::File::open(file) {
            Ok(opened) => opened.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Stored { provider: of, url, fetched_at, key_set } = serde_json::from_slice(&bytes)?;
        let url = url.parse().map_err(io::Error::other)?;
        let (json, at) = (key_set.into_bytes().into(), UnixSeconds::from_unix_seconds(fetched_at));
        Ok((of == provider.to_string()).then(|| Self { provider: provider.clone(), url, json, at, lifetime: None }))
    }

    /// Saves it in place of the one before: as a whole, or not at all.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let stored = Stored {
            provider: self.provider.to_string(),
            url: self.url.to_string(),
            fetched_at: self.at.unix_seconds(),
            key_set: String::from_utf8_lossy(&self.json).into_owned(),
        };
        let next = file.with_extension("json.new");
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        opened.write_all(&serde_json::to_vec(&stored)?)?;
        // Otherwise a crash could leave an empty file.
        opened.sync_data()?;
        fs::rename(next, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key_provider::KeyEndpoint;

    fn provider(url: &str) -> KeyProvider {
        KeyProvider { endpoint: KeyEndpoint::KeySet(url.parse().unwrap()), ca: None }
    }

    #[test]
    fn saved_set_is_for_its_provider_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jwt_keys.json");
        let mine = provider("https://idp.example/keys");
        assert_eq!(FetchedSet::load(&mine, &file).unwrap(), None, "none was saved");
        let json: Arc<[u8]> = br#"{"keys":[]}"#.as_slice().into();
        let (url, at) = ("https://idp.example/keys".parse().unwrap(), UnixSeconds::from_unix_seconds(7));
        let set = FetchedSet { provider: mine.clone(), url, json, at, lifetime: None };
        for _ in 0..2 {
            set.save(&file).unwrap();
            assert_eq!(FetchedSet::load(&mine, &file).unwrap(), Some(set.clone()));
        }
        assert_eq!(FetchedSet::load(&provider("https://idp.example/other"), &file).unwrap(), None);
        let discovered = provider("https://idp.example/keys");
        let KeyEndpoint::KeySet(url) = discovered.endpoint else { panic!("it is a URL") };
        let discovered = KeyProvider { endpoint: KeyEndpoint::Issuer(url), ca: None };
        assert_eq!(FetchedSet::load(&discovered, &file).unwrap(), None);
        fs::write(&file, "half of a fi").unwrap();
        assert!(FetchedSet::load(&mine, &file).is_err());
        assert!(set.save(&directory.path().join("missing/jwt_keys.json")).is_err());
    }
}
