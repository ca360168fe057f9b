//! `server token` and `server check-token`: tokens for development, and what is wrong with one.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use session_core::{Limit, UserId};

use super::flags::Flags;
use super::rule::duration_within;
use super::{Loaded, Sources};
use crate::clock::Clock;
use crate::tokens::{Grant, explain, mint};

/// What `server token` is asked for.
#[derive(Debug, Args)]
pub(super) struct Make {
    /// Whose token, 1 to 256 bytes without control characters
    #[arg(long, value_parser = UserId::parse)]
    user: UserId,
    /// How long it lasts, 1s to 100years
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    /// How many sessions the user may hold, 0 to 1024; without it the token does not say
    #[arg(long, value_name = "SESSIONS", value_parser = slots)]
    sessions: Option<Limit>,
    /// Which key it is signed with (kid), where the server has several
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The private key in PEM (PKCS #8) to sign with; not for HS256, HS384 and HS512, which use the server's secret
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// What `server check-token` is asked for.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file with the token; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// A token is far shorter.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

impl Make {
    pub(super) fn run(
        self,
        sources: &Sources,
        loaded: &Loaded,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<u8> {
        let Self { user, ttl, sessions, key_id, private_key, flags: _ } = self;
        let grant = Grant { user, lasts: ttl, limit: sessions, key_id, private_key };
        let config = &loaded.config;
        let source = match config.key_source(sources.secret()) {
            Ok(source) => source,
            Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
        };
        match mint(config.jwt_algorithm, &source, &config.token_rules(), &grant, Clock::start().wall()) {
            Ok(token) => writeln!(out, "{token}").map(|()| 0),
            Err(error) => writeln!(err, "error: {error}").map(|()| 1),
        }
    }
}

impl Check {
    pub(super) fn run(
        self,
        sources: &Sources,
        loaded: &Loaded,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<u8> {
        let token = match read(&self.file) {
            Ok(token) => token,
            Err(error) => return writeln!(err, "error: cannot read {}: {error}", self.file.display()).map(|()| 1),
        };
        let verifier = match loaded.config.verifier(sources.secret()) {
            Ok(verifier) => verifier,
            Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
        };
        match explain(&verifier, token.trim(), Clock::start().wall()) {
            Ok(text) => writeln!(out, "{text}").map(|()| 0),
            Err(text) => writeln!(out, "{text}").map(|()| 3),
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut token = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    } else {
        fs::File::open(file)?.take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    }
    Ok(token)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(31_557_600);
    duration_within(text, Duration::from_secs(1), 100 * YEAR)
}

fn slots(text: &str) -> Result<Limit, String> {
    let slots = text.parse::<u32>().map_err(|_| "expected a whole number, 0 to 1024".to_owned())?;
    Limit::new(slots).map_err(|error| error.to_string())
}
