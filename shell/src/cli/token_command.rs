//! `server token` makes tokens for development. `server check-token` checks one.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use session_core::ledger::SlotLimit;
use session_core::protocol::{ClientMessage, Credential};
use session_core::{DisplayName, UserId};

use crate::auth::{Keys, TokenRequest, explain, mint};
use crate::config::flags::Flags;
use crate::config::table::parse_limit;
use crate::config::{ConfigLoader, Loaded};
use crate::runtime::clock::Clock;
use crate::runtime::duration::duration_within;

/// The arguments of `server token`.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user, 1 to 256 bytes without control characters
    #[arg(long, value_parser = UserId::parse)]
    user: UserId,
    /// How long the token is valid, 1s to 100years
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_lifetime)]
    ttl: Duration,
    /// Maximum sessions of the user, 0 to 1024; `unlimited` is 1024. Without it the token has no limit claim
    #[arg(long, value_name = "SESSIONS", value_parser = parse_limit)]
    sessions: Option<SlotLimit>,
    /// The device, 1 to 64 characters without control characters. Needs `jwt_device_claim`, which names the claim
    #[arg(long, value_name = "NAME", value_parser = parse_device)]
    device: Option<DisplayName>,
    /// The id of the signing key (kid), if the server has several keys
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The private key to sign with, in PEM (PKCS #8). HS256, HS384 and HS512 use the server's secret instead
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// The arguments of `server check-token`.
#[derive(Debug, Args)]
pub(super) struct CheckTokenArgs {
    /// The file with the token; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// The maximum that is read from a file. A token is far shorter.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

impl TokenArgs {
    /// The token, and the exit code.
    pub(super) fn make_token(self, loader: &ConfigLoader, loaded: &Loaded) -> Result<(String, u8), String> {
        let Self { user, ttl, sessions, device, key_id, private_key, flags: _ } = self;
        let request = TokenRequest { user, lifetime: ttl, limit: sessions, device, key_id, private_key };
        let config = &loaded.config;
        let keys = config.key_source(loader.secret()).map_err(|error| error.to_string())?;
        let now = Clock::start().unix_seconds();
        let token = mint(&config.jwt_algorithm, &keys, &config.token_validation(), &request, now);
        token.map(|token| (token, 0)).map_err(|error| error.to_string())
    }
}

impl CheckTokenArgs {
    /// What is in the token and whether it is accepted, and the exit code. Asks for the token on `err`, if it comes from a
    /// terminal.
    pub(super) fn check_token(
        self,
        loader: &ConfigLoader,
        loaded: &Loaded,
        err: &mut impl Write,
    ) -> Result<(String, u8), String> {
        if self.file == Path::new("-") && io::stdin().is_terminal() {
            writeln!(err, "paste the token, then press Enter and Ctrl-D").map_err(|error| error.to_string())?;
        }
        let token = read(&self.file).map_err(|error| format!("cannot read {}: {error}", self.file.display()))?;
        let mut verifier = loaded.config.verifier(loader.secret()).map_err(|error| error.to_string())?;
        let now = Clock::start().unix_seconds();
        if let Some(provider) = verifier.keys.provider() {
            let keys = Keys::fetch(verifier.keys.algorithms(), provider, now);
            verifier.keys = keys.map_err(|error| error.to_string())?;
        }
        let bytes = ClientMessage::Authenticate(Credential::new(token.trim())).encode().len();
        match explain(&verifier, token.trim(), now) {
            Ok(text) if !loaded.config.fits_message(bytes) => {
                let max = loaded.config.max_authenticate_bytes();
                Ok((format!("{text}\nbut refused: its message has {bytes} bytes, max_message_bytes is {max}"), 3))
            }
            Ok(text) => Ok((text, 0)),
            Err(text) => Ok((text, 3)),
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

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(31_557_600);
    duration_within(text, Duration::from_secs(1), 100 * YEAR)
}

fn parse_device(text: &str) -> Result<DisplayName, String> {
    DisplayName::parse(text).ok_or_else(|| "expected 1 to 64 characters without control characters".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Action, Arguments};

    const SECRET: &str = "a secret that is long enough for HS256";

    /// The exit code and both outputs, with this secret in the environment.
    fn run(secret: &str, arguments: &[&str]) -> Result<(u8, String, String), String> {
        let arguments =
            Arguments::from_command_line(["server"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let environment = [("SESSIONS_JWT_SECRET".into(), secret.into())];
        let Action::Exit(code) = arguments.run(environment, &mut out, &mut err) else { panic!("it does not serve") };
        Ok((code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    }

    #[test]
    fn made_token_has_its_lifetime_limit_and_device() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let name = file.to_str().unwrap();
        let make = ["token", "--user", "ada", "--ttl", "90s", "--sessions", "2", "--key-id", "mine"];
        let (code, token, err) = run(SECRET, &make).unwrap();
        assert_eq!((code, &*err), (0, ""));
        fs::write(&file, format!(" {token}\n")).unwrap();

        let (code, out, err) = run(SECRET, &["check-token", name]).unwrap();
        assert_eq!((code, &*err), (0, ""));
        assert!(out.contains("key \"mine\"") && out.contains("accepted: user \"ada\", with a limit of 2"), "{out}");
        assert!(out.contains("for another 1m 30s") || out.contains("for another 1m 29s"), "{out}");
        assert!(out.contains("\"exp\": ") && out.ends_with('\n'), "{out}");

        let (code, out, _) = run(SECRET, &["check-token", name, "--max-message-bytes", "1024"]).unwrap();
        assert!(code == 0 && !out.contains("but"), "{out}");
        let long = ["token", "--user", &"u".repeat(256), "--key-id", &"k".repeat(700), "--sessions", "0"];
        let (_, token, _) = run(SECRET, &long).unwrap();
        fs::write(&file, token).unwrap();
        let (code, out, _) = run(SECRET, &["check-token", name, "--max-message-bytes", "1024"]).unwrap();
        assert!(code == 3 && out.contains("but refused: its message has 1"), "{out}");
        let (code, out, _) = run(SECRET, &["check-token", name]).unwrap();
        assert!(code == 0 && out.ends_with("; with a limit of 0 it never gets a session\n"), "{out}");

        let with_device = ["token", "--user", "ada", "--device", "laptop", "--jwt-device-claim", "dev"];
        let (_, token, _) = run(SECRET, &with_device).unwrap();
        fs::write(&file, token).unwrap();
        let (code, out, _) = run(SECRET, &["check-token", name, "--jwt-device-claim", "dev"]).unwrap();
        assert!(code == 0 && out.contains("\"dev\": \"laptop\"") && out.contains(", on device \"laptop\", "), "{out}");

        let (code, out, err) = run("another secret that is long enough", &["check-token", name]).unwrap();
        assert_eq!((code, &*err), (3, ""));
        assert!(out.contains("refused: Token's signature is not valid"), "{out}");
        let (code, out, _) = run(SECRET, &["check-token", name, "--jwt-audience", "chess"]).unwrap();
        assert!(code == 3 && out.contains("(jwt_audience is chess)"), "{out}");
    }

    #[test]
    fn missing_key_or_file_is_an_error() {
        for (secret, arguments, message) in [
            ("", &["token", "--user", "ada"][..], "the secret for tokens is missing"),
            ("", &["check-token", "/dev/null"], "the secret for tokens is missing"),
            ("short", &["token", "--user", "ada"], "it has 5 bytes, at least 32 are needed"),
            (SECRET, &["token", "--user", "ada", "--device", "x"], "no claim names the device"),
            (SECRET, &["check-token", "/missing"], "cannot read /missing: "),
        ] {
            let (code, out, err) = run(secret, arguments).unwrap();
            assert_eq!((code, &*out), (1, ""));
            assert!(err.starts_with("error: ") && err.contains(message), "{err}");
        }
        let (code, _, err) = run(SECRET, &["token", "--user", "ada", "--limit=1", "--tls-cert", "x"]).unwrap();
        assert!(code == 2 && err.contains("a certificate needs its key"), "{err}");
    }

    #[test]
    fn lifetime_and_limit_have_bounds() {
        assert_eq!(parse_lifetime("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_lifetime("100years"), Ok(Duration::from_secs(3_155_760_000)));
        for text in ["999ms", "0s", "101years"] {
            assert_eq!(parse_lifetime(text), Err("it must be 1s to 100years".into()));
        }
        assert_eq!(["0", "1024", "unlimited"].map(|text| parse_limit(text).unwrap().slots()), [0, 1024, 1024]);
        for (text, message) in [("1025", "the most is 1024"), ("-1", "expected a whole number"), ("x", "0 to 1024")] {
            assert!(parse_limit(text).unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn read_stops_at_the_maximum() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1 << 20);
    }
}
