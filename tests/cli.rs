//! The built binary: help, usage errors, exit codes, and `read` from end to end over captures
//! that the tests write themselves.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it cannot go on, and says aloud what it skips"
)]

mod support;

/// What has a file of its own.
mod cli {
    mod captures;
}

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::captures::{Flavor, conversation, ethernet, legacy};

fn rstscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rstscope"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the program was not killed")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn records(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A folder of its own for one test, removed when the test has passed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rstscope-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The one reset of [`conversation`], as a record shows it.
fn assert_is_the_reset(record: &Value) {
    assert_eq!(record["source"]["ip"], "198.51.100.10", "{record}");
    assert_eq!(record["source"]["port"], 443);
    assert_eq!(record["destination"]["ip"], "203.0.113.9");
    assert_eq!(record["rstscope"]["resets"][0]["flags"], "RA");
    assert_eq!(record["event"]["dataset"], "rstscope.reset");
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["read", "-h"],
    ] {
        let output = rstscope(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    let help = String::from_utf8(rstscope(&["--help"]).stdout).unwrap();
    assert!(help.contains("run") && help.contains("read") && help.contains("doctor"));
    assert!(help.contains("Exit codes"));
}

#[test]
fn usage_errors_are_code_2_and_say_what_exists() {
    for (arguments, words) in [
        (&[][..], "Usage"),
        (&["fly"], "fly"),
        (&["read"], "FILE"),
        (&["read", "f", "--output", "r.jsonl"], "file:///PATH"),
        (&["read", "f", "--output", "/var/r.jsonl"], "file:///PATH"),
        (&["read", "f", "--output", "ftp://b/t"], "file:///PATH"),
        (&["read", "f", "--local", "10.0.0.0/40"], "prefix length"),
        (&["read", "f", "--settle", "soon"], "soon"),
        (&["read", "-", "-"], "standard input"),
        (&["run"], "--iface"),
        (&["run", "--iface", "not/a/name"], "not/a/name"),
        (&["run", "--iface", "x", "--mode", "tap"], "tap"),
        (
            &["run", "--iface", "x", "--config", "/nowhere/at/all"],
            "/nowhere/at/all",
        ),
    ] {
        let output = rstscope(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(words),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn usage_errors_name_what_was_typed_and_the_help_that_has_it() {
    let scratch = Scratch::new("usage");
    let bare = scratch.write("bare.toml", b"settle = 5\n");
    for (arguments, wanted, unwanted) in [
        (
            &["config", "check", "/nowhere"][..],
            " file /nowhere: ",
            "--config",
        ),
        (
            &["config", "print", "/nowhere"],
            " file /nowhere: ",
            "--config",
        ),
        (
            &["config", "check", &bare],
            "iface = [\"IF\"]",
            "'rstscope --help'",
        ),
        (&["config", "print"], "--defaults", "--config"),
        (
            &["run", "--config", "/nowhere"],
            " file /nowhere: ",
            "'rstscope --help'",
        ),
        (&["run"], "'rstscope run --help'", "'rstscope --help'"),
        (
            &["read", "f", "--local", "x"],
            "'rstscope read --help'",
            "'rstscope --help'",
        ),
    ] {
        let output = rstscope(arguments);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(!said.contains(unwanted), "{arguments:?}: {said}");
    }
}

#[test]
fn help_keeps_within_the_columns_that_there_are() {
    for command in ["run", "read", "explain", "list", "config", "stats"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rstscope"))
            .args([command, "--help"])
            .env("COLUMNS", "80")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{command}: {help}");
    }
}

#[test]
fn a_configuration_file_with_an_unknown_key_is_a_usage_error() {
    let scratch = Scratch::new("config");
    let file = scratch.write("rstscope.toml", b"iface = [\"x\"]\nsetle = 5\n");
    let output = rstscope(&["run", "--config", &file]);
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(
        said.contains("line 2") && said.contains("setle") && said.contains(&file),
        "{said}"
    );
}

#[test]
fn files_are_appended_to_and_other_outputs_get_the_same() {
    let scratch = Scratch::new("append");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let target = scratch.path("out.jsonl");
    let url = format!("file://{target}");
    for _ in 0..2 {
        let output = rstscope(&["read", &file, "--output", &url, "--output", "-"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(records(&output).len(), 1);
    }
    let text = fs::read_to_string(&target).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1], "a retry writes the same record");
    assert!(text.ends_with('\n'));
}

#[test]
fn an_output_that_cannot_be_opened_fails_before_anything_is_read() {
    let scratch = Scratch::new("unwritable");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let output = rstscope(&["read", &file, "--output", "file:///nowhere/at/all"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("/nowhere/at/all") && said.contains("create its directory"),
        "{said}"
    );
    let itself = format!("file://{file}");
    let before = fs::read(&file).unwrap();
    assert_eq!(code(&rstscope(&["read", &file, "--output", &itself])), 1);
    assert_eq!(
        fs::read(&file).unwrap(),
        before,
        "a capture is never written to"
    );
}

#[test]
fn a_full_disk_is_told_and_is_a_failure() {
    let scratch = Scratch::new("full");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let output = rstscope(&[
        "read",
        &file,
        "--output",
        "file:///dev/full",
        "--output",
        "-",
    ]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains("file:///dev/full: cannot write"), "{said}");
    assert!(said.contains("lost 1 record\n"), "{said}");
    assert_eq!(records(&output).len(), 1, "the other output goes on");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let scratch = Scratch::new("pipe");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let files: Vec<&str> = std::iter::repeat_n(file.as_str(), 200).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstscope"))
        .args(["read", "-q"])
        .args(files)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn verbose_tells_a_person_the_evidence() {
    let scratch = Scratch::new("verbose");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let output = rstscope(&["read", "-v", &file]);
    assert_eq!(code(&output), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("22:13:20.004Z "), "{text}");
    assert!(
        first.contains("198.51.100.10:443 → 203.0.113.9:51514"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no color into a pipe");
}

#[test]
fn a_story_is_told_from_a_capture_and_from_its_record_alike() {
    let scratch = Scratch::new("explain");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let read = rstscope(&["read", "-q", &file]);
    let id = records(&read)[0]["event"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let written = scratch.write("r.jsonl", &read.stdout);
    let story = |arguments: &[&str]| {
        let output = rstscope(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = story(&["explain", &written, &id]);
    for words in [
        "198.51.100.10:443 → 203.0.113.9:51514: REMOTE",
        "What came, from 2023-11-14T22:13:20.004",
        "in decibans",
        "in all: a third party at",
        "What to do next",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    assert_eq!(told, story(&["explain", &file]));
    let flow = "203.0.113.9:51514-198.51.100.10:443";
    assert_eq!(told, story(&["explain", &file, "--flow", flow]));
}

#[test]
fn a_list_has_a_line_for_each_record_and_leads_to_its_story() {
    let scratch = Scratch::new("list");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let read = rstscope(&["read", "-q", &file]);
    let record = &records(&read)[0];
    let written = scratch.write("r.jsonl", &read.stdout);
    let line = |arguments: &[&str]| {
        let output = rstscope(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(": 1 remote") || stderr(&output).contains(": 2 remote"));
        String::from_utf8(output.stdout).unwrap()
    };
    let from_record = line(&["list", &written]);
    assert_eq!(
        from_record,
        line(&["list", &file, "--verdict", "remote,local"])
    );
    assert_eq!(from_record.lines().count(), 1, "{from_record}");
    assert!(
        from_record.starts_with("2023-11-14T22:13:20.004Z REMOTE/"),
        "{from_record}"
    );
    let id = record["event"]["id"].as_str().unwrap();
    let message = record["message"].as_str().unwrap();
    assert!(
        from_record.ends_with(&format!("% {id} {message}\n")),
        "{from_record}"
    );
    let both = line(&["list", &written, &file, "--address", "203.0.113.0/24"]);
    assert_eq!(both, from_record.repeat(2));
    // What is there is listed all the same.
    let partly = rstscope(&["list", "/nowhere/at/all", &written]);
    assert_eq!(code(&partly), 1);
    assert_eq!(partly.stdout, from_record.as_bytes());
    assert!(
        stderr(&partly).contains("cannot open"),
        "{}",
        stderr(&partly)
    );
    let story = rstscope(&["explain", &written, id]);
    assert_eq!(code(&story), 0, "{}", stderr(&story));
}

#[test]
fn a_story_comes_out_of_a_pipe_too() {
    let scratch = Scratch::new("pipe");
    let capture = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let lines = scratch.write("lines", &rstscope(&["read", &capture]).stdout);
    for file in [&capture, &lines] {
        // As `explain <(zcat FILE)` of a shell: a path that can be read once.
        let source = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn();
        let mut source = source.unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_rstscope"))
            .args(["explain", "/dev/fd/0"])
            .stdin(source.stdout.take().unwrap())
            .output()
            .unwrap();
        source.wait().unwrap();
        let story = String::from_utf8_lossy(&output.stdout);
        assert!(story.contains("Verdict: "), "{file}: {}", stderr(&output));
        assert_eq!(code(&output), 0);
    }
}

#[test]
fn a_story_that_is_not_there_is_a_failure_with_a_hint() {
    let scratch = Scratch::new("no-story");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let none = scratch.write("none", b"{\"event\": {}}\nnonsense\n");
    let garbage = scratch.write(
        "garbage",
        b"this is neither a capture nor a record, and long",
    );
    let empty = scratch.write("empty", b"");
    let other = "203.0.113.9:51514-198.51.100.10:80";
    for (arguments, words) in [
        (&["explain", &file, "nobody-7"][..], "nobody-7"),
        (
            &["explain", &file, "--flow", other],
            other.split('-').next().unwrap(),
        ),
        (&["explain", &none], "no record in 1 line"),
        (&["explain", &none, "nobody-7"], "`rstscope list "),
        (&["list", &none], "no record in 1 line"),
        (&["list", &file, "--verdict", "stray"], "that is stray"),
        (&["explain", &garbage], "nor records"),
        (&["explain", &empty], "is empty"),
        (&["explain", "/nowhere/at/all"], "cannot open"),
    ] {
        let output = rstscope(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn own_devices_are_taken_from_the_command_line_and_a_file_and_clear_nobody() {
    let scratch = Scratch::new("device");
    let file = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let config = scratch.write(
        "rstscope.toml",
        b"[[own_device]]\nname = \"fw2\"\nmac = \"02:00:00:00:00:02\"\n",
    );
    let plain = records(&rstscope(&["read", &file]));
    let device = "fw1=hop-limit=64,ip-id=counter,address=198.51.100.0/24";
    let with = rstscope(&["read", &file, "--own-device", device, "--config", &config]);
    assert_eq!(
        records(&with),
        plain,
        "a genuine reset is nobody's device's"
    );
    let vague = rstscope(&["read", &file, "--own-device", "fw1"]);
    assert_eq!(code(&vague), 2);
    assert!(stderr(&vague).contains("needs mac or hop-limit"));
}

#[test]
fn the_labeled_captures_read_without_a_failure() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    if !folder.is_dir() {
        println!(
            "skipped: there are no labeled captures at {}",
            folder.display()
        );
        return;
    }
    let mut waiting = vec![folder];
    let mut files = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path
                .extension()
                .is_some_and(|end| end == "pcap" || end == "pcapng")
            {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    let arguments: Vec<&str> = ["read"]
        .into_iter()
        .chain(files.iter().map(String::as_str))
        .collect();
    let output = rstscope(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(!records(&output).is_empty());
}
