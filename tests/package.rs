//! What is packaged: a Debian package made of the built binary, its parts, and its way into and out of a
//! clean root. The latter needs root, and debootstrap once to make the clean one.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, as it should"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_rstscope");

fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program)
        .args(words)
        .current_dir(ROOT)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn said(program: &str, words: &[&str]) -> String {
    let done = run(program, words);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {words:?}: {errors}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Makes the package, in a folder of its own; `None` where there is no dpkg.
fn package(name: &str) -> Option<PathBuf> {
    Command::new("dpkg-deb").arg("--version").output().ok()?;
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("package-{name}"));
    let script = format!("{ROOT}/scripts/package");
    let path = said(
        &script,
        &["--binary", BINARY, "--out", out.to_str().unwrap()],
    );
    Some(PathBuf::from(ROOT).join(path.trim()))
}

#[test]
fn the_package_holds_all_parts_and_they_are_good() {
    let Some(deb) = package("parts") else {
        println!("skipped: dpkg-deb is not here");
        return;
    };
    let deb_path = deb.to_str().unwrap();
    let listed = said("dpkg-deb", &["--contents", deb_path]);
    for part in [
        "usr/bin/rstscope",
        "usr/lib/systemd/system/rstscope.service",
        "usr/lib/sysusers.d/rstscope.conf",
        "etc/rstscope/rstscope.toml",
        "etc/logrotate.d/rstscope",
        "usr/share/man/man1/rstscope.1.gz",
        "usr/share/man/man1/rstscope-run.1.gz",
        "usr/share/bash-completion/completions/rstscope",
        "usr/share/zsh/vendor-completions/_rstscope",
        "usr/share/fish/vendor_completions.d/rstscope.fish",
        "usr/share/rstscope/siem/grafana/",
        "usr/share/rstscope/schema/reset.json",
        "usr/share/rstscope/schema/coverage.json",
        "usr/share/doc/rstscope/copyright",
    ] {
        assert!(listed.contains(&format!("./{part}")), "{part}: {listed}");
    }
    let foreign = listed.lines().find(|line| !line.contains(" root/root "));
    assert_eq!(foreign, None, "everything is root's");
    let control = said("dpkg-deb", &["--info", deb_path]);
    assert!(control.contains("libelf1 | libelf1t64"), "{control}");

    let root = deb.with_extension("root");
    let _ = std::fs::remove_dir_all(&root);
    said("dpkg-deb", &["--extract", deb_path, root.to_str().unwrap()]);
    let inside = |part: &str| root.join(part).to_str().unwrap().to_owned();
    said(
        "bash",
        &[
            "-n",
            &inside("usr/share/bash-completion/completions/rstscope"),
        ],
    );
    let config = inside("etc/rstscope/rstscope.toml");
    let unnamed = run(BINARY, &["config", "check", &config]);
    assert_eq!(unnamed.status.code(), Some(2), "no interface is named yet");
    let text = std::fs::read_to_string(&config).unwrap();
    let named = text.replace("# iface = [", "iface = [");
    assert_ne!(text, named);
    std::fs::write(&config, named).unwrap();
    said(BINARY, &["config", "check", &config]);
    let page = said(
        "gzip",
        &["-dc", &inside("usr/share/man/man1/rstscope-run.1.gz")],
    );
    assert!(
        page.starts_with(".ie") && page.contains("\\-\\-own\\-device"),
        "{page}"
    );
}

#[test]
#[ignore = "needs root"]
fn the_package_goes_into_a_clean_root_works_there_and_leaves_no_trace() {
    let root = Path::new(ROOT).join("target/package/root/etc/debian_version");
    let makes_one = Command::new("debootstrap").arg("--version").output();
    if !root.exists() && makes_one.is_err() {
        println!("skipped: there is no clean root, and no debootstrap to make one (scripts/setup)");
        return;
    }
    let Some(deb) = package("root") else {
        println!("skipped: dpkg-deb is not here");
        return;
    };
    let script = format!("{ROOT}/scripts/package");
    let told = said(&script, &["--test", deb.to_str().unwrap()]);
    assert!(told.contains("removed without trace"), "{told}");
}

#[test]
fn the_container_files_ask_for_what_the_unit_has() {
    let read = |path: &str| std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let unit = read("packaging/systemd/rstscope.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let daemonset = read("packaging/container/daemonset.yaml");
    let containerfile = read("packaging/container/Containerfile");
    for capability in line.unwrap().split_whitespace() {
        let short = capability.trim_start_matches("CAP_");
        assert!(daemonset.contains(short), "{short}");
        assert!(containerfile.contains(&short.to_lowercase()), "{short}");
    }
    assert!(daemonset.contains("privileged: false"));
}
