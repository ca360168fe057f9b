//! `server nodes`: the servers that share the store, and the order to declare one dead.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use session_core::NodeId;

use super::admin_access;
use super::nodes_text::{describe, described_node};
use super::user_text::count;
use crate::admin::{AdminService, BurialReport, NodesReport, parse_node, socket};
use crate::config::flags::{DataDirFlags, Flags};
use crate::config::{Config, StoreKind};

/// The exit code if there is nothing to do.
const NOTHING_TO_DO: u8 = 6;

/// The arguments of `server nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<NodesCommand>,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// Declares another server dead at once: the others free its slots, and do not wait for `node_lease`
    #[command(after_help = BURY_HELP)]
    Bury(BuryArguments),
}

const BURY_HELP: &str = "\
Only for a server that certainly runs no more. If it still runs, its clients are cut at its next beat. Until then its \
users may have more sessions than the limit.

Exit codes: 0 done, 1 not done, or not known to be done, also without --yes, 2 wrong usage or configuration, 6 nothing \
to do: it is dead already, or has left.";

/// The arguments of `server nodes bury`.
#[derive(Debug, Args)]
struct BuryArguments {
    /// The id of the server, as `server nodes` shows it
    #[arg(value_name = "ID", value_parser = parse_node)]
    node: NodeId,
    /// Do it. Without this the command only says what it may do
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long = "json", id = "bury_json")]
    json: bool,
    #[command(flatten)]
    flags: DataDirFlags,
}

impl NodesArguments {
    /// The flags that stand behind `bury`.
    pub(crate) fn take_flags(&mut self) -> Flags {
        match &mut self.command {
            Some(NodesCommand::Bury(bury)) => std::mem::take(&mut bury.flags.0),
            None => Flags::default(),
        }
    }
}

/// Runs the command. Returns the exit code.
pub(crate) fn run(
    arguments: &NodesArguments,
    config: &Config,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let report = match smol::block_on(list(config)) {
        Ok(report) => report,
        Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
    };
    match &arguments.command {
        Some(NodesCommand::Bury(bury)) => run_bury(bury, arguments.json, &report, config, out, err),
        None if arguments.json => write_json(&report, out).map(|()| 0),
        None => write!(out, "{}", describe(&report)).map(|()| 0),
    }
}

async fn list(config: &Config) -> Result<NodesReport, String> {
    match config.store {
        // It has no socket to ask at.
        StoreKind::Memory => Ok(NodesReport::not_shared()),
        StoreKind::Lmdb | StoreKind::Redis => {
            let server = async || socket::list_nodes(&config.data).await;
            let store = async |service: &AdminService| service.list_nodes().await.map_err(|why| why.to_string());
            admin_access::ask(config, server, store).await
        }
    }
}

fn run_bury(
    bury: &BuryArguments,
    json_before: bool,
    nodes: &NodesReport,
    config: &Config,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let node = bury.node;
    // An id of nobody, this server's own, and one that is dead are the server's to refuse.
    let other =
        nodes.nodes.iter().find(|other| other.node == node.to_string() && !other.this && other.parts.beating() > 0);
    if let Some(other) = other
        && !bury.yes
    {
        let described = described_node(other, nodes.parts);
        writeln!(
            err,
            "warning: {described}. Declare it dead only if it certainly runs no more. If it still runs, its clients are cut at its \
             next beat, and until then its users may have more sessions than the limit. If it is dead, its slots become free by \
             themselves after node_lease.\nerror: nothing was done: give --yes to do it"
        )?;
        return Ok(1);
    }
    let server = async || socket::bury(&config.data, node).await;
    let store = async |service: &AdminService| service.bury(node).await.map_err(|why| why.to_string());
    match smol::block_on(admin_access::ask(config, server, store)) {
        Ok(report) => {
            let is_nothing = report.buried == 0 && report.open == 0;
            let is_open = report.open > 0;
            if bury.json || json_before {
                write_json(&report, out)?;
            } else {
                writeln!(out, "{}", describe_burial(&report))?;
            }
            Ok(if is_nothing { NOTHING_TO_DO } else { is_open.into() })
        }
        Err(error) => writeln!(err, "error: {error}").map(|()| 1),
    }
}

fn describe_burial(BurialReport { node, buried, open }: &BurialReport) -> String {
    match (buried, open) {
        (0, 0) => format!("nothing to do: {node} is dead already, or has left"),
        (buried, 0) => format!("done: {node} is dead in {}; the others free its slots now", count(buried, "part")),
        (buried, open) => format!(
            "not all done: {node} is dead in {}, and this server cannot say so yet in {open}; it goes on to try",
            count(buried, "part")
        ),
    }
}

fn write_json(report: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    let json = serde_json::to_string(report).expect("strings and numbers always serialise");
    writeln!(out, "{json}")
}
