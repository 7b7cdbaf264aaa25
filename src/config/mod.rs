//! What the user meant, complete and valid: the command line over the configuration file over the
//! defaults. Nothing behind this sees what was typed. It reads the configuration file and does no
//! other I/O.

mod error;
mod file;
mod own_device;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::cli::{
    CaptureArgs, Cli, Command, ConfigAction, DoctorArgs, Mode, ReadArgs, RecordKind, RunArgs,
    WantedArgs, When,
};
use crate::engine::Device;
use crate::record::schema::Dataset;
use crate::sink::{Style, Target};
use crate::time::{MILLISECOND, SECOND};
use crate::verdict::Verdict;
use crate::wire::Network;
pub use error::Error;
use file::{File, FileMode};
pub use own_device::DeviceError;
use own_device::FileDevice;
pub use table::{KEYS, Key, printed};

/// Settle time where none is said: long enough for trains of resets and for a peer that goes on
/// talking after one (docs/evidence.md), short enough for a person who waits.
const DEFAULT_SETTLE_NS: u64 = SECOND;
/// An hour; beyond that the milliseconds were probably meant as something else.
const LONGEST_SETTLE_MS: u64 = 3_600_000;
/// Connections that a flow table holds where none is said, of IPv4 and of IPv6 each: 4 MB and 6 MB,
/// used as far as there are flows.
const DEFAULT_FLOWS: usize = 1 << 16;
/// Bounds of `--flows`: below there is no room for one burst, above 2.6 GB a queue.
const FLOWS: std::ops::RangeInclusive<u64> = 64..=1 << 24;
/// Where spools are: the state directory that systemd and the file system hierarchy know.
const DEFAULT_SPOOL: &str = "/var/lib/rstscope/spool";
/// Longest interface name: IFNAMSIZ less its NUL (`include/uapi/linux/if.h`).
const LONGEST_INTERFACE: usize = 15;

/// A whole invocation.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// `run`.
    Run(RunConfig),
    /// `read`.
    Read(ReadConfig),
    /// `explain`.
    Explain(ExplainConfig),
    /// `doctor`.
    Doctor(DoctorConfig),
    /// `schema`, of that kind of record.
    Schema(Dataset),
    /// `stats`, of that process or of all.
    Stats(Option<u32>),
    /// `config check`, of that file, which is good.
    Checked(PathBuf),
    /// `config print`: the text.
    Printed(String),
    /// `completions`.
    Completions(Shell),
    /// `man`, into that folder.
    Man(PathBuf),
}

/// What `run` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// Interfaces by name; at least one, no name twice.
    pub interfaces: Vec<String>,
    /// How to look at frames.
    pub mode: Mode,
    /// Where records go; at least one.
    pub outputs: Vec<Target>,
    /// The folder of the outputs' spools.
    pub spool: PathBuf,
    /// Nanoseconds without a further reset after which an episode is judged.
    pub settle_ns: u64,
    /// Connections that each worker remembers.
    pub flow_capacity: usize,
    /// Receive queues that are watched; `None` for all.
    pub queue_limit: Option<u16>,
    /// Take over from the sensor that watches the interfaces now.
    pub replace: bool,
    /// Devices that give their name to the resets that they forge.
    pub own_devices: Vec<Device>,
    /// Where numbers are served over HTTP; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Keep all privileges after the start.
    pub unconfined: bool,
    /// Only warnings and errors on standard error.
    pub quiet: bool,
    /// What was typed, for reading the file again.
    pub typed: RunArgs,
}

/// What `read` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadConfig {
    /// Capture files; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Addresses that were the capturing host's own.
    pub local: Vec<Network>,
    /// Where records go; at least one.
    pub outputs: Vec<Target>,
    /// How text for a person looks.
    pub style: Style,
    /// Nanoseconds of capture time without a further reset after which an episode is judged.
    pub settle_ns: u64,
    /// Connections that are remembered at a time.
    pub flow_capacity: usize,
    /// Devices that give their name to the resets that they forge.
    pub own_devices: Vec<Device>,
    /// Only warnings and errors on standard error.
    pub quiet: bool,
}

