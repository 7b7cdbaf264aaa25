//! The sensor on Debian 12's own kernel, which is older than the one that the other tests run on: its verifier
//! follows less, its tracepoints tell less, its XDP metadata has less room. Booted by `scripts/kernels`.

#![allow(
    clippy::print_stdout,
    reason = "why it does not run is for the one who reads its output"
)]

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs root, and qemu"]
fn the_demo_comes_out_right_on_debian_12s_own_kernel() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: scripts/kernels boots x86-64 alone");
        return;
    }
    let sensor = env!("CARGO_BIN_EXE_rstscope");
    let output = Command::new("scripts/kernels")
        .args(["scripts/demo", "--sensor", sensor])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("bash");
    if !Path::new("target/tools/kernels/linux-image-amd64/lib/modules").exists() {
        println!("skipped: Debian's kernel could not be had (scripts/setup)");
        return;
    }
    let (said, why) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{why}");
    assert!(said.contains(", Linux 6.1."), "{said}");
    assert!(said.contains("200 of 200 requests succeeded"), "{said}");
    assert!(said.contains("8 of 8 as it really was"), "{said}");
}
