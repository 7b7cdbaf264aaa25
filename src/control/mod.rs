//! Sets the sensor up, watches over it and takes it down; never on a frame's path.

mod clock;
mod confine;
mod container;
mod coverage;
pub mod diagnose;
pub mod doctor;
mod engine_loop;
mod error;
mod handover;
mod ledger;
pub mod lock;
mod numbers;
mod outputs;
mod post;
mod reload;
mod run;
pub mod schema;
mod service;
mod signals;
mod start;
pub mod stats;
mod summary;
pub mod texts;

pub use error::Error;
pub use run::run;