/// How records are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// `explain`: the whole story of each.
    Stories,
    /// `list`: a line each.
    Lines,
}

/// What `explain` or `list` is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainConfig {
    /// The files, and how to read those that are captures.
    pub read: ReadConfig,
    /// Stories or lines.
    pub telling: Telling,
    /// Which records.
    pub wanted: Wanted,
}

/// Which records are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Only the record with this `event.id`.
    pub event_id: Option<String>,
    /// Only the flow between these, either way.
    pub flow: Option<(SocketAddr, SocketAddr)>,
    /// Only flows with an end in it.
    pub address: Option<Network>,
    /// Only these; all when empty.
    pub verdicts: Vec<Verdict>,
    /// Only what came then or later.
    pub since: Option<When>,
    /// Only what came before.
    pub until: Option<When>,
}

/// What `doctor` is to examine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorConfig {
    /// Interfaces by name; all that are up when empty.
    pub interfaces: Vec<String>,
    /// For which mode of `run`.
    pub mode: Mode,
}

impl Config {
    /// What the command line means; reads the file that `--config` names.
    ///
    /// # Errors
    ///
    /// [`Error`], each of them a matter of usage.
    pub fn resolve(cli: Cli) -> Result<Self, Error> {
        Ok(match cli.command {
            Command::Run(args) => Self::Run(Self::run_again(&args)?),
            Command::Read(args) => Self::Read(read(args)?),
            Command::Explain(args) => Self::Explain(ExplainConfig {
                telling: Telling::Stories,
                wanted: wanted(args.wanted, args.event_id)?,
                read: told(vec![args.file], args.capture)?,
            }),
            Command::List(args) => Self::Explain(ExplainConfig {
                telling: Telling::Lines,
                wanted: wanted(args.wanted, None)?,
                read: told(args.files, args.capture)?,
            }),
            Command::Doctor(DoctorArgs { ifaces, mode }) => Self::Doctor(DoctorConfig {
                interfaces: interfaces(ifaces)?,
                mode: mode.unwrap_or(Mode::Inline),
            }),
            Command::Schema(args) => Self::Schema(match args.kind {
                RecordKind::Reset => Dataset::Reset,
                RecordKind::Coverage => Dataset::Coverage,
            }),
            Command::Stats(args) => Self::Stats(args.pid),
            Command::Config(args) => match args.action {
                ConfigAction::Check { file } => {
                    Self::run_again(&RunArgs {
                        config: Some(file.clone()),
                        ..RunArgs::default()
                    })?;
                    Self::Checked(file)
                }
                ConfigAction::Print { file: None, .. } => Self::Printed(printed(None)),
                ConfigAction::Print {
                    file: Some(path), ..
                } => {
                    let text = file::text(&path)?;
                    file::parse(&text).map_err(|what| Error::Syntax(path, what))?;
                    Self::Printed(printed(text.parse().ok().as_ref()))
                }
            },
            Command::Completions { shell } => Self::Completions(shell),
            Command::Man { folder } => Self::Man(folder),
        })
    }

    /// What these arguments of `run` mean now: reads their configuration file, which may be another than
    /// the last time.
    ///
    /// # Errors
    ///
    /// [`Error`], each of them a matter of usage.
    pub fn run_again(args: &RunArgs) -> Result<RunConfig, Error> {
        let file = match &args.config {
            Some(path) => file::read(path)?,
            None => File::default(),
        };
        run(args.clone(), file)
    }
}

