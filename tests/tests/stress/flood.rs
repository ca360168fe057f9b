//! One address floods the server while another one authenticates. Only Linux has several loopback addresses for sure.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the times are printed, not checked")]

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::descriptors::enough_descriptors;
use tests::raw_client::{RawClient, connect_from};
use tests::test_process::TestProcess;

const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const SILENT: usize = 5000;
const SIGN_INS: u32 = 400;

/// 5,000 silent sockets, and then some 2,000 half-finished handshakes a second, from one address.
#[test]
fn flood_from_one_address_spares_other_addresses() {
    if !enough_descriptors(SILENT as u64 + 2000) {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = TestProcess::start_with_default_limits(env!("CARGO_BIN_EXE_server-under-test"), data.path(), &[]);
    let before = sign_ins(server.address);

    let silent: Vec<_> = (0..SILENT).filter_map(|_| connect_from(ATTACKER, server.address).ok()).collect();
    assert_eq!(silent.len(), SILENT, "the kernel takes them all");
    let (is_over, half_finished) = (AtomicBool::new(false), AtomicU32::new(0));
    let during = thread::scope(|scope| {
        scope.spawn(|| flood(server.address, &is_over, &half_finished));
        let during = sign_ins(server.address);
        is_over.store(true, Ordering::Relaxed);
        during
    });
    let half_finished = half_finished.into_inner();
    println!("connect to granted, before: {}", percentiles(&before));
    println!("beside {SILENT} silent sockets and {half_finished} half-finished handshakes: {}", percentiles(&during));
    assert!(half_finished > 1000, "too few handshakes for a flood: {half_finished}");
    drop(silent);
    sign_ins(server.address);
}

fn flood(address: SocketAddr, is_over: &AtomicBool, count: &AtomicU32) {
    let mut held = VecDeque::<TcpStream>::new();
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..20 {
            if let Ok(mut stream) = connect_from(ATTACKER, address) {
                // The server may refuse the connection before the write.
                let _written = stream.write_all(b"GET / HTTP/1.1\r\nHost: half");
                held.push_back(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        held.drain(..held.len().saturating_sub(1000));
        thread::sleep(Duration::from_millis(10));
    }
}

/// Authenticates and leaves, one user after another. Returns the sorted times until the grant.
fn sign_ins(address: SocketAddr) -> Vec<Duration> {
    let mut took: Vec<_> = (0..SIGN_INS)
        .map(|number| {
            let start = Instant::now();
            let mut session = RawClient::authenticated(address, &format!("user {number}"), 1);
            let took = start.elapsed();
            session.send_bye();
            thread::sleep(Duration::from_millis(5));
            took
        })
        .collect();
    took.sort_unstable();
    took
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
    format!("p50 {:.2?}, p99 {:.2?}, longest {:.2?}", at(50), at(99), at(100))
}
