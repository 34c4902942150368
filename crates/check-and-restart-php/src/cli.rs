//! What can be typed, and nothing else: no file is read here and nothing is asked of the system. The original's two arguments keep
//! their places and meaning. Every flag is in check-and-restart-php(8); a test holds the two together.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Error, Parser};
use host::duration::{duration, positive};
use restart_core::UnitName;

use crate::limits::{FreeLimit, Limits, OnFull, Percent};

#[derive(Debug, Parser)]
#[command(
    name = "check-and-restart-php",
    version,
    about = "Restart a PHP-FPM whose opcache runs full, without losing a request",
    override_usage = "check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB\n       \
                      check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB",
    after_help = "Exit status: 0 done, or nothing to do; 1 failed; 2 usage; 3, 4 and 5 as restart-php-fpm; 69 figures cannot be read; \
                  75 try later; 77 not permitted; 78 configuration. With --check: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN.\n\
                  See check-and-restart-php(8).",
    max_term_width = 100
)]
pub struct Cli {
    /// The unit of PHP-FPM, with or without '.service'
    // With --all it is the limit: whoever wants the arguments reads `service` and `min_free`.
    #[arg(value_name = "SERVICE")]
    first: String,

    /// Restart when so many megabytes of opcache are free, or fewer; 0 does nothing at all
    #[arg(value_name = "MIN_OPCACHE_FREE_MB", required_unless_present = "all")]
    second: Option<String>,

    /// The unit; none with --all.
    #[arg(skip)]
    pub service: Option<UnitName>,

    /// The limit of free memory.
    #[arg(skip)]
    pub min_free: FreeLimit,

    /// Every enabled php*-fpm unit, one after the other
    #[arg(long)]
    pub all: bool,

    /// Only look, as a Nagios plugin: one line, exit status 0, 1, 2 or 3; restart and clear nothing
    #[arg(long, conflicts_with_all = ["dry_run", "force", "json"])]
    pub check: bool,

    /// Look, and say what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Restart at once, whatever the pools; requests in flight die
    #[arg(long)]
    pub force: bool,

    /// Restart when so many keys of opcache are free, or fewer
    #[arg(long, value_name = "N", default_value = "5000")]
    pub min_free_keys: u64,

    /// Clear APCu when so much of its free memory is in small pieces, or more
    #[arg(long, value_name = "PERCENT", default_value = "95", allow_negative_numbers = true)]
    pub max_apcu_fragmentation: Percent,

    /// What to do when opcache is full and takes nothing new
    #[arg(long, value_name = "WHAT", default_value = "restart")]
    pub cache_full: OnFull,

    /// Warn when so much of opcache's memory is wasted, or more
    #[arg(long, value_name = "PERCENT", default_value = "5", allow_negative_numbers = true)]
    pub max_wasted: Percent,

    /// Warn when so much of the memory for interned strings is in use, or more
    #[arg(long, value_name = "PERCENT", default_value = "95", allow_negative_numbers = true)]
    pub max_interned_strings: Percent,

    /// Warn when opcache has restarted itself so often, or more often
    #[arg(long, value_name = "N", default_value = "1")]
    pub max_self_restarts: u64,

    /// A hit rate below this is critical; it never restarts
    #[arg(long, value_name = "PERCENT", default_value = "99.85", allow_negative_numbers = true)]
    pub min_hit_rate: Percent,

    /// Warn when the hit rate is below this
    #[arg(long, value_name = "PERCENT", default_value = "99.99", allow_negative_numbers = true)]
    pub warn_hit_rate: Percent,

    /// Warn when so many megabytes of opcache are free, or fewer
    #[arg(long, value_name = "MB", default_value = "0")]
    pub warn_free: u64,

    /// How long after one restart the next may come; 0 is at once
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration, allow_negative_numbers = true)]
    pub min_interval: Duration,

    /// Ask the admin site on this host, as php7adm does, and not PHP-FPM itself
    #[arg(long)]
    pub admin_site: bool,

    /// How long one question may take
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = positive, allow_negative_numbers = true)]
    pub timeout: Duration,

    /// Keep readings in this file (*.history), and say when opcache will be full
    #[arg(long, value_name = "PATH", value_parser = history)]
    pub history: Option<PathBuf>,

    /// Write what was seen to this file (*.prom) as well, as metrics for Prometheus
    #[arg(long, value_name = "PATH", value_parser = metrics)]
    pub textfile: Option<PathBuf>,

    /// Print one JSON object on standard output at the end
    #[arg(long)]
    pub json: bool,

    /// Say more; twice: what the libraries say, too
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
}

