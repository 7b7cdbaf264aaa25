//! Why the kernel's events cannot be had.

use std::fmt;
use std::io;

/// What failed in loading, attaching or reading.
#[derive(Debug)]
pub enum Error {
    /// A map that all programs share could not be made or read.
    Map(&'static str, libbpf_rs::Error),
    /// The kernel did not take a program.
    Load(&'static str, libbpf_rs::Error),
    /// The program could not be put on an interface.
    Attach(String, io::Error),
    /// A program of ours could not be asked what it missed.
    Info(io::Error),
    /// The ring buffer cannot be read.
    Poll(libbpf_rs::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(map, source) => write!(f, "BPF map {map}: {source}"),
            Self::Load(program, source) => write!(
                f,
                "the kernel refused the BPF program {program}: {source:#}; needs Linux 5.15 with \
                 BTF and CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"
            ),
            Self::Attach(interface, source) => {
                write!(f, "{interface}: attaching the tc program failed: {source}")
            }
            Self::Info(source) => write!(f, "a BPF program could not be asked: {source}"),
            Self::Poll(source) => write!(f, "the event ring buffer cannot be read: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Map(_, source) | Self::Load(_, source) | Self::Poll(source) => Some(source),
            Self::Attach(_, source) | Self::Info(source) => Some(source),
        }
    }
}