fn run(args: RunArgs, file: File) -> Result<RunConfig, Error> {
    let typed = args.clone();
    let named = interfaces(either(args.ifaces, file.iface))?;
    if named.is_empty() {
        return Err(Error::NoInterface);
    }
    let queue_limit = args.queues.or(file.queues);
    if queue_limit == Some(0) {
        return Err(Error::Range("--queues", 0, "at least 1"));
    }
    let file_mode = file.mode.map(|mode| match mode {
        FileMode::Inline => Mode::Inline,
        FileMode::Mirror => Mode::Mirror,
    });
    Ok(RunConfig {
        interfaces: named,
        mode: args.mode.or(file_mode).unwrap_or(Mode::Inline),
        outputs: outputs(either(args.outputs, file.output))?,
        spool: spool(args.spool.or(file.spool))?,
        settle_ns: settle(args.settle.or(file.settle))?,
        flow_capacity: flows(args.flows.or(file.flows))?,
        queue_limit,
        replace: args.replace || file.replace.unwrap_or(false),
        own_devices: devices(&args.own_devices, file.own_device)?,
        metrics: args.metrics.or(file.metrics),
        unconfined: args.unconfined || file.unconfined.unwrap_or(false),
        quiet: args.quiet || file.quiet.unwrap_or(false),
        typed,
    })
}

fn read(args: ReadArgs) -> Result<ReadConfig, Error> {
    if args
        .files
        .iter()
        .filter(|file| file.as_os_str() == "-")
        .count()
        > 1
    {
        return Err(Error::StandardInputTwice);
    }
    let local = args
        .locals
        .into_iter()
        .map(|text| text.parse().map_err(|error| Error::Local(text, error)))
        .collect::<Result<_, _>>()?;
    let file = match &args.config {
        Some(path) => file::read(path)?,
        None => File::default(),
    };
    Ok(ReadConfig {
        files: args.files,
        local,
        outputs: outputs(args.outputs)?,
        style: Style {
            verbose: args.verbose,
        },
        settle_ns: settle(args.settle)?,
        flow_capacity: flows(args.flows)?,
        own_devices: devices(&args.own_devices, file.own_device)?,
        quiet: args.quiet,
    })
}

fn wanted(args: WantedArgs, event_id: Option<String>) -> Result<Wanted, Error> {
    let flow = args
        .flow
        .map(|text| endpoints(&text).ok_or(Error::Flow(text)))
        .transpose()?;
    Ok(Wanted {
        event_id,
        flow,
        address: args.address,
        verdicts: args.verdict,
        since: args.since,
        until: args.until,
    })
}

/// How files are read whose records are told.
fn told(files: Vec<PathBuf>, args: CaptureArgs) -> Result<ReadConfig, Error> {
    read(ReadArgs {
        files,
        locals: args.locals,
        outputs: Vec::new(),
        settle: args.settle,
        flows: None,
        own_devices: args.own_devices,
        config: None,
        verbose: false,
        quiet: true,
    })
}

fn endpoints(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (one, other) = text.split_once('-')?;
    Some((one.trim().parse().ok()?, other.trim().parse().ok()?))
}

/// The command line's devices, then the file's: of two that match, the first is named.
fn devices(typed: &[String], file: Vec<FileDevice>) -> Result<Vec<Device>, Error> {
    let typed = typed
        .iter()
        .map(|text| own_device::parse(text).map_err(|error| Error::Device(text.clone(), error)));
    let file = file.into_iter().map(|device| {
        let name = device.name.clone();
        device.resolve().map_err(|error| Error::Device(name, error))
    });
    let devices: Vec<Device> = typed.chain(file).collect::<Result<_, _>>()?;
    for (at, device) in devices.iter().enumerate() {
        if devices
            .iter()
            .take(at)
            .any(|other| other.name == device.name)
        {
            return Err(Error::Twice("--own-device", device.name.clone()));
        }
    }
    Ok(devices)
}

/// The command line's list, or the file's when that is empty: they are never joined.
fn either(typed: Vec<String>, file: Vec<String>) -> Vec<String> {
    if typed.is_empty() { file } else { typed }
}