impl Cli {
    /// Reads a command line, the program's name first.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut cli = Self::try_parse_from(arguments)?;
        let limit = match cli.second.take() {
            None => cli.first.clone(),
            Some(_) if cli.all => {
                // clap would name the second, which is the one that has to be there.
                let message = "the argument '--all' cannot be used with '<SERVICE>'";
                return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
            }
            Some(limit) => {
                let unit = UnitName::new(cli.first.clone());
                cli.service = Some(unit.map_err(|error| wrong(&cli.first, "SERVICE", &error.to_string()))?);
                limit
            }
        };
        cli.min_free = limit.parse().map_err(|why: String| wrong(&limit, "MIN_OPCACHE_FREE_MB", &why))?;
        Ok(cli)
    }

    pub fn limits(&self) -> Limits {
        Limits {
            free: self.min_free,
            free_warning: self.warn_free,
            free_keys: self.min_free_keys,
            apcu_fragmentation: self.max_apcu_fragmentation,
            cache_full: self.cache_full,
            wasted: self.max_wasted,
            interned_strings: self.max_interned_strings,
            self_restarts: self.max_self_restarts,
            hit_rate: self.min_hit_rate,
            hit_rate_warning: self.warn_hit_rate,
        }
    }

    /// Whether anything may be restarted, cleared or written down.
    pub fn changes_something(&self) -> bool {
        !self.check && !self.dry_run
    }
}

/// An argument that cannot be used, in clap's own words for it.
fn wrong(value: &str, argument: &str, why: &str) -> Error {
    Cli::command().error(ErrorKind::ValueValidation, format!("invalid value '{value}' for '<{argument}>': {why}"))
}

/// A name that node_exporter reads.
fn metrics(text: &str) -> Result<PathBuf, String> {
    ending(text, "prom")
}

fn history(text: &str) -> Result<PathBuf, String> {
    ending(text, "history")
}

/// A sudo rule that allows any arguments must not become one that allows any file to be replaced: `/etc/cron.d` and its kind read
/// neither ending.
fn ending(text: &str, ending: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let fits = path.extension() == Some(OsStr::new(ending)) && path.is_absolute();
    if fits { Ok(path) } else { Err(format!("not an absolute path that ends in '.{ending}'")) }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn parse(arguments: &str) -> Result<Cli, ErrorKind> {
        let arguments = ["check-and-restart-php"].into_iter().chain(arguments.split_whitespace());
        Cli::read(arguments.map(OsString::from)).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_the_original_is_called() {
        for unit in ["php8.2-fpm", "php8.2-fpm.service", "-- php8.2-fpm"] {
            let cli = parse(&format!("{unit} 200")).unwrap();
            assert_eq!(cli.service.unwrap().as_str(), "php8.2-fpm.service");
            assert_eq!(cli.min_free, FreeLimit::Mebibytes(200));
        }
        assert_eq!(parse("php7.4-fpm 9223372036854775807").unwrap().min_free, FreeLimit::Always);
    }

    #[test]
    fn with_all_the_one_argument_is_the_limit() {
        for arguments in ["--all 200", "200 --all", "--check --all 200", "--all -- 200"] {
            let cli = parse(arguments).unwrap();
            assert_eq!((cli.service, cli.min_free), (None, FreeLimit::Mebibytes(200)), "{arguments}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let table = [
            "",
            "200",
            "php8.2-fpm",
            "--all",
            "--all php8.2-fpm",
            "--all php8.2-fpm 200",
            "php8.2-fpm 200 stray",
            "php8.2-fpm -1",
            "php8.2-fpm 20%",
            "php.socket 200",
            "../x 200",
            "x 1 --check --dry-run",
            "x 1 --check --force",
            "x 1 --check --json",
            "x 1 --timeout 0",
            "x 1 --min-interval -1",
            "x 1 --min-free-keys -1",
            "x 1 --max-apcu-fragmentation 101",
            "x 1 --max-wasted -1",
            "x 1 --cache-full maybe",
            "x 1 --textfile /etc/passwd",
            "x 1 --textfile relative.prom",
            "x 1 --textfile /etc/.prom",
            "x 1 --history /etc/shadow",
            "x 1 -q -v",
        ];
        for arguments in table {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn zero_switches_each_check_off() {
        let off = "x 0 --min-free-keys 0 --max-apcu-fragmentation 0 --cache-full 0 --max-wasted 0 --max-interned-strings 0 \
                   --max-self-restarts 0 --min-hit-rate 0 --warn-hit-rate 0 --warn-free 0 --min-interval 0";
        let limits = parse(off).unwrap().limits();
        assert_eq!((limits.free, limits.cache_full), (FreeLimit::Off, OnFull::Ignore));
        assert_eq!(limits.apcu_fragmentation.limit(), None);
    }
}
