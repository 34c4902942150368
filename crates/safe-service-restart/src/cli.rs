//! What can be typed, and nothing else: no file is read here and nothing is asked of the system. The original's flags keep
//! their names, defaults and meaning. Every flag is in safe-service-restart(8); a test holds the two together.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Parser};
use host::duration::{duration, positive};
use host::words::{reason, run_id};
use restart_core::{Fqdn, PoolName, Share, Tag, UnitName};

/// Where Puppet puts the catalog.
pub const CATALOG: &str = "/etc/conftool/local_services.yaml";
/// Where conftool has its configuration.
pub const CONFIG: &str = "/etc/conftool/config.yaml";

#[derive(Debug, Parser)]
#[command(
    name = "safe-service-restart",
    version,
    about = "Restart services without losing a request: leave the load-balancer pools first, come back after",
    override_usage = "safe-service-restart [OPTIONS] --pools POOL... --services UNIT...\n       \
                      safe-service-restart [OPTIONS] --pools POOL... --depool|--pool\n       \
                      safe-service-restart [OPTIONS] --force --services UNIT...\n       \
                      safe-service-restart [OPTIONS] --recover|--status",
    after_help = "Exit status: 0 done; 1 failed, pools as found; 2 usage; 3 restart failed, host left depooled; 4 restarted, repool \
                  not confirmed; 5 not restarted, perhaps depooled; 69 unreachable; 75 try later; 77 not permitted; 78 \
                  configuration.\nSee safe-service-restart(8).",
    max_term_width = 100,
    // Each of these but --status, which goes with --services, excludes the others by itself.
    group(ArgGroup::new("job").required(true).multiple(true).args(["services", "pool", "depool", "recover", "status"])),
    group(ArgGroup::new("looks").args(["recover", "status"]))
)]
pub struct Cli {
    /// Pools to leave and to come back to, by their names in the catalog
    #[arg(long, value_name = "POOL", num_args = 1.., action = ArgAction::Append)]
    pub pools: Vec<PoolName>,

    /// Units to restart, in this order, with or without '.service'
    #[arg(long, value_name = "UNIT", num_args = 1.., action = ArgAction::Append)]
    pub services: Vec<UnitName>,

    /// Only put the host back wherever it is 'no', and see it pooled
    #[arg(long, requires = "pools", conflicts_with_all = ["services", "depool", "recover"])]
    pub pool: bool,

    /// Only take the host out, and see it not pooled
    #[arg(long, requires = "pools", conflicts_with_all = ["services", "recover"])]
    pub depool: bool,

    /// Only finish what a run left that died on this host
    #[arg(long, conflicts_with_all = ["pools", "services", "reload", "dry_run"])]
    pub recover: bool,

    /// Only show how things stand here: pools, load balancers, units, lock, slots, and what a run left; change nothing
    #[arg(long, conflicts_with_all = ["pool", "depool", "recover", "force", "reload", "dry_run"])]
    pub status: bool,

    /// Emergency: restart at once, whatever the pools; requests in flight die
    #[arg(long, conflicts_with_all = ["pool", "depool", "recover"])]
    pub force: bool,

    /// Reload the units instead of restarting them
    #[arg(long, requires = "services", conflicts_with_all = ["pool", "depool"])]
    pub reload: bool,

    /// Read everything, print what would be done and written, change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// The time allowed for load balancers to follow is this many times --wait
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub retries: u32,