fn interfaces(names: Vec<String>) -> Result<Vec<String>, Error> {
    for (index, name) in names.iter().enumerate() {
        // The kernel's own rule: `dev_valid_name` in net/core/dev.c.
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let special = name.is_empty() || name == "." || name == "..";
        if special || name.len() > LONGEST_INTERFACE || name.contains(odd) {
            return Err(Error::Interface(name.clone()));
        }
        if names.iter().take(index).any(|before| before == name) {
            return Err(Error::Twice("--iface", name.clone()));
        }
    }
    Ok(names)
}

fn outputs(urls: Vec<String>) -> Result<Vec<Target>, Error> {
    if urls.is_empty() {
        return Ok(vec![Target::standard()]);
    }
    let mut targets: Vec<Target> = Vec::with_capacity(urls.len());
    for url in urls {
        let target = Target::parse(&url).map_err(|why| Error::Output(shown(&url), why))?;
        // Two outputs of one name would share a spool; `?name=` tells them apart.
        let taken = |other: &Target| {
            other.name == target.name || other.folder_name() == target.folder_name()
        };
        if targets.iter().any(taken) {
            return Err(Error::Twice("--output", target.name));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// A URL as it may be printed: whatever stands where a password would is not.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => url.to_owned(),
    }
}

fn spool(folder: Option<PathBuf>) -> Result<PathBuf, Error> {
    let folder = folder.unwrap_or_else(|| PathBuf::from(DEFAULT_SPOOL));
    if folder.is_absolute() {
        Ok(folder)
    } else {
        Err(Error::Spool(folder))
    }
}

fn settle(ms: Option<u64>) -> Result<u64, Error> {
    match ms {
        None => Ok(DEFAULT_SETTLE_NS),
        Some(ms) if ms <= LONGEST_SETTLE_MS => Ok(ms * MILLISECOND),
        Some(ms) => Err(Error::Range("--settle", ms, "0 to 3600000 milliseconds")),
    }
}

fn flows(count: Option<u64>) -> Result<usize, Error> {
    match count {
        None => Ok(DEFAULT_FLOWS),
        Some(count) => usize::try_from(count)
            .ok()
            .filter(|_| FLOWS.contains(&count))
            .ok_or(Error::Range("--flows", count, "64 to 16777216")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::file::parse as parse_file;
    use super::{Config, Error, RunConfig, run};
    use crate::cli::{Cli, Command, Mode};
    use crate::sink::Target;

    fn resolve(line: &str) -> Result<Config, Error> {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        Config::resolve(cli)
    }

    fn with_file(line: &str, text: &str) -> Result<RunConfig, Error> {
        let Command::Run(args) = Cli::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        else {
            panic!("not run");
        };
        run(args, parse_file(text).unwrap())
    }

    #[test]
    fn run_has_defaults_for_all_but_its_interface() {
        let Config::Run(config) = resolve("rstscope run --iface eth0").unwrap() else {
            panic!("not run");
        };
        assert_eq!(
            config,
            RunConfig {
                interfaces: vec!["eth0".to_owned()],
                mode: Mode::Inline,
                outputs: vec![Target::standard()],
                spool: "/var/lib/rstscope/spool".into(),
                settle_ns: 1_000_000_000,
                flow_capacity: 65536,
                queue_limit: None,
                replace: false,
                own_devices: Vec::new(),
                metrics: None,
                unconfined: false,
                quiet: false,
                typed: config.typed.clone(),
            }
        );
        assert!(matches!(resolve("rstscope run"), Err(Error::NoInterface)));
    }

    #[test]
    fn the_command_line_overrides_the_file_and_the_file_the_defaults() {
        let text = "iface = [\"a\", \"b\"]\nmode = \"mirror\"\noutput = [\"file:///x\"]\n\
                    settle = 5\nflows = 100\nqueues = 2\nquiet = true\n";
        let config = with_file("rstscope run", text).unwrap();
        assert_eq!(config.interfaces, ["a", "b"]);
        assert_eq!(config.mode, Mode::Mirror);
        assert_eq!(config.outputs, [Target::parse("file:///x").unwrap()]);
        assert_eq!((config.settle_ns, config.flow_capacity), (5_000_000, 100));
        assert_eq!((config.queue_limit, config.quiet), (Some(2), true));
        let line = "rstscope run --iface c --mode inline --output - --settle 0 --flows 64";
        let config = with_file(line, text).unwrap();
        assert_eq!(config.interfaces, ["c"]);
        assert_eq!(config.mode, Mode::Inline);
        assert_eq!(config.outputs, [Target::standard()]);
        assert_eq!((config.settle_ns, config.flow_capacity), (0, 64));
    }

    #[test]
    fn a_file_with_an_unknown_key_names_the_line_and_the_key() {
        let error = parse_file("settle = 1\nsetle = 2\n").unwrap_err();
        assert!(
            error.starts_with("line 2: ") && error.contains("setle"),
            "{error}"
        );
        assert!(parse_file("settle = \"soon\"").is_err());
        assert!(parse_file("settle = -1").is_err());
        assert!(parse_file("mode = \"tap\"").is_err());
    }

    #[test]
    fn outputs_are_standard_output_and_files_by_absolute_path() {
        for (url, ok) in [
            ("-", true),
            ("file:///var/log/r.jsonl", true),
            ("file://localhost/r", true),
            ("file://r", false),
            ("file:///", false),
            ("/var/log/r.jsonl", false),
            ("r.jsonl", false),
            ("syslog+tcp://h:1?verdict=injected", true),
            ("ftp://h", false),
            ("FILE:///x", false),
        ] {
            let result = resolve(&format!("rstscope read f --output {url}"));
            assert_eq!(result.is_ok(), ok, "{url}: {result:?}");
            if let Err(error) = result {
                let text = error.to_string();
                assert!(
                    text.contains("file:///PATH") && text.contains(url),
                    "{text}"
                );
            }
        }
        assert!(matches!(
            resolve("rstscope read f --output - --output -"),
            Err(Error::Twice("--output", _))
        ));
        let two = "rstscope read f --output https://h/a --output https://h/a?verdict=injected";
        assert!(matches!(resolve(two), Err(Error::Twice("--output", _))));
        assert!(resolve(&format!("{two}&name=second")).is_ok());
        let secret = resolve("rstscope read f --output https://u:hush@h").unwrap_err();
        assert!(!secret.to_string().contains("hush"), "{secret}");
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for line in [
            "rstscope run --iface eth0 --iface eth0",
            "rstscope run --iface a/b",
            "rstscope run --iface sixteen-bytes-ab",
            "rstscope run --iface ..",
            "rstscope run --iface e --settle 3600001",
            "rstscope run --iface e --spool relative",
            "rstscope run --iface e --flows 1",
            "rstscope run --iface e --flows 99999999999",
            "rstscope run --iface e --queues 0",
            "rstscope run --iface e --config /nowhere/at/all",
            "rstscope read f --local 10.0.0.1/8",
            "rstscope read - -",
            "rstscope read f --own-device fw",
            "rstscope read f --own-device fw=hop-limit=1 --own-device fw=hop-limit=2",
            "rstscope run --iface e --own-device fw=ttl=1",
            "rstscope explain f --flow 192.0.2.1:1",
        ] {
            assert!(resolve(line).is_err(), "{line}");
        }
        assert!(resolve("rstscope read f --local 10.0.0.0/8 --local ::1").is_ok());
    }

    #[test]
    fn own_devices_are_those_of_the_command_line_and_of_the_file() {
        let text = "iface = [\"a\"]\n[[own_device]]\nname = \"fw2\"\nhop_limit = 61\n";
        let config = with_file("rstscope run --own-device fw1=hop-limit=62", text).unwrap();
        let names: Vec<_> = config.own_devices.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["fw1", "fw2"]);
        let vague = with_file(
            "rstscope run",
            "iface = [\"a\"]\n[[own_device]]\nname = \"fw\"\n",
        );
        assert!(matches!(vague, Err(Error::Device(..))));
    }
}
