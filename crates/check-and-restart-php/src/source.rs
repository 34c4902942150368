//! Where the figures of a unit come from: its own PHP-FPM, which runs the helper script, or the admin site of its version. Which one
//! was asked is said; what neither tells is an error, never a guess.

use std::path::Path;
use std::time::Duration;

use host::trusted;
use php_fpm::{
    AdminSite, CommandError, CommandLine, Figures, Helper, NETRC_FILE, Opcache, Pool, ReadWith, Source, VERSIONS_FILE,
    discover,
};
use restart_core::{ActiveState, ExitCode, Failure, LoadState, ServiceManager, UnitName};

/// Asks for figures.
pub struct Asker<'a> {
    /// Knows what a unit runs.
    pub services: &'a mut dyn ServiceManager,
    /// Whether only the admin site is asked.
    pub admin_site: bool,
    /// How long one question may take.
    pub timeout: Duration,
    /// Whether it was said that the admin site has to do: once for a unit, however often it is asked.
    pub is_fallback_said: bool,
}

/// What a unit said.
pub struct Reading {
    /// Who was asked, in words.
    pub asked: String,
    /// Who was asked, to be asked again.
    pub source: Source,
    /// What they said.
    pub figures: Figures,
}

impl Asker<'_> {
    /// The figures of a unit.
    pub fn read(&mut self, unit: &UnitName) -> Result<Reading, Failure> {
        let command = self.command(unit)?;
        if self.admin_site {
            return self.ask_site(unit, &command);
        }
        let failure = match self.ask_pools(&command) {
            Ok(reading) => return Ok(reading),
            Err(failure) => failure,
        };
        // A host that Puppet prepared for the original has an admin site; any other has nothing else to ask.
        if !Path::new(VERSIONS_FILE).exists() {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.is_fallback_said, true) {
            log::warn!("'{unit}' cannot be asked itself, so its admin site is: {failure}");
        }
        self.ask_site(unit, &command)
            .map_err(|other| Failure::new(failure.code, format!("{failure}; and from the admin site: {other}")))
    }

    /// What the unit runs, if it runs. Whoever says the error says whose it is.
    fn command(&mut self, unit: &UnitName) -> Result<CommandLine, Failure> {
        let wrong = |why: &str| Failure::new(ExitCode::Configuration, format!("it {why}"));
        let status =
            self.services.status(unit).map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()))?;
        match &status.load {
            LoadState::Loaded => {}
            LoadState::NotFound => return Err(wrong("does not exist on this host")),
            LoadState::Masked => return Err(wrong("is masked")),
            LoadState::Other(word) => return Err(wrong(&format!("cannot be used: systemd says '{word}'"))),
        }
        let command = status.command.as_deref().ok_or_else(|| wrong("runs nothing"))?;
        let command = CommandLine::from_exec_start(command).map_err(|error| match error {
            CommandError::NotPhpFpm(program) => wrong(&format!("is no PHP-FPM: it runs '{}'", program.display())),
            other => wrong(&format!("cannot be asked: {other}")),
        })?;
        match status.active {
            ActiveState::Active | ActiveState::Reloading => Ok(command),
            other => Err(Failure::new(ExitCode::Unreachable, format!("it does not run: it is {}", other.as_str()))),
        }
    }

    /// Asks the pools one after the other. All share both caches, so one that tells of a working opcache tells everything; but a pool may
    /// have opcache switched off for itself alone, see no helper script, or be busy. That it is off for one says nothing while another does
    /// not answer.
    fn ask_pools(&self, command: &CommandLine) -> Result<Reading, Failure> {
        let wrong = |why: String| Failure::new(ExitCode::Configuration, why);
        let configuration = discover(command, &mut ReadWith(trusted::read_lossy))
            .map_err(|error| wrong(format!("cannot find the pools: {error}")))?;
        let mut second_best = None;
        let mut failures = Vec::new();
        for pool in &configuration.pools {
            match self.ask_pool(pool, command) {
                Ok(reading) if matches!(reading.figures.opcache, Opcache::On(_)) => return Ok(reading),
                Ok(reading) => second_best = second_best.or(Some(reading)),
                Err(why) => failures.push(why),
            }
        }
        match (second_best, failures.is_empty()) {
            (_, false) => Err(Failure::new(ExitCode::Unreachable, failures.join("; "))),
            (Some(reading), true) => Ok(reading),
            (None, true) => Err(wrong(format!("there is no pool in '{}'", command.configuration().display()))),
        }
    }

    fn ask_pool(&self, pool: &Pool, command: &CommandLine) -> Result<Reading, String> {
        let source = Source::Helper(Helper::new(pool));
        let asked = format!("pool '{}' at '{}'", pool.name, pool.listen);
        let figures = source.read(self.timeout).map_err(|error| format!("cannot read the {error}"))?;
        // Two units may be told to listen at the same place, and the other one answers.
        if let (Some(ours), Some(answer)) = (command.version(), figures.php.as_deref())
            && !answer.strip_prefix(ours).is_some_and(|rest| rest.starts_with('.'))
        {
            return Err(format!("{asked} is answered by PHP {answer}, and not by this unit's {ours}"));
        }
        Ok(Reading { asked, source, figures })
    }

    /// Asks the admin site of the unit's version. A version has one site, so a second unit of that version cannot be asked there.
    fn ask_site(&self, unit: &UnitName, command: &CommandLine) -> Result<Reading, Failure> {
        let wrong = |why: String| Failure::new(ExitCode::Configuration, why);
        let version = site_version(unit)
            .filter(|version| command.version().is_none_or(|ours| ours == *version))
            .ok_or_else(|| wrong(format!("an admin site is that of a 'phpX.Y-fpm', which '{unit}' is not")))?;
        let (versions, netrc) = (open(VERSIONS_FILE)?, open(NETRC_FILE)?);
        let site =
            AdminSite::new(version, versions.as_deref(), netrc.as_deref()).map_err(|error| wrong(error.to_string()))?;
        let source = Source::AdminSite(site);
        let figures = source
            .read(self.timeout)
            .map_err(|error| Failure::new(ExitCode::Unreachable, format!("cannot read the {error}")))?;
        Ok(Reading { asked: format!("the admin site of PHP {version}"), source, figures })
    }
}

