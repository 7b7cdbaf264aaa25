//! Sets the sensor up, watches over it and takes it down; never on a frame's path.

mod clock;
mod container;
mod coverage;
pub mod diagnose;
pub mod doctor;
mod engine_loop;
mod error;
mod handover;
pub mod lock;
mod post;
mod run;
pub mod schema;
mod signals;
mod summary;

pub use error::Error;
pub use run::run;
