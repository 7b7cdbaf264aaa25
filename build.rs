//! Compiles every bpf/*.bpf.c and generates its skeleton into OUT_DIR. Needs clang with the BPF
//! target (`CLANG` names another than `clang`); nothing else of the machine's kernel.
//!
//! A newer compiler's new warnings fail no build: that there are none is for `scripts/check`.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 6] = ["steer", "egress", "sockets", "mirror", "handback", "live"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        let mut builder = SkeletonBuilder::new();
        if let Some(clang) = env::var_os("CLANG") {
            builder.clang(clang);
        }
        builder
            .source(&source)
            // Where `tests/programs.rs` reads it.
            .obj(out.join(format!("{program}.bpf.o")))
            // Debian keeps asm/types.h in the folder of the architecture.
            .clang_args([
                "-idirafter".to_owned(),
                format!("/usr/include/{arch}-linux-gnu"),
                "-mcpu=v3".to_owned(),
                "-Wall".to_owned(),
            ])
            .build_and_generate(out.join(format!("{program}.skel.rs")))
            .unwrap_or_else(|error| panic!("{source} does not compile: {error:?}"));
    }
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CLANG");
}
