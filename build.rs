//! Compiles every bpf/*.bpf.c and generates its skeleton into OUT_DIR. Needs clang with the BPF
//! target; nothing else of the machine's kernel.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 6] = ["steer", "egress", "sockets", "mirror", "handback", "live"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            // Where `tests/programs.rs` reads it.
            .obj(out.join(format!("{program}.bpf.o")))
            // Debian keeps asm/types.h in the folder of the architecture.
            .clang_args([
                "-idirafter".to_owned(),
                format!("/usr/include/{arch}-linux-gnu"),
                "-mcpu=v3".to_owned(),
                "-Wall".to_owned(),
                "-Werror".to_owned(),
            ])
            .build_and_generate(out.join(format!("{program}.skel.rs")))
            .unwrap_or_else(|error| panic!("{source} does not compile: {error:?}"));
    }
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=build.rs");
}
