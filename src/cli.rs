//! What the user may type. No I/O and no rules beyond the shape of a value: `config` judges what
//! was typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SpanRelativeTo;

use crate::verdict::Verdict;
use crate::wire::Network;

/// Tells who sent a TCP reset: this host, the peer, or a third party that forged it.
#[derive(Debug, Parser)]
#[command(name = "rstscope", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 no permission, 4 this kernel, driver or interface cannot,
130 ended at once by a second signal.
Records go to the outputs; progress, warnings and the closing summary go to standard error.";

/// The things that this program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch network interfaces and write one record per reset flow, until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Judge the resets in capture files (pcap, pcapng; `-` is standard input).
    Read(ReadArgs),
    /// Tell the story of one reset flow: what came, what speaks for whom, what to do next.
    Explain(ExplainArgs),
    /// List reset flows, one a line, with the `event.id` that `explain` takes.
    List(ListArgs),
    /// Say what this host can do, and what to change where it cannot.
    Doctor(DoctorArgs),
    /// Print the JSON Schema (draft 2020-12) of the records.
    Schema(SchemaArgs),
    /// Show the numbers of the sensors that run on this host.
    Stats(StatsArgs),
    /// Look at a configuration file, or write one.
    Config(ConfigArgs),
    /// Print the completions for a shell.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory; it must be there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

impl Command {
    /// What was typed for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Read(_) => "read",
            Self::Explain(_) => "explain",
            Self::List(_) => "list",
            Self::Doctor(_) => "doctor",
            Self::Schema(_) => "schema",
            Self::Stats(_) => "stats",
            Self::Config(_) => "config",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }
}

/// How `run` takes its look at a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Take SYN, FIN and RST frames, look at them, and hand them back to the interface.
    Inline,
    /// Look at copies; needs no XDP slot.
    Mirror,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Interface to watch; repeat for more.
    #[arg(long = "iface", value_name = "IF")]
    pub ifaces: Vec<String>,
    /// How to look at frames [default: inline].
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Where records go; repeat for more. `-`: a line each for a person on a terminal, JSON lines
    /// into a pipe; `file:///PATH`; `syslog+tcp://`, `syslog+tls://`, `syslog+udp://HOST:PORT`;
    /// `syslog+unix:///PATH`; `elastic+https://`, `splunk+https://`, `clickhouse+https://`,
    /// `loki+https://`, `https://HOST:PORT/PATH` (or http); `kafka://BROKERS/TOPIC`. Options follow
    /// a question mark: `?verdict=injected,forwarded&coverage=no`; docs/outputs.md tells of all
    /// [default: -].
    #[arg(long = "output", value_name = "URL", allow_hyphen_values = true)]
    pub outputs: Vec<String>,
    /// Where outputs keep records that a receiver does not take yet, a directory for each
    /// [default: /var/lib/rstscope/spool].
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// TOML file with any of these options as keys (`iface = ["eth0"]`, `settle = 1000`); the
    /// command line overrides it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Milliseconds without a further reset after which a flow is judged; 0 judges at once
    /// [default: 1000].
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub settle: Option<u64>,
    /// Connections that each worker remembers, 64 to 16777216 [default: 65536].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub flows: Option<u64>,
    /// Watch only the first N receive queues of each interface; the others pass by unseen, and
    /// are counted [default: all].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub queues: Option<u16>,
    /// Take the interfaces over from the rstscope that watches them, which then ends: no frame is
    /// lost and no moment unwatched. Name the same interfaces. Where none runs, start as usual.
    #[arg(long)]
    pub replace: bool,
    /// A device of your own: forged resets that look like its get its name. KEY is `mac`,
    /// `hop-limit` (a number or LOW-HIGH, as it arrives here), `ip-id` (`zero`, `counter`) or
    /// `address` (a network that it speaks for; may repeat). Repeat for more devices.
    #[arg(long = "own-device", value_name = "NAME=KEY=VALUE,…")]
    pub own_devices: Vec<String>,
    /// Serve numbers for Prometheus (`/metrics`, also as OpenMetrics) and for probes (`/healthz`, `/readyz`)
    /// over HTTP, without a password: name an address that only those may reach who may know them,
    /// such as 127.0.0.1:9477 [default: not served].
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Keep the privileges that the start needed, and all system calls and files: to find out whether
    /// confinement is in the way of something.
    #[arg(long)]
    pub unconfined: bool,
    /// Say nothing on standard error but warnings and errors.
    #[arg(short, long)]
    pub quiet: bool,
}

/// What an address to listen at looks like, where what was typed is none.
pub(crate) const ADDRESS_FORM: &str =
    "not an IP address and a port, such as 127.0.0.1:9477 or [::1]:9477";

fn address(typed: &str) -> Result<SocketAddr, &'static str> {
    typed.parse().map_err(|_| ADDRESS_FORM)
}