fn open(path: &str) -> Result<Option<String>, Failure> {
    Ok(trusted::read(Path::new(path))?)
}

/// The version in the name of a unit as Debian names it.
fn site_version(unit: &UnitName) -> Option<&str> {
    unit.as_str().strip_prefix("php")?.strip_suffix("-fpm.service").filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use restart_core::{ServiceError, UnitStatus, Verb};

    use super::*;

    struct Fake(Result<UnitStatus, ServiceError>);

    impl ServiceManager for Fake {
        fn status(&mut self, _: &UnitName) -> Result<UnitStatus, ServiceError> {
            self.0.clone()
        }

        fn run(&mut self, _: Verb, _: &UnitName, _: Duration) -> Result<(), ServiceError> {
            unreachable!("nothing is run")
        }

        fn going_down(&mut self) -> bool {
            false
        }
    }

    fn status(command: &str) -> UnitStatus {
        UnitStatus {
            load: LoadState::Loaded,
            active: ActiveState::Active,
            sub: "running".to_owned(),
            main_pid: Some(30),
            invocation: None,
            restarts: 0,
            result: "success".to_owned(),
            job: false,
            can_reload: true,
            limit: None,
            command: Some(format!("{{ path={command} ; argv[]={command} --nodaemonize ; ignore_errors=no }}")),
        }
    }

    fn unit() -> UnitName {
        UnitName::new("php8.2-fpm").unwrap()
    }

    fn failure(status: Result<UnitStatus, ServiceError>) -> (u8, String) {
        let mut services = Fake(status);
        let timeout = Duration::from_secs(1);
        let mut asker = Asker { services: &mut services, admin_site: true, timeout, is_fallback_said: false };
        let failure = asker.read(&unit()).err().unwrap();
        (failure.code.number(), failure.message)
    }

    #[test]
    fn a_unit_that_cannot_be_asked_is_an_error_that_says_why() {
        let fpm = || status("/usr/sbin/php-fpm8.2");
        let table = [
            (Err(ServiceError("no bus".to_owned())), 69, "no bus"),
            (Ok(UnitStatus { load: LoadState::NotFound, ..fpm() }), 78, "it does not exist on this host"),
            (Ok(UnitStatus { load: LoadState::Masked, ..fpm() }), 78, "it is masked"),
            (Ok(UnitStatus { command: None, ..fpm() }), 78, "it runs nothing"),
            (Ok(status("/usr/sbin/nginx")), 78, "it is no PHP-FPM: it runs '/usr/sbin/nginx'"),
            (Ok(UnitStatus { active: ActiveState::Failed, ..fpm() }), 69, "it does not run: it is failed"),
            (
                Ok(status("/usr/sbin/php-fpm7.4")),
                78,
                "an admin site is that of a 'phpX.Y-fpm', which 'php8.2-fpm.service' is not",
            ),
        ];
        for (status, code, words) in table {
            assert_eq!(failure(status), (code, words.to_owned()));
        }
    }

    #[test]
    fn an_admin_site_is_that_of_a_version() {
        let version = |unit: &str| site_version(&UnitName::new(unit).unwrap()).map(ToOwned::to_owned);
        assert_eq!(version("php8.2-fpm").as_deref(), Some("8.2"));
        for other in ["php-fpm", "php8.2-fpm-admin", "fpm", "nginx"] {
            assert_eq!(version(other), None, "{other}");
        }
    }
}
