//! Which units are to run on this host: those that are enabled, by a pattern of their names.

use std::process::Command;

use restart_core::{ServiceError, UnitName};

use super::{SHOW, Systemctl, words};
use crate::child;

impl Systemctl {
    /// The enabled service units whose names match systemd's pattern (`php*-fpm.service`), in the order of their names. An alias is
    /// not among them: it is another name of one that is.
    pub fn enabled(&mut self, pattern: &str) -> Result<Vec<UnitName>, ServiceError> {
        let mut command = Command::new(&self.path);
        command.env_clear().args(["--no-ask-password", "--no-pager", "--no-legend", "--plain", "--full"]);
        command.args(["--type=service", "--state=enabled,enabled-runtime", "list-unit-files", "--", pattern]);
        let finished = child::run(&mut command, SHOW).map_err(|error| self.unstarted(&error))?;
        // With no match it prints nothing and succeeds, or fails without a word, by its version.
        if !finished.status.success() && !finished.stderr.trim_ascii().is_empty() {
            return Err(ServiceError(words(&finished)));
        }
        units(&String::from_utf8_lossy(&finished.stdout))
    }
}

/// Reads `UNIT STATE PRESET`, a unit a line.
fn units(output: &str) -> Result<Vec<UnitName>, ServiceError> {
    let names = output.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let mut units = names
        .map(|name| {
            UnitName::new(name).map_err(|error| ServiceError(format!("cannot use what systemctl lists: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    units.sort();
    units.dedup();
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_off_systemctls_list() {
        // systemd 252.
        let list = "php8.2-fpm.service enabled enabled\nphp7.4-fpm.service enabled-runtime disabled\n";
        let names = |list| units(list).map(|units| units.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(list).unwrap(), ["php7.4-fpm.service", "php8.2-fpm.service"]);
        assert_eq!(names("").unwrap(), [""; 0]);
        assert!(
            names("php@.service enabled enabled\n").unwrap_err().0.contains("'php@.service' is not a service unit")
        );
    }
}
