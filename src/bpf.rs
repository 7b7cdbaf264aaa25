//! The skeletons that libbpf-cargo generates from `bpf/*.bpf.c`: the programs' bytes and, from BTF,
//! the types of `bpf/shared.h`. Generated code only; nothing is written by hand here.

#![allow(
    unsafe_code,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    unused,
    missing_debug_implementations,
    reason = "generated code"
)]

pub mod egress {
    include!(concat!(env!("OUT_DIR"), "/egress.skel.rs"));
}
pub mod handback {
    include!(concat!(env!("OUT_DIR"), "/handback.skel.rs"));
}
pub mod live {
    include!(concat!(env!("OUT_DIR"), "/live.skel.rs"));
}
pub mod mirror {
    include!(concat!(env!("OUT_DIR"), "/mirror.skel.rs"));
}
pub mod sockets {
    include!(concat!(env!("OUT_DIR"), "/sockets.skel.rs"));
}
pub mod steer {
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}
