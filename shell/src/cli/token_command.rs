//! `server token` and `server check-token`: tokens for development, and what is wrong with one.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use session_core::ledger::SlotLimit;
use session_core::protocol::{ClientMessage, Credential};
use session_core::{DisplayName, UserId};

use crate::auth::{TokenRequest, explain, mint};
use crate::config::flags::Flags;
use crate::config::table::limit;
use crate::config::value::duration_within;
use crate::config::{ConfigLoader, Loaded};
use crate::runtime::clock::Clock;

/// What `server token` is asked for.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Whose token, 1 to 256 bytes without control characters
    #[arg(long, value_parser = UserId::parse)]
    user: UserId,
    /// How long it lasts, 1s to 100years
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    /// How many sessions the user may hold, 0 to 1024, `unlimited` being 1024; without it the token does not say
    #[arg(long, value_name = "SESSIONS", value_parser = limit)]
    sessions: Option<SlotLimit>,
    /// Which device it is for, where `jwt_device_claim` says by which claim; 1 to 64 bytes without control characters
    #[arg(long, value_name = "NAME", value_parser = device)]
    device: Option<DisplayName>,
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
pub(super) struct CheckTokenArgs {
    /// The file with the token; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// A token is far shorter.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

impl TokenArgs {
    pub(super) fn run(
        self,
        sources: &ConfigLoader,
        loaded: &Loaded,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<u8> {
        let Self { user, ttl, sessions, device, key_id, private_key, flags: _ } = self;
        let grant = TokenRequest { user, lifetime: ttl, limit: sessions, device, key_id, private_key };
        let config = &loaded.config;
        let source = match config.key_source(sources.secret()) {
            Ok(source) => source,
            Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
        };
        match mint(config.jwt_algorithm, &source, &config.token_validation(), &grant, Clock::start().unix_seconds()) {
            Ok(token) => writeln!(out, "{token}").map(|()| 0),
            Err(error) => writeln!(err, "error: {error}").map(|()| 1),
        }
    }
}

impl CheckTokenArgs {
    pub(super) fn run(
        self,
        sources: &ConfigLoader,
        loaded: &Loaded,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<u8> {
        if self.file == Path::new("-") && io::stdin().is_terminal() {
            writeln!(err, "paste the token, then press Enter and Ctrl-D")?;
        }
        let token = match read(&self.file) {
            Ok(token) => token,
            Err(error) => return writeln!(err, "error: cannot read {}: {error}", self.file.display()).map(|()| 1),
        };
        let verifier = match loaded.config.verifier(sources.secret()) {
            Ok(verifier) => verifier,
            Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
        };
        let message = ClientMessage::Authenticate(Credential::new(token.trim())).encode();
        match explain(&verifier, token.trim(), Clock::start().unix_seconds()) {
            Ok(text) if !loaded.config.fits_message(message.len()) => {
                let (bytes, most) = (message.len(), loaded.config.max_message_bytes);
                writeln!(out, "{text}\nbut refused: its message has {bytes} bytes, max_message_bytes is {most}")
                    .map(|()| 3)
            }
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

fn device(text: &str) -> Result<DisplayName, String> {
    DisplayName::parse(text).ok_or_else(|| "expected 1 to 64 bytes without control characters".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{Action, Arguments};

    const SECRET: &str = "a secret that is long enough for HS256";

    /// The exit code and both outputs, by this secret in the environment.
    fn run(secret: &str, arguments: &[&str]) -> Result<(u8, String, String), String> {
        let arguments = Arguments::try_parse_from(["server"].iter().chain(arguments)).map_err(|why| why.to_string())?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let environment = [("SESSIONS_JWT_SECRET".into(), secret.into())];
        let Action::Exit(code) = arguments.run(environment, &mut out, &mut err) else { panic!("it ends") };
        Ok((code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    }

    #[test]
    fn a_token_that_is_made_is_good_for_as_long_as_it_was_to_be_and_says_how_many() {
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
    fn what_is_in_the_way_of_a_token_is_said_in_words() {
        for (secret, arguments, words) in [
            ("", &["token", "--user", "ada"][..], "there is no secret that tokens are signed with"),
            ("", &["check-token", "/dev/null"], "there is no secret that tokens are signed with"),
            ("short", &["token", "--user", "ada"], "it has 5 bytes, at least 32 are needed"),
            (SECRET, &["token", "--user", "ada", "--device", "x"], "no claim names the device"),
            (SECRET, &["check-token", "/missing"], "cannot read /missing: "),
        ] {
            let (code, out, err) = run(secret, arguments).unwrap();
            assert_eq!((code, &*out), (1, ""));
            assert!(err.starts_with("error: ") && err.contains(words), "{err}");
        }
        let (code, _, err) = run(SECRET, &["token", "--user", "ada", "--limit=1", "--tls-cert", "x"]).unwrap();
        assert!(code == 2 && err.contains("a certificate needs its key"), "{err}");
    }

    #[test]
    fn a_token_lasts_a_second_at_least_and_a_century_at_most_and_has_a_limit_that_there_is() {
        assert_eq!(lifetime("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(lifetime("100years"), Ok(Duration::from_secs(3_155_760_000)));
        for text in ["999ms", "0s", "101years"] {
            assert_eq!(lifetime(text), Err("it must be 1s to 100years".into()));
        }
        assert_eq!(["0", "1024", "unlimited"].map(|text| limit(text).unwrap().slots()), [0, 1024, 1024]);
        for (text, words) in [("1025", "the most is 1024"), ("-1", "expected a whole number"), ("x", "0 to 1024")] {
            assert!(limit(text).unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn no_more_than_a_token_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1 << 20);
    }
}
