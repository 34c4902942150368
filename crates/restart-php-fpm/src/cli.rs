//! What can be typed. The deploy user may type nothing but `--force` or `--request -` (see `sudoers.d/`); the rest is for root.

use std::time::SystemTime;

use clap::{ArgAction, Parser};
use host::words::{reason, time};
use restart_core::UnitName;

#[derive(Debug, Parser)]
#[command(
    name = "restart-php-fpm",
    version,
    about = "Restart this host's PHP-FPM without losing a request, as /etc/restart-php-fpm.yaml says",
    after_help = "Exit status: that of safe-service-restart: 0 done; 1 failed, pools as found; 2 usage; 3 restart failed, host left \
                  depooled; 4 restarted, repool not confirmed; 5 not restarted, perhaps depooled; 69 unreachable; 75 try \
                  later; 77 not permitted; 78 configuration.\nSee restart-php-fpm(8).",
    max_term_width = 100
)]
pub struct Cli {
    /// Emergency: restart at once, whatever the pools and the configuration; requests in flight die
    #[arg(long)]
    pub force: bool,

    /// Reload in place of restarting
    #[arg(long)]
    pub reload: bool,

    /// Test the configuration, print what would be done and written, change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Only these units, with or without '.service' [default: those of the file, else every enabled php*-fpm unit]
    #[arg(long, value_name = "UNIT", num_args = 1.., action = ArgAction::Append)]
    pub services: Vec<UnitName>,

    /// Do nothing where every unit was started after this time: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "force")]
    pub unless_restarted_since: Option<SystemTime>,

    /// Take all of this from one JSON object on standard input, and answer in JSON
    #[arg(long, value_name = "-", value_parser = ["-"], exclusive = true)]
    pub request: Option<String>,

    /// Why this is done; for the log and the report
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["restart-php-fpm"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for arguments in [
            "stray",
            "--services -H",
            "--services php.socket",
            "--request file",
            "--request - --force",
            "--request - --json",
            "--force --unless-restarted-since @1",
            "--unless-restarted-since yesterday",
            "-q -v",
            "--config /tmp/x",
        ] {
            assert!(parse(arguments).is_err(), "'{arguments}' passed");
        }
        for arguments in ["", "--force", "--request -", "--reload --dry-run --json", "--services php8.2-fpm --reason x"]
        {
            assert!(parse(arguments).is_ok(), "'{arguments}' did not pass");
        }
    }
}
