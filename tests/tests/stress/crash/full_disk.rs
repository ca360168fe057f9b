//! The server is killed on a full disk.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use session_core::protocol::AuthenticateFailure;
use shell::client::{Connection, Error, Url};
use smol::block_on;
use tests::small_disk::SmallDisk;
use tests::test_process::StartFailure;
use tests::values::long_user_id;
use tests::waiting::eventually;

use super::account::*;
use super::load::*;
use super::random::*;
use super::server;

#[test]
fn killed_server_restarts_on_a_full_disk() {
    kill_on_a_full_disk(1024, "file", 9);
}

#[test]
fn killed_server_restarts_with_a_map_on_a_full_disk() {
    kill_on_a_full_disk(3072, "auto", 3);
}

fn kill_on_a_full_disk(kib: u32, live_writes: &str, rounds: u32) {
    let arguments = ["--live-writes", live_writes];
    let Some(disk) = SmallDisk::mount(kib) else {
        println!("skipped: mounting a file system is not allowed here");
        return;
    };
    let mut random = Random::from_environment();
    let data = disk.path().join("data");
    let (mut served, mut refused) = (0, 0);
    for round in 0..rounds {
        // Few slots in a new file, so that it has no reusable pages, or many in an old file.
        let users = if round % 2 == 0 { 0 } else { 100 };
        if users == 0 {
            std::fs::remove_dir_all(&data).unwrap_or_default();
        }
        let mut server = server::start(&data, &arguments);
        let url = server::url(&server);
        let mut witness = Account::new("witness".into());
        witness.fill(&url);
        let mut held: Vec<_> = (0..users).map(|number| sign_in(&url, &long_user_id(number)).unwrap().0).collect();
        disk.fill();
        held.extend(sign_in_until_full(&url, users));
        // No session is admitted, but releases succeed.
        block_on(witness.held.pop().unwrap().bye()).unwrap();
        eventually("the slot is free", || {
            block_on(witness.held[0].check_connections()).is_ok_and(|user| user.connections == 2)
        });
        let groups = Contenders::share(held, &mut random);
        load_and_kill(&mut server, groups, &mut random, |group| group.step(&url));

        // With free space, with the space that the server had reserved, and with none.
        match round % 3 {
            0 => disk.free(),
            1 => {}
            _ => disk.fill(),
        }
        let server = server::spawn(&data, &arguments);
        match server.listen() {
            Ok(server) => {
                served += 1;
                let url = server::url(&server);
                match sign_in(&url, "witness") {
                    Ok((_, connections)) => assert_eq!(connections, 1, "round {round}"),
                    Err(error) => assert!(round % 3 > 0 && is_store_error(&error), "round {round}: {error}"),
                }
                if round % 3 > 0 {
                    disk.free();
                }
                eventually("a session is admitted once there is room", || {
                    sign_in(&url, "newcomer").inspect_err(|error| assert!(is_store_error(error), "{error}")).is_ok()
                });
                check_all_users(&url);
            }
            Err(StartFailure { code, message }) => {
                refused += 1;
                assert!(round % 3 > 0, "there was room: {message}");
                assert_eq!(code, Some(1), "{message}");
                assert!(message.contains(data.to_str().unwrap()), "{message}");
                disk.free();
                check_all_users(&server::url(&server::start(&data, &arguments)));
            }
        }
    }
    println!("restarted after a kill on a full disk: {served} served, {refused} said why not");
}

fn check_all_users(url: &Url) {
    for number in (0..40).chain(100..110) {
        Account::new(long_user_id(number)).fill(url);
    }
}

/// Users that leave a full server, and others that try to authenticate.
struct Contenders {
    random: Random,
    held: Vec<Connection>,
}

impl Contenders {
    fn share(mut held: Vec<Connection>, random: &mut Random) -> Vec<Self> {
        let half = held.split_off(held.len() / 2);
        [held, half].map(|held| Self { random: random.fork(), held }).into()
    }

    fn step(&mut self, url: &Url) -> Result<(), Error> {
        if self.random.below(3) == 0
            && let Some(connection) = self.held.pop()
        {
            return block_on(connection.bye());
        }
        match sign_in(url, &long_user_id(1000 + self.random.below(1000))) {
            Ok((connection, _)) => self.held.push(connection),
            Err(Error::Denied { .. }) => {}
            Err(error) if is_store_error(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Authenticates one user after another until the store is full.
fn sign_in_until_full(url: &Url, first: u64) -> Vec<Connection> {
    const MOST: u64 = 6000;
    let mut held = Vec::new();
    for number in first..MOST {
        match sign_in(url, &long_user_id(number)) {
            Ok((connection, _)) => held.push(connection),
            Err(error) if is_store_error(&error) => return held,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{MOST} users were admitted and the store is not full");
}

fn is_store_error(error: &Error) -> bool {
    matches!(error, Error::Refused { reason: AuthenticateFailure::Store(_), .. })
}
