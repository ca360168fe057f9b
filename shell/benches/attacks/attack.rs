//! The attacks: what each connection of an attacker sends.

use std::time::Duration;

use anyhow::Result;

use crate::server::{Target, TargetServer};

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The addresses that it comes from.
    pub(crate) addresses: u8,
    /// The connections of all of them together.
    pub(crate) connections: usize,
    pub(crate) target: Target,
    /// How many sessions the user `full` holds from the probe's address.
    pub(crate) sessions_held: usize,
    script: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    EmptyFragments,
    ByteFragments,
    Denials,
    ListSessions,
    Pings,
    Hellos,
    BadTokens,
    BadRenewals,
}

/// What a connection sends. When it is closed, another one takes its place.
pub(crate) struct Script {
    /// Whether it opens a WebSocket first.
    pub(crate) upgrades: bool,
    /// What it sends once.
    pub(crate) opening: Vec<u8>,
    /// What it sends again and again.
    pub(crate) message: Vec<u8>,
    /// How often. `None`: as fast as the server takes it.
    pub(crate) per_second: Option<u32>,
    /// The number of messages after which it resets the connection.
    pub(crate) messages: Option<u32>,
}

/// A little below the default bound of 200 connections a second of one address.
pub(crate) const MAX_CONNECTS_PER_SECOND: u32 = 180;

/// A little below the default bound of 100 messages a second.
const ALLOWED_RATE: Option<u32> = Some(90);

/// After the last of these the server closes the connection, by its default bound of 16 bad messages.
const BAD_MESSAGES: Option<u32> = Some(17);

pub(crate) const ALL: [Attack; 14] = [
    attack("empty fragments, 100 connections", 1, 100, Target::PLAIN, Kind::EmptyFragments),
    attack("empty fragments, 900 connections", 1, 900, Target::PLAIN, Kind::EmptyFragments),
    attack("empty fragments, 10 addresses", 10, 1000, Target::PLAIN, Kind::EmptyFragments),
    attack("messages in one-byte fragments, 100 connections", 1, 100, Target::PLAIN, Kind::ByteFragments),
    Attack { sessions_held: 100, ..attack("denials, 100 connections", 1, 100, Target::HUNDRED, Kind::Denials) },
    Attack { sessions_held: 100, ..attack("denials, 900 connections", 1, 900, Target::HUNDRED, Kind::Denials) },
    attack("lists of 1,024 sessions, 8 addresses", 8, 1024, Target::UNLIMITED, Kind::ListSessions),
    attack("pings, 900 sessions", 1, 900, Target::UNLIMITED, Kind::Pings),
    attack("pings, 50 addresses", 50, 1000, Target::UNLIMITED, Kind::Pings),
    attack("TLS hellos, 50 addresses", 50, 50, Target::TLS, Kind::Hellos),
    attack("TLS hellos, RSA 4096", 1, 1, Target::TLS_RSA, Kind::Hellos),
    attack("TLS hellos, RSA 4096, 3 addresses", 3, 3, Target::TLS_RSA, Kind::Hellos),
    attack("bad RS512 tokens, 20 addresses", 20, 200, Target::TOKENS, Kind::BadTokens),
    attack("renewals with bad RS512 tokens, 900 sessions", 1, 900, Target::TOKENS, Kind::BadRenewals),
];

const fn attack(name: &'static str, addresses: u8, connections: usize, target: Target, script: Kind) -> Attack {
    Attack { name, addresses, connections, target, sessions_held: 0, script }
}

impl Attack {
    /// How long it takes to open the connections at the allowed rate.
    pub(crate) fn time_to_connect(&self) -> Duration {
        let per_second = f64::from(self.addresses) * f64::from(MAX_CONNECTS_PER_SECOND);
        Duration::from_secs_f64(self.connections as f64 / per_second + 0.5)
    }

    pub(crate) fn script(&self, server: &TargetServer) -> Result<Script> {
        let upgraded = Script {
            upgrades: true,
            opening: Vec::new(),
            message: Vec::new(),
            per_second: ALLOWED_RATE,
            messages: None,
        };
        let sign_in = authenticate("mallory");
        Ok(match self.script {
            Kind::EmptyFragments => Script {
                opening: frame(0x01, b""),
                message: frame(0x00, b"").repeat(2048),
                per_second: None,
                ..upgraded
            },
            Kind::ByteFragments => Script {
                message: [frame(0x01, b"x"), frame(0x00, b"x").repeat(4088), frame(0x80, b"x")].concat(),
                ..upgraded
            },
            Kind::Denials => {
                Script { message: text(r#"{"type":"AUTHENTICATE","payload":{"user":"full"}}"#), ..upgraded }
            }
            Kind::ListSessions => Script { opening: sign_in, message: text(r#"{"type":"LIST_SESSIONS"}"#), ..upgraded },
            Kind::Pings => Script { opening: sign_in, message: frame(0x89, b""), ..upgraded },
            Kind::Hellos => Script { upgrades: false, opening: server.client_hello()?, messages: Some(0), ..upgraded },
            Kind::BadTokens => {
                Script { message: authenticate(&server.bad_token()?), messages: BAD_MESSAGES, ..upgraded }
            }
            Kind::BadRenewals => Script {
                opening: authenticate(&server.attacker_credential()?),
                message: authenticate(&server.bad_token()?),
                messages: BAD_MESSAGES,
                ..upgraded
            },
        })
    }
}

fn authenticate(credential: &str) -> Vec<u8> {
    text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{credential}"}}"#))
}

/// A text message in one frame.
pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

/// A frame with this first byte, masked with zeros (RFC 6455 §5.2).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..126) => bytes.push(0x80 | length),
        Ok(_) | Err(_) => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).expect("messages of attacks are short").to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}
