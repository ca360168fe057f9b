//! A table with a key of every kind, for tests.

use std::path::PathBuf;

use super::StoreKind;
use super::key::settings;
use super::value::{Bound, at_least_one, bound, choice, list, number, optional, path, switch, text};

settings! {
    /// What is set in tests.
    pub(crate) struct Sample;

    "Ports" {
        /// Ports, 1 to 65535
        ports: Vec<u16> { rule: at_least_one(list(number(1..=65_535))), value: "PORT", default: "80", applies: AtOnce }
    }

    "Doors" {
        /// Who may come in
        origins: Vec<String> { rule: list(text()), value: "ORIGIN", default: "", applies: AtOnce }

        /// Whether anybody may come in,
        /// at any time
        may_be_open: bool { rule: switch(), value: "WHETHER", default: "false", applies: AfterRestart }

        /// What to show
        certificate: Option<PathBuf> { rule: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// How many may come, 1 to 10, or `unlimited`
        most: Bound { rule: bound(1..=10), value: "N", default: "unlimited", applies: AtOnce }

        /// Where they are kept
        kind: StoreKind { rule: choice(), value: "KIND", default: "lmdb", applies: AtOnce }
    }
}
