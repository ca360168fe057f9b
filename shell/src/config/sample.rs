//! A table with a key of every kind, for tests.

use std::path::PathBuf;

use super::StoreKind;
use super::key::settings;
use super::value::{Bound, at_least_one, bound, choice, list, number, optional, path, switch, text};

settings! {
    /// The configuration of tests.
    pub(crate) struct Sample;

    "Ports" {
        /// Ports, 1 to 65535
        ports: Vec<u16> { reader: at_least_one(list(number(1..=65_535))), value: "PORT", default: "80", applies: AtOnce }
    }

    "Access" {
        /// Accepted origins
        origins: Vec<String> { reader: list(text()), value: "ORIGIN", default: "", applies: AtOnce }

        /// Accept every client,
        /// at any time
        may_be_open: bool { reader: switch(), value: "WHETHER", default: "false", applies: AfterRestart }

        /// The certificate to present
        certificate: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// Maximum clients, 1 to 10, or `unlimited`
        most: Bound { reader: bound(1..=10), value: "N", default: "unlimited", applies: AtOnce }

        /// Where clients are stored
        kind: StoreKind { reader: choice(), value: "KIND", default: "lmdb", applies: AtOnce }
    }
}
