//! Settings that name something else than what is there: the server does not start, and says what to name.

use std::process::Stdio;

use tests::redis_cluster::RedisCluster;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::redis_sentinels::{NAME, RedisSentinels};
use tests::test_process::{SpawnedProcess, without_connection_limits};

use super::{SERVER, Turn};

/// What a server says that does not start with these arguments.
fn refusal(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = without_connection_limits(SERVER);
    command.stderr(Stdio::piped()).args(["--store", "redis", "--redis-prefix", "test", "--store-timeout", "500ms"]);
    command.args(arguments);
    let failure = SpawnedProcess::spawn(command, directory.path()).listen().err();
    let failure = failure.unwrap_or_else(|| panic!("it starts with {arguments:?}"));
    failure.message
}

#[test]
fn wrong_kind_of_server_is_named() {
    let Some(_turn) = Turn::take() else { return };
    let (cluster, single, sentinels) =
        (RedisCluster::start(false), RedisProcess::start(&NOTHING_KEPT), RedisSentinels::start(1));
    let (of_cluster, single, watched) = (cluster.masters[0].url(), single.url(), &sentinels.servers);
    let (sentinel, gone) = (sentinels.sentinels[0].url(), RedisProcess::start(&NOTHING_KEPT).url());
    for (arguments, words) in [
        (vec!["--redis-url", &of_cluster], vec!["belongs to a cluster", "redis_cluster"]),
        (vec!["--redis-url", &sentinel], vec!["is a Sentinel", "redis_sentinels"]),
        (vec!["--redis-url", &watched[1].url()], vec!["is a replica", "primary"]),
        (vec!["--redis-cluster", &single], vec!["belongs to no cluster", "redis_url"]),
        (vec!["--redis-sentinels", &sentinel, "--redis-master", "nobody"], vec!["\"nobody\"", &sentinel]),
        (vec!["--redis-sentinels", &single, "--redis-master", NAME], vec!["is no Sentinel", "redis_url"]),
        (vec!["--redis-sentinels", &gone, "--redis-master", NAME], vec!["refused", &gone]),
        (vec!["--redis-cluster", &gone], vec!["refused", &gone]),
        (vec!["--redis-url", &gone], vec!["refused", &gone]),
    ] {
        let said = refusal(&arguments);
        let is_said_once = |word: &&str| said.matches(word).count() == 1;
        assert!(words.iter().all(|word| said.contains(word)) && is_said_once(&words[0]), "{arguments:?}: {said}");
    }
}
