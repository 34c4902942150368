//! PHP-FPM from outside: what a unit's pools are, whether they answer, what is in flight, and how full PHP's caches are.
//!
//! | question | asked of | answered in |
//! |---|---|---|
//! | which configuration does this unit read, and how is it tested? | systemd's `ExecStart` | [`CommandLine`] |
//! | which pools does it have, and where do they listen? | the configuration's files, opened by the caller's [`Files`] | [`discover`], [`Pool`] |
//! | does it answer? | the ping page | [`Ping`] |
//! | what is in flight, what is queued? | the status page | [`StatusPage`], [`Status`] |
//! | how full are opcache and APCu? | a pool that runs `php/figures.php`, or an admin site | [`Source`], [`Figures`] |
//!
//! Questions go over FastCGI ([`fastcgi`], by a client of our own), each with one bound over all of it: a process that hangs, a queue that
//! is full and a socket that drips are all [`fastcgi::Fault::TimedOut`]. What is read is parsed by pure functions, and whatever is not
//! what it should be is an error that names it; nothing is guessed. Opcache is never reset: that corrupts it in a live process.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use php_fpm::{CommandLine, Files, Helper, Listed, Source, discover};
//!
//! /// Files that anybody may have written; a tool that runs as root has one that asks whose they are.
//! struct AsTheyAre;
//!
//! impl Files for AsTheyAre {
//!     type Error = std::io::Error;
//!
//!     fn read(&mut self, path: &Path) -> Result<Option<String>, Self::Error> {
//!         match std::fs::read_to_string(path) {
//!             Ok(text) => Ok(Some(text)),
//!             Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
//!             Err(error) => Err(error),
//!         }
//!     }
//!
//!     fn list(&mut self, folder: &Path) -> Result<Vec<Listed>, Self::Error> {
//!         php_fpm::list(folder)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let exec_start = "";
//! let command = CommandLine::from_exec_start(exec_start)?;
//! for pool in discover(&command, &mut AsTheyAre)?.pools {
//!     let second = Duration::from_secs(1);
//!     pool.ping()?.ask(second)?;
//!     let status = pool.status_page()?.ask(second)?;
//!     println!("{}: {} in flight", pool.name, status.in_flight());
//!     println!("{:?}", Source::Helper(Helper::new(&pool)).read(second)?);
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod admin_site;
mod allowed_clients;
mod ask;
mod command_line;
mod configuration;
pub mod fastcgi;
mod figures;
mod files;
mod glob;
mod helper;
mod ini;
mod json;
mod netrc;
mod pool;
mod printable;
mod read_with;
mod response;
mod status;
pub mod wire;

pub use address::{Address, AddressError};
pub use admin_site::{AdminSite, AdminSiteError, DEFAULT_PORT, NETRC_FILE, VERSIONS_FILE};
pub use allowed_clients::AllowedClients;
pub use ask::{AskError, AskFault};
pub use command_line::{CommandError, CommandLine};
pub use configuration::{Configuration, ConfigurationError, discover};
pub use figures::{Apcu, ApcuFigures, ApcuUsage, Cleared, Figures, InternedStrings, Opcache, OpcacheFigures, Source};
pub use files::{Files, Listed, list};
pub use helper::{HELPER_FOLDER, Helper};
pub use ini::LineFault;
pub use json::JsonFault;
pub use netrc::{Credentials, NetrcError};
pub use pool::{NoPage, Ping, Pool, StatusPage};
pub use read_with::{OpenError, ReadWith};
pub use status::{AnsweredBy, Process, Status, in_flight};
