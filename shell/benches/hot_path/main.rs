//! Measures the server against the floor: a bare server on the same libraries that does no work. Both run as processes, in
//! turns, under the same load from this process.
//!
//! ```sh
//! cargo bench -p shell                                      # about four minutes
//! cargo bench -p shell -- --full --save target/bench.json
//! ```

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use shell::net::tls::CertificateFiles;
use shell::runtime::open_files::raise_limit;
use shell::runtime::threads::one_per_core;

use crate::table::Table;

mod rows;
mod measure;
mod table;
mod process;
mod system_calls;
mod stock;
mod floor;

/// Prints how the server compares with a bare one on the same libraries
#[derive(Parser)]
struct Arguments {
    /// Measure everything: also TLS, one thread beside more, as many idle sessions as there may be, and one thousand and ten
    /// million known users, for which it needs 2 GB of disk
    #[arg(long)]
    full: bool,
    /// Write the figures to this file, as JSON; a relative path begins at the root of the workspace
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Measure only what has this in its name: cycles, latency, tls, threads, memory, rush,
    /// contended, restart, storm, known, idle or cluster
    #[arg(value_name = "NAME")]
    only: Option<String>,
    /// Serve as the floor
    #[arg(long, hide = true)]
    floor: bool,
    /// The threads of the floor
    #[arg(long, hide = true, default_value_t = one_per_core())]
    threads: u16,
    /// The certificate of the floor
    #[arg(long, hide = true, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the floor's certificate
    #[arg(long, hide = true)]
    tls_key: Option<PathBuf>,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let Arguments { full, save, only, floor, threads, tls_cert, tls_key, bench: _ } = Arguments::parse();
    if floor {
        let tls = tls_cert.zip(tls_key).map(|(certificate, key)| CertificateFiles { certificate, key });
        return floor::serve(threads, tls.as_ref());
    }
    // Servers inherit the limit. If it stays too low, opening connections fails with an error.
    raise_limit();
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let save = save.map(|file| create(&file)).transpose()?;
    let mut table = Table::new();
    for (name, row) in rows::ALL {
        let is_wanted = only.as_ref().map_or(full || !rows::is_long(name), |only| name.contains(only.as_str()));
        if is_wanted {
            let directory = directory.path().join(name);
            fs::create_dir(&directory)?;
            row(&measure::Bench { threads, directory }, &mut table).with_context(|| format!("measuring {name}"))?;
        }
    }
    if let Some(mut file) = save {
        file.write_all(table.to_json().as_bytes()).context("cannot write the figures")?;
    }
    Ok(())
}

/// Creates the file before anything is measured, so that an error comes early.
fn create(path: &Path) -> Result<File> {
    // Cargo runs a benchmark in the directory of its package.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a workspace")?.join(path);
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}
