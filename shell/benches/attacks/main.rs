//! What attackers on a few addresses do to everybody else: a probe signs in 20 times a second from an address of its own, first
//! alone and then beside each attack, on a server with its default bounds. Beside an attack on the operator's socket, an
//! operator runs commands instead.
//!
//! ```sh
//! cargo bench -p shell -- attacks                      # every attack, some six minutes
//! cargo bench -p shell --bench attacks -- fragments    # those with this in their name
//! ```

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use shell::runtime::open_files::raise_limit;
use tests::processor_time::of_this_thread;

use crate::attack::{ALL, Attack};
use crate::attacker::Attacker;
use crate::operator::{OperatorAttack, SilentConnections};
use crate::probe::{Probe, Times};
use crate::server::{Target, TargetServer};

mod attack;
mod attacker;
mod operator;
mod probe;
mod server;

/// Prints how long a sign-in takes beside attacks from other addresses
#[derive(Parser)]
struct Arguments {
    /// Run the attacks with this in their name; `attacks` for all of them. Without it, none: they take six minutes, and
    /// `cargo bench` runs every benchmark
    #[arg(value_name = "NAME")]
    wanted: Option<String>,
    /// How long each attack lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The address of the probe. Attackers have 127.0.2.1 and on.
const PROBE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

fn main() -> Result<()> {
    let Arguments { wanted, seconds, bench: _ } = Arguments::parse();
    let is_wanted = |name: &str| wanted.as_ref().is_some_and(|wanted| wanted == "attacks" || name.contains(wanted));
    let attacks: Vec<_> = ALL.iter().filter(|attack| is_wanted(attack.name)).collect();
    let operator_attacks: Vec<_> = operator::ALL.iter().filter(|attack| is_wanted(attack.name)).collect();
    if attacks.is_empty() && operator_attacks.is_empty() {
        return Ok(());
    }
    raise_limit();
    let duration = Duration::from_secs(seconds);
    println!(
        "{:<44} {:>16} {:>16}  {:>7} {:>7} {:>8}",
        "", "quiet p50/p99", "beside p50/p99", "server", "attack", "failed"
    );
    for attack in attacks {
        run(attack, duration).with_context(|| format!("the attack {:?}", attack.name))?;
    }
    for attack in operator_attacks {
        run_beside_operator(attack, duration).with_context(|| format!("the attack {:?}", attack.name))?;
    }
    Ok(())
}

fn run(attack: &Attack, duration: Duration) -> Result<()> {
    let server = TargetServer::start(attack.target)?;
    let probe = Probe::new(&server, PROBE)?;
    let _held = probe.hold(attack.sessions_held)?;
    let quiet = probe.sign_in_for(duration / 2)?;
    let script = attack.script(&server)?;
    let mut attacker = Attacker::new(server.address(), attack.addresses, attack.connections, &script);
    // The attacker opens its connections first, at the rate that the server allows.
    attacker.run_until(Instant::now() + attack.time_to_connect());
    let beside = Beside::measure(&server, duration, |end| attacker.run_until(end), || probe.sign_in_for(duration))?;
    beside.print(attack.name, &quiet, duration);
    Ok(())
}

fn run_beside_operator(attack: &OperatorAttack, duration: Duration) -> Result<()> {
    let server = TargetServer::start(Target::PLAIN)?;
    let run_commands = |duration| operator::run_commands_for(&server, duration);
    let quiet = run_commands(duration / 2)?;
    let mut silent = SilentConnections::new(&server, attack.connections);
    silent.run_until(Instant::now() + duration / 10);
    let beside = Beside::measure(&server, duration, |end| silent.run_until(end), || run_commands(duration))?;
    beside.print(attack.name, &quiet, duration);
    Ok(())
}

/// What was measured beside an attack.
struct Beside {
    times: Times,
    server_cpu: Duration,
    attacker_cpu: Duration,
}

impl Beside {
    fn measure(
        server: &TargetServer,
        duration: Duration,
        attack_until: impl FnOnce(Instant) + Send,
        probe: impl FnOnce() -> Result<Times>,
    ) -> Result<Self> {
        std::thread::scope(|scope| {
            let end = Instant::now() + duration;
            let before = server.cpu()?;
            let attacking = scope.spawn(move || {
                let before = of_this_thread().unwrap_or_default();
                attack_until(end);
                of_this_thread().unwrap_or_default().saturating_sub(before)
            });
            let times = probe()?;
            let server_cpu = server.cpu()?.saturating_sub(before);
            let attacker_cpu = attacking.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))?;
            Ok(Self { times, server_cpu, attacker_cpu })
        })
    }

    fn print(&self, name: &str, quiet: &Times, duration: Duration) {
        let Self { times, server_cpu, attacker_cpu } = self;
        let percent = |cpu: &Duration| format!("{:.0} %", 100.0 * cpu.as_secs_f64() / duration.as_secs_f64());
        println!(
            "{name:<44} {:>16} {:>16}  {:>7} {:>7} {:>8}",
            millis(quiet),
            millis(times),
            percent(server_cpu),
            percent(attacker_cpu),
            format!("{}/{}", times.failed, times.failed + times.took.len()),
        );
        if let Some(failure) = &times.failure {
            println!("    one failed: {failure}");
        }
    }
}

fn millis(times: &Times) -> String {
    let at = |quantile| times.quantile(quantile).as_secs_f64() * 1e3;
    format!("{:.1} / {:.1} ms", at(0.5), at(0.99))
}
