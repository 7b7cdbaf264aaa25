//! From what a URL means to an output that can be written to: opens files, spools and secrets. Receivers
//! are not called here: one that is away must not keep a sensor from starting.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::file::FileTransport;
use super::filter::Filter;
use super::spool::{Before, Found, Patience, Spool};
use super::target::{Kind, Target};
use super::transport::Transport;
use super::{Counters, Error, JsonLines, Sink, Style, Terminal, http, syslog};

/// Where outputs keep what waits, and whether anybody may wait for them.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder of the spools; `None` keeps everything in memory.
    pub spool: Option<PathBuf>,
    /// What happens to a record for which there is no room.
    pub patience: Patience,
    /// Counts up when files shall be opened anew.
    pub reopened: Arc<AtomicU64>,
    /// Whose a spool may still be that shall become ours; it is waited for, since they are about to end.
    /// With `None` a spool that is somebody's is an error.
    pub inherits: Option<Before>,
}

impl Place {
    /// Everything is kept in memory, and is nobody else's.
    #[must_use]
    pub fn in_memory(patience: Patience) -> Self {
        Self {
            spool: None,
            patience,
            reopened: Arc::default(),
            inherits: None,
        }
    }
}

/// An output that is open.
pub struct Outlet {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) way: Way,
    pub(super) counters: Arc<Counters>,
}

/// How its records get there.
pub(super) enum Way {
    /// Written as they come, by a thread of its own.
    Direct(Box<dyn Sink>),
    /// Through a spool.
    Spooled(Arc<Spool>, Box<dyn Transport>, Found),
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Outlet {
    /// An output that is written to directly.
    #[must_use]
    pub fn direct(sink: Box<dyn Sink>, filter: Filter) -> Self {
        Self {
            name: sink.name().to_owned(),
            target: Target {
                filter,
                ..Target::standard()
            },
            way: Way::Direct(sink),
            counters: Arc::default(),
        }
    }

    /// An output with a transport of the caller's.
    #[must_use]
    pub fn spooled(
        target: Target,
        spool: Spool,
        counters: Arc<Counters>,
        transport: Box<dyn Transport>,
    ) -> Self {
        Self {
            name: target.name.clone(),
            target,
            way: Way::Spooled(Arc::new(spool), transport, Found::default()),
            counters,
        }
    }
}

/// Opens all outputs, or none.
///
/// # Errors
///
/// The first that cannot be opened.
pub fn open_all(targets: &[Target], style: Style, place: &Place) -> Result<Vec<Outlet>, Error> {
    targets
        .iter()
        .map(|target| open(target, style, place))
        .collect()
}

/// Opens an output.
///
/// # Errors
///
/// [`Error`] for files, spools and secrets that cannot be used.
pub fn open(target: &Target, style: Style, place: &Place) -> Result<Outlet, Error> {
    let name = target.name.clone();
    if target.kind == Kind::Standard {
        let sink: Box<dyn Sink> = if style.verbose || io::stdout().is_terminal() {
            Box::new(Terminal::standard(style.verbose))
        } else {
            Box::new(JsonLines::standard(target.format)?)
        };
        return Ok(Outlet {
            name,
            target: target.clone(),
            way: Way::Direct(sink),
            counters: Arc::default(),
        });
    }
    let mut spool = place.spool.as_ref().filter(|_| target.is_durable());
    let transport: Box<dyn Transport> = match &target.kind {
        // Told apart above.
        Kind::Standard => return Err(Error::Closed),
        Kind::File(file) => {
            let reopened = Arc::clone(&place.reopened);
            let file = FileTransport::open(&name, file.clone(), reopened, spool.is_some())?;
            spool = spool.filter(|_| file.is_spooled());
            Box::new(file)
        }
        Kind::Syslog(syslog) => syslog::open(&name, syslog)?,
        Kind::Http(http) => Box::new(http::HttpTransport::open(&name, http)?),
        #[cfg(feature = "kafka")]
        Kind::Kafka(kafka) => Box::new(super::kafka::KafkaTransport::open(&name, kafka)?),
        #[cfg(not(feature = "kafka"))]
        Kind::Kafka(_) => {
            return Err(Error::Setup {
                output: name,
                why: super::UrlError::NotBuilt.to_string(),
            });
        }
    };
    let counters = Arc::new(Counters::default());
    let (spool, found) = match spool {
        Some(folder) => {
            let path = folder.join(target.folder_name());
            let (limit, shared) = (target.spool_bytes, Arc::clone(&counters));
            let opened = match place.inherits {
                Some(before) => Spool::inherited(&path, limit, shared, before),
                None => Spool::on_disk(&path, limit, shared),
            };
            opened.map_err(|source| Error::Spool {
                output: name.clone(),
                path,
                source,
            })?
        }
        None => (Spool::in_memory(Arc::clone(&counters)), Found::default()),
    };
    Ok(Outlet {
        name,
        target: target.clone(),
        way: Way::Spooled(Arc::new(spool), transport, found),
        counters,
    })
}
