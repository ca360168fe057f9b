//! The format of the keys and scripts. Servers of different formats must not share a prefix: each would misread the keys of the others.
//!
//! The first server that opens the store writes the format, and each one compares it, for each connection. No expiry: the keys of a
//! format stay, too. After a store that has lost everything, the next connection or the next description writes it again.

use redis::{Connection, RedisError};
use serde::{Deserialize, Serialize};

/// What servers must have in common to share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    /// The number of [`FORMAT`].
    format: u32,
    /// In how many parts the users are.
    parts: u16,
}

/// Goes up with each change of keys or scripts after which servers before and after it would misread each other.
const FORMAT: u32 = 1;

/// The key of the format. It is on the shard of the first part, as what servers say of themselves.
pub(super) fn key(prefix: &str) -> String {
    format!("{{{prefix}:0}}:format")
}

/// Compares the format of the store with that of this server, and writes it if there is none. If it differs, the answer says how.
pub(super) fn conflict(connection: &mut Connection, prefix: &str, parts: u16) -> Result<Option<String>, RedisError> {
    let key = key(prefix);
    let own = serde_json::to_vec(&Format { format: FORMAT, parts }).expect("numbers always serialise");
    let read = |connection: &mut Connection| redis::cmd("GET").arg(&key).query::<Option<Vec<u8>>>(connection);
    let mut found = read(connection)?;
    if found.is_none() {
        match redis::cmd("SET").arg(&key).arg(&own).arg("NX").exec(connection) {
            // Another server may have been quicker.
            Ok(()) => found = read(connection)?,
            // Without memory nothing is written, but slots come back. Another connection writes it.
            Err(error) if is_out_of_memory(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.filter(|found| !is_same(found, &own)).map(|found| explain(&found, &key, prefix, parts)))
}

fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}

fn read(bytes: &[u8]) -> Option<Format> {
    serde_json::from_slice(bytes).ok()
}

fn is_same(found: &[u8], own: &[u8]) -> bool {
    read(found).is_some_and(|found| Some(found) == read(own))
}

/// What is there, what this server has, and what to do.
fn explain(found: &[u8], key: &str, prefix: &str, parts: u16) -> String {
    let found = match read(found) {
        Some(Format { format, parts }) => format!("format {format} with {parts} parts"),
        None => format!("the unknown format {:?}", String::from_utf8_lossy(&found[..found.len().min(100)])),
    };
    format!(
        "the keys with the prefix {prefix:?} have {found}, and this server has format {FORMAT} with {parts} parts: servers of \
         different versions use this prefix. Give this server another redis_prefix, or stop the others and then delete their keys, \
         which begin with {{{prefix}: (the format is in {key})"
    )
}

#[cfg(test)]
mod tests {
    use redis::Commands as _;

    use super::super::testing::RedisServer;
    use super::*;

    #[test]
    fn first_server_writes_the_format_and_others_compare_it() {
        let Some(server) = RedisServer::start() else { return };
        let mut connection = server.client().get_connection().unwrap();
        assert_eq!(conflict(&mut connection, "one", 64).unwrap(), None);
        assert_eq!(conflict(&mut connection, "one", 64).unwrap(), None);
        assert_eq!(connection.get::<_, String>("{one:0}:format").unwrap(), r#"{"format":1,"parts":64}"#);
        assert_eq!(conflict(&mut connection, "two", 32).unwrap(), None);
        // A store that has lost everything.
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
        assert_eq!(conflict(&mut connection, "one", 32).unwrap(), None);

        let message = |connection: &mut Connection| conflict(connection, "one", 64).unwrap().expect("a conflict");
        let text = message(&mut connection);
        assert!(text.contains("have format 1 with 32 parts, and this server has format 1 with 64 parts"), "{text}");
        assert!(text.contains("another redis_prefix") && text.contains("begin with {one: "), "{text}");
        for unknown in ["", "2", r#"{"format":"a"}"#] {
            let () = connection.set("{one:0}:format", unknown).unwrap();
            assert!(message(&mut connection).contains(&format!("the unknown format {unknown:?}")));
        }
        let () = connection.set("{one:0}:format", r#"{"format":1,"parts":64,"more":true}"#).unwrap();
        assert_eq!(conflict(&mut connection, "one", 64).unwrap(), None);
    }

    #[test]
    fn store_without_memory_is_opened_without_a_format() {
        let Some(server) = RedisServer::start() else { return };
        let mut connection = server.client().get_connection().unwrap();
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut connection).unwrap();
        assert_eq!(conflict(&mut connection, "one", 64).unwrap(), None);
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut connection).unwrap();
        assert_eq!(conflict(&mut connection, "one", 64).unwrap(), None);
        assert!(connection.exists::<_, bool>("{one:0}:format").unwrap());
    }
}
