//! The rights that the user of this server needs in the shared store.

use redis::{Connection, RedisError, RedisResult};

/// The commands that this server sends, and those of its scripts.
const COMMANDS: [&str; 27] = [
    "CLUSTER|KEYSLOT",
    "CLUSTER|SLOTS",
    "DEL",
    "EVALSHA",
    "EXISTS",
    "GET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HLEN",
    "HMGET",
    "HSCAN",
    "HSET",
    "INFO",
    "MGET",
    "PING",
    "PUBLISH",
    "SADD",
    "SCRIPT|LOAD",
    "SELECT",
    "SET",
    "SMEMBERS",
    "SREM",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "WAIT",
];

/// Which of the commands in ARGV the user may not run. The first of ARGV are a key and a channel, which are not used: so any server
/// of a cluster runs it.
const CHECK: &str = "#!lua flags=no-writes
local denied = {}
for i = 3, #ARGV do
  local name = ARGV[i]
  local of = (name == 'PUBLISH' or name == 'SUBSCRIBE') and ARGV[2] or ARGV[1]
  local is_allowed = name == 'INFO' and redis.acl_check_cmd(name) or redis.acl_check_cmd(name, of)
  if not is_allowed then denied[#denied + 1] = name end
end
return denied";

/// The rights that a user lacks.
pub(super) struct MissingRights {
    /// What the user may not do.
    pub denied: String,
    /// All rights that are needed, as `ACL SETUSER` takes them.
    pub needed: String,
}

/// Which rights the user lacks for all that this server has to do, before the first client comes.
pub(super) fn check(connection: &mut Connection, prefix: &str) -> RedisResult<Option<MissingRights>> {
    let hash: String = redis::cmd("SCRIPT").arg("LOAD").arg(CHECK).query(connection)?;
    let mut command = redis::cmd("EVALSHA");
    command.arg(hash).arg(0).arg(format!("{{{prefix}:0}}:rights")).arg(format!("{prefix}:node:rights"));
    // Without some of these the script would not run. The others are sent seldom, or by few.
    let unchecked = ["EVALSHA", "PING", "SELECT", "UNSUBSCRIBE", "WAIT"];
    let checked: Vec<&str> =
        COMMANDS.into_iter().filter(|name| !unchecked.contains(name) && !name.contains('|')).collect();
    command.arg(&checked);
    let denied: Vec<String> = command.query(connection)?;
    let on_what = |name: &String| match name.as_str() {
        "PUBLISH" | "SUBSCRIBE" => format!("{name} on the channels {prefix}:node:*"),
        name => name.to_owned(),
    };
    let needs_key = |name: &&&str| !["INFO", "PUBLISH", "SUBSCRIBE"].contains(name);
    let (with_key, without): (Vec<_>, Vec<_>) = denied.iter().partition(|name| needs_key(&&name.as_str()));
    // If all of them are denied, then for the key.
    let are_keys = with_key.len() == checked.iter().filter(needs_key).count();
    let keys = are_keys.then(|| format!("one of the keys {{{prefix}:*"));
    let with_key = with_key.into_iter().filter(|_| !are_keys);
    let denied: Vec<_> = keys.into_iter().chain(with_key.chain(without).map(on_what)).collect();
    Ok((!denied.is_empty()).then(|| MissingRights { denied: denied.join(", "), needed: needed(prefix) }))
}

/// The rights that the user lacks, if that is what this error says.
pub(super) fn missing(error: &RedisError, prefix: &str) -> Option<MissingRights> {
    let denied = || error.detail().unwrap_or("a command").to_owned();
    (error.code() == Some("NOPERM")).then(|| MissingRights { denied: denied(), needed: needed(prefix) })
}

fn needed(prefix: &str) -> String {
    let commands = COMMANDS.map(|name| format!("+{}", name.to_lowercase()));
    format!("'~{{{prefix}:*' '&{prefix}:node:*' {}", commands.join(" "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::script::Script;
    use super::*;

    #[test]
    fn commands_of_all_scripts_are_listed() {
        let sources = Script::ALL.map(Script::source).join("\n");
        let called: BTreeSet<_> =
            sources.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        let unlisted: Vec<_> = called.into_iter().filter(|name| !COMMANDS.contains(name)).collect();
        assert_eq!(unlisted, [""; 0]);
    }
}