/// Arguments of `read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Capture files; `-` is standard input. Each is judged on its own.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Address or network (CIDR) that was the capturing host's own; repeat for more.
    #[arg(long = "local", value_name = "CIDR")]
    pub locals: Vec<String>,
    /// Where records go; repeat for more. `-`: a line each for a person on a terminal, JSON lines
    /// into a pipe; `file:///PATH`; `syslog+tcp://`, `syslog+tls://`, `syslog+udp://HOST:PORT`;
    /// `syslog+unix:///PATH`; `elastic+https://`, `splunk+https://`, `clickhouse+https://`,
    /// `loki+https://`, `https://HOST:PORT/PATH` (or http); `kafka://BROKERS/TOPIC`. Options follow
    /// a question mark: `?verdict=injected,forwarded&coverage=no`; docs/outputs.md tells of all
    /// [default: -].
    #[arg(long = "output", value_name = "URL", allow_hyphen_values = true)]
    pub outputs: Vec<String>,
    /// Milliseconds (of the capture's time) without a further reset after which a flow is judged;
    /// 0 judges at once [default: 1000].
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub settle: Option<u64>,
    /// Connections that are remembered at a time [default: 65536].
    #[arg(long, value_name = "N", allow_negative_numbers = true, hide = true)]
    pub flows: Option<u64>,
    /// A device of your own: forged resets that look like its get its name. KEY is `mac`,
    /// `hop-limit` (a number or LOW-HIGH, as it arrives here), `ip-id` (`zero`, `counter`) or
    /// `address` (a network that it speaks for; may repeat). Repeat for more devices.
    #[arg(long = "own-device", value_name = "NAME=KEY=VALUE,…")]
    pub own_devices: Vec<String>,
    /// TOML file whose `[[own_device]]` tables are taken; nothing else of it is.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// After each record, tell the evidence with its weight in decibans; `-` then prints for a
    /// person even into a pipe.
    #[arg(short, long)]
    pub verbose: bool,
    /// Say nothing on standard error but warnings and errors.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Records that `run` or `read` wrote (JSON lines), or a capture; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// `event.id` of the record to explain [default: all of them].
    #[arg(value_name = "EVENT_ID")]
    pub event_id: Option<String>,
    /// Which records.
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// How a capture is read.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Records that `run` or `read` wrote (JSON lines), or captures; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Which records.
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// How a capture is read.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// Which records are told, of those that a file holds.
#[derive(Debug, Args)]
pub struct WantedArgs {
    /// Only this flow, either way: `192.0.2.1:443-198.51.100.2:51514`, `[::1]:80-[::2]:81`.
    #[arg(long, value_name = "A:P-B:P")]
    pub flow: Option<String>,
    /// Only flows of this address or network (CIDR), at either end.
    #[arg(long, value_name = "CIDR")]
    pub address: Option<Network>,
    /// Only these verdicts: `injected,forwarded`.
    #[arg(long, value_name = "VERDICT", value_delimiter = ',', value_parser = verdict)]
    pub verdict: Vec<Verdict>,
    /// Only what came at this time (`2026-11-23T09:18:00Z`) or later, or at the most so long ago (`30m`,
    /// `2h`, `1d`).
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Only what came before this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
}

/// An instant as somebody types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The instant (RFC 3339).
    At(jiff::Timestamp),
    /// So long before now.
    Ago(jiff::SignedDuration),
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        if let Ok(instant) = typed.parse() {
            return Ok(Self::At(instant));
        }
        let span: Option<jiff::Span> = typed.parse().ok();
        // Nobody who says `1d` at night means the hour that a clock was set by.
        span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
            .filter(|ago| !ago.is_negative())
            .map(Self::Ago)
            .ok_or("neither a time such as 2026-11-23T09:18:00Z nor a span before now such as 30m, 2h, 1d")
    }
}

fn verdict(typed: &str) -> Result<Verdict, String> {
    Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.name() == typed)
        .ok_or_else(|| {
            format!(
                "the verdicts are {}",
                Verdict::ALL.map(Verdict::name).join(", ")
            )
        })
}

/// How `explain` and `list` read a capture.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Of a capture: address or network (CIDR) that was the capturing host's own; repeat for more.
    #[arg(long = "local", value_name = "CIDR")]
    pub locals: Vec<String>,
    /// Of a capture: as in `read`.
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub settle: Option<u64>,
    /// Of a capture: as in `read`; repeat for more.
    #[arg(long = "own-device", value_name = "NAME=KEY=VALUE,…")]
    pub own_devices: Vec<String>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Interface to examine; repeat for more [default: all that are up].
    #[arg(long = "iface", value_name = "IF")]
    pub ifaces: Vec<String>,
    /// For which mode of `run` [default: inline].
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Only the sensor with this process id [default: all].
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What can be done with a configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Say whether `run --config FILE` would take it.
    Check {
        /// The file.
        #[arg(value_name = "FILE", default_value = "/etc/rstscope/rstscope.toml")]
        file: PathBuf,
    },
    /// Print a configuration with every option and its explanation.
    #[command(group = clap::ArgGroup::new("whose").args(["file", "defaults"]).required(true))]
    Print {
        /// The file whose values to print, with the defaults for what it leaves out.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print the defaults.
        #[arg(long)]
        defaults: bool,
    },
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which kind of record.
    #[arg(value_enum, default_value_t = RecordKind::Reset)]
    pub kind: RecordKind,
}

/// A kind of record: `event.dataset` behind `rstscope.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordKind {
    /// One reset flow, judged.
    Reset,
    /// What the sensor watched on one interface in one interval.
    Coverage,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