    /// The longest pause between two questions to one load balancer
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = positive, allow_negative_numbers = true)]
    pub wait: Duration,

    /// How long one question to a load balancer may take as a whole
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = positive, allow_negative_numbers = true)]
    pub timeout: Duration,

    /// How long load balancers may take to follow each change [default: --retries times --wait]
    #[arg(long, value_name = "TIME", value_parser = positive, allow_negative_numbers = true)]
    pub lb_timeout: Option<Duration>,

    /// How many load balancers of each pool have to confirm; the others may be unreachable, never pooled [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub lb_quorum: Option<u16>,

    /// How long requests in flight get to end, once no load balancer sends any more
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = duration, allow_negative_numbers = true)]
    pub grace_period: Duration,

    /// How long as a whole, that time included, while requests are seen in flight
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration, allow_negative_numbers = true)]
    pub drain_timeout: Duration,

    /// Do not restart while requests are in flight: put the host back if they have not ended in time
    #[arg(long, requires = "pools", conflicts_with = "pool")]
    pub require_drained: bool,

    /// How long a unit that runs may take until it serves
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = duration, allow_negative_numbers = true)]
    pub ready_timeout: Duration,

    /// How long a unit has to stay up to count as restarted [default: 500ms, with --force 0]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_negative_numbers = true)]
    pub settle: Option<Duration>,

    /// How many hosts of these pools may be restarted at once, or which share of the smallest pool ('10%'); 0 is no limit
    #[arg(long, value_name = "N|N%", default_value = "0")]
    pub max_concurrency: Share,

    /// Who counts them: poolcounter if its file exists, else etcd, unless named here
    #[arg(long, value_name = "SERVICE", value_parser = ["poolcounter", "etcd"])]
    pub slots: Option<String>,

    /// How long to wait for a slot [default: 10m, with --force 60s]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_negative_numbers = true)]
    pub slot_timeout: Option<Duration>,

    /// poolcounter's list of daemons
    #[arg(long, value_name = "FILE", default_value = poolcounter::BACKENDS_FILE)]
    pub poolcounter_config: PathBuf,

    /// How many hosts of each pool have to stay pooled, or which share of it, unless the catalog says otherwise
    #[arg(long, value_name = "N|N%", default_value = "50%")]
    pub min_pooled: Share,

    /// How long to wait for another run on this host to end
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration, allow_negative_numbers = true)]
    pub lock_timeout: Duration,

    /// This host's name in the pools [default: its fully qualified name]
    #[arg(long, value_name = "FQDN")]
    pub host: Option<Fqdn>,

    /// The data centre to look pools up in [default: the content of /etc/wikimedia-cluster]
    #[arg(long, value_name = "NAME")]
    pub dc: Option<Tag>,

    /// The catalog of pools
    #[arg(long, value_name = "FILE", default_value = CATALOG)]
    pub catalog: PathBuf,

    /// conftool's configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// conftool's schema; accepted for the sake of old callers, never read
    #[arg(long, value_name = "FILE", default_value = "/etc/conftool/schema.yaml")]
    pub schema: PathBuf,

    /// The kind of conftool object; only 'node' can be handled
    #[arg(long, value_name = "TYPE", default_value = "node", value_parser = ["node"])]
    pub object_type: String,

    /// Why this is done; for the log and the report
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

    /// The run of a fleet tool that this one is a part of; for the log and the report
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub fleet_run: Option<String>,

    /// Print one JSON object on standard output at the end
    #[arg(long)]
    pub json: bool,

    /// With --status or --recover: write what was seen to this file as well, as metrics for Prometheus
    #[arg(long, value_name = "PATH", requires = "looks")]
    pub textfile: Option<PathBuf>,

    /// Say more; twice: what the libraries say, too
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// The original's name for --verbose
    #[arg(long, conflicts_with = "quiet")]
    pub debug: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &str) -> Result<Cli, ErrorKind> {
        let arguments = arguments.split_whitespace();
        Cli::try_parse_from(["safe-service-restart"].into_iter().chain(arguments)).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn several_values_each_and_also_repeated() {
        let cli = parse("--pools a b --services x y.service --pools c --services z").unwrap();
        let pools: Vec<_> = cli.pools.iter().map(PoolName::as_str).collect();
        assert_eq!(pools, ["a", "b", "c"]);
        let units: Vec<_> = cli.services.iter().map(UnitName::as_str).collect();
        assert_eq!(units, ["x.service", "y.service", "z.service"]);
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let cli = parse("--pools a --services x").unwrap();
        assert_eq!((cli.retries, cli.wait, cli.timeout), (5, Duration::from_secs(3), Duration::from_secs(5)));
        assert_eq!(cli.grace_period, Duration::from_secs(3));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let table = [
            "",
            "--pools a",
            "--pool",
            "--depool",
            "--pools a --pool --depool",
            "--pools a --services x --pool",
            "--pools a --force --depool",
            "--pools a --depool --reload",
            "--pools a/b --services x",
            "--pools a --services -H",
            "--pools a --services php.socket",
            "--pools a --services x --retries 0",
            "--pools a --services x --timeout 0",
            "--pools a --services x --wait -1",
            "--pools a --services x --lb-quorum 0",
            "--pools a --services x --object-type service",
            "--pools a --services x --host mw1",
            "--pools a --services x -q -v",
            "--pools a --services x --depool",
            "--services x --recover",
            "--pools a --pool --recover",
            "--status --recover",
            "--status --pools a --pool",
            "--status --pools a --depool",
            "--status --services x --force",
            "--status --services x --reload",
            "--status --dry-run",
            "--pools a --services x --textfile /f",
            "--pools a --services x stray",
        ];
        for arguments in table {
            // A stray word is one more unit; everything else has to be refused.
            assert_eq!(parse(arguments).is_err(), !arguments.ends_with("stray"), "{arguments}");
        }
    }

    #[test]
    fn a_status_goes_with_everything_that_says_where_to_look() {
        for arguments in ["", "--pools a", "--services x", "--pools a --services x --json --textfile /f", "--host a.b"]
        {
            assert!(parse(&format!("--status {arguments}")).unwrap().status, "{arguments}");
        }
        assert!(parse("--recover --textfile /f").unwrap().textfile.is_some());
    }

    #[test]
    fn a_reason_is_one_line() {
        let with = |text: &str| Cli::try_parse_from(["x", "--services", "a", "--reason", text]).map(|cli| cli.reason);
        assert_eq!(with("deploy of 1.43").unwrap().as_deref(), Some("deploy of 1.43"));
        assert!(with("two\nlines").is_err());
        assert!(with(&"x".repeat(513)).is_err());
    }
}
