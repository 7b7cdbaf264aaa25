//! All keys of the configuration file in one table, beside the options of `run`, whose explanations they
//! share. From it comes `config print`.

use std::fmt::Write;

use clap::{Arg, CommandFactory};

use crate::cli::Cli;

/// Width of the explanations.
const COLUMNS: usize = 98;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// As it stands in the file; on the command line with `--` and dashes.
    pub name: &'static str,
    /// What holds when it is left out, in TOML; `None` where leaving out has no value of its own.
    pub default: Option<&'static str>,
    /// A value that means something, in TOML.
    pub example: &'static str,
    /// Followed on SIGHUP, without a restart.
    pub reloads: bool,
}

const fn key(
    name: &'static str,
    default: Option<&'static str>,
    example: &'static str,
    reloads: bool,
) -> Key {
    Key {
        name,
        default,
        example,
        reloads,
    }
}

/// Every key. `own_device` is last: what follows a table's header belongs to that table.
pub const KEYS: [Key; 12] = [
    key("iface", None, "[\"eth0\"]", false),
    key("mode", Some("\"inline\""), "\"mirror\"", false),
    key(
        "output",
        Some("[\"-\"]"),
        "[\"file:///var/log/rstscope/records.jsonl\"]",
        true,
    ),
    key(
        "spool",
        Some("\"/var/lib/rstscope/spool\""),
        "\"/var/lib/rstscope/spool\"",
        false,
    ),
    key("settle", Some("1000"), "1000", false),
    key("flows", Some("65536"), "65536", false),
    key("queues", None, "4", false),
    key("replace", Some("false"), "true", false),
    key("metrics", None, "\"127.0.0.1:9477\"", false),
    key("unconfined", Some("false"), "true", false),
    key("quiet", Some("false"), "true", false),
    key("own_device", None, OWN_DEVICE, true),
];

const OWN_DEVICE: &str = "\
name = \"fw1\"
mac = \"02:00:00:00:00:0a\"       # source MAC of its frames
hop_limit = \"60-64\"             # as they arrive here: a number or a range
ip_id = \"zero\"                  # or \"counter\"
addresses = [\"10.0.0.0/8\"]      # in whose name it speaks";

const HEAD: &str = "\
# Configuration of rstscope: the options of `rstscope run`. The command line overrides this file.
# `rstscope config check FILE` says whether it is good. Keys marked (reload) are followed on SIGHUP
# (systemctl reload rstscope); the others take a restart.
";

/// A file with all keys explained: with the values of `file`, and the defaults for the rest. A key
/// without a default is commented out.
#[must_use]
pub fn printed(file: Option<&toml::Table>) -> String {
    let mut text = String::from(HEAD);
    for key in &KEYS {
        let given = file.and_then(|file| file.get(key.name));
        let reloads = if key.reloads { " (reload)" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n# {}{reloads}", key.name);
        for line in wrapped(&explanation(key)) {
            let _ = writeln!(text, "# {line}");
        }
        if key.name == "own_device" {
            text.push_str(&devices(given));
            continue;
        }
        let _ = match (given, key.default) {
            (Some(value), _) => writeln!(text, "{} = {value}", key.name),
            (None, Some(default)) => writeln!(text, "{} = {default}", key.name),
            (None, None) => writeln!(text, "# {} = {}", key.name, key.example),
        };
    }
    text
}

fn devices(given: Option<&toml::Value>) -> String {
    let mut text = String::new();
    let Some(devices) = given.and_then(toml::Value::as_array) else {
        text.push_str("# [[own_device]]\n");
        for line in OWN_DEVICE.lines() {
            let _ = writeln!(text, "# {line}");
        }
        return text;
    };
    for device in devices.iter().filter_map(toml::Value::as_table) {
        let _ = writeln!(text, "[[own_device]]\n{device}");
    }
    text
}

/// What the command line's help says of it.
fn explanation(key: &Key) -> String {
    let long = key.name.replace('_', "-");
    options()
        .into_iter()
        .find(|option| option.get_long() == Some(&long))
        .and_then(|option| {
            option
                .get_long_help()
                .or(option.get_help())
                .map(ToString::to_string)
        })
        .unwrap_or_default()
}

/// The options of `run`.
fn options() -> Vec<Arg> {
    Cli::command()
        .find_subcommand("run")
        .map(|run| run.get_arguments().cloned().collect())
        .unwrap_or_default()
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > COLUMNS);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{KEYS, explanation, options, printed};
    use crate::cli::RunArgs;
    use crate::config::file::parse;
    use crate::config::{RunConfig, run};

    fn config(text: &str) -> RunConfig {
        let args = RunArgs {
            ifaces: vec!["eth0".to_owned()],
            ..RunArgs::default()
        };
        run(args, parse(text).unwrap()).unwrap()
    }

    #[test]
    fn every_option_of_run_is_a_key_and_every_key_an_option() {
        let mut names: Vec<String> = options()
            .iter()
            .filter_map(|option| option.get_long())
            .filter(|long| !["config", "help", "version"].contains(long))
            .map(|long| long.replace('-', "_"))
            .collect();
        let mut keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort();
        keys.sort_unstable();
        assert_eq!(names, keys);
        assert!(KEYS.iter().all(|key| explanation(key).len() > 20));
    }

    #[test]
    fn what_is_printed_as_default_is_the_default() {
        assert_eq!(config(&printed(None)), config(""));
        assert!(printed(None).lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn every_example_is_taken() {
        for key in &KEYS {
            let text = match key.name {
                "own_device" => format!("[[own_device]]\n{}", key.example),
                name => format!("{name} = {}", key.example),
            };
            assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text).err());
        }
    }

    #[test]
    fn a_file_printed_again_means_the_same() {
        let text = "iface = [\"a\", \"b\"]\nmode = \"mirror\"\nsettle = 5\nqueues = 2\n\
                    metrics = \"[::1]:9\"\n[[own_device]]\nname = \"fw\\u0022\"\nhop_limit = 61\n\
                    [[own_device]]\nname = \"x\"\nmac = \"02:00:00:00:00:0a\"\n";
        let again = printed(Some(&text.parse().unwrap()));
        assert_eq!(config(&again), config(text), "{again}");
    }
}
