//! A unit's main command, as `systemctl show --property=ExecStart` prints it, and what its options say: which configuration it reads,
//! and how to test that configuration without starting anything.
//!
//! The options are those of `php-fpm8.2 -h`, read as PHP's own getopt reads them.

use std::path::{Path, PathBuf};

/// Where PHP-FPM looks for relative paths unless `--prefix` says otherwise: Debian builds it with this prefix.
const PREFIX: &str = "/usr";

/// Options that take a value, by letter and name.
const WITH_VALUE: [(char, &str); 5] =
    [('c', "php-ini"), ('d', "define"), ('g', "pid"), ('p', "prefix"), ('y', "fpm-config")];

/// Options that take none.
const WITHOUT_VALUE: [(char, &str); 11] = [
    ('e', "profile-info"),
    ('h', "help"),
    ('?', "usage"),
    ('i', "info"),
    ('m', "modules"),
    ('n', "no-php-ini"),
    ('v', "version"),
    ('t', "test"),
    ('D', "daemonize"),
    ('F', "nodaemonize"),
    ('O', "force-stderr"),
];

/// The option of its own that has no short help but is one.
const AS_ROOT: (char, &str) = ('R', "allow-to-run-as-root");

/// The command of a PHP-FPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: PathBuf,
    /// Without the first, the program's name.
    arguments: Vec<String>,
    configuration: PathBuf,
    prefix: PathBuf,
}

/// Why a unit's command is not one of PHP-FPM that can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is not what `systemctl show --property=ExecStart` prints.
    #[error("'{0}' is not a command as systemctl shows it")]
    NotExecStart(String),
    /// The unit starts more than one program, or none.
    #[error("the unit starts {0} programs instead of one")]
    NotOne(usize),
    /// Another program.
    #[error("'{0}' is not PHP-FPM")]
    NotPhpFpm(PathBuf),
    /// systemd fills it in from an environment that is not known here.
    #[error("the argument '{0}' is filled in from the unit's environment: write it out")]
    Variable(String),
    /// No option of PHP-FPM's.
    #[error("PHP-FPM has no option '{0}'")]
    Option(String),
    /// An option without its value.
    #[error("the option '{0}' has no value")]
    NoValue(String),
    /// No option says which configuration is read, and the program's name has no version that would.
    #[error("'{0}' does not say which configuration it reads: add '--fpm-config FILE'")]
    NoConfiguration(PathBuf),
    /// What it is relative to is the unit's own matter.
    #[error("'{0}' is not an absolute path")]
    Relative(PathBuf),
}

impl CommandLine {
    /// Reads the value of `ExecStart`, with or without `ExecStart=` before it:
    /// `{ path=/usr/sbin/php-fpm8.2 ; argv[]=/usr/sbin/php-fpm8.2 --nodaemonize ; ignore_errors=no ; ... }`.
    /// systemd joins the arguments by spaces, so that one with a space in it cannot be told from two.
    pub fn from_exec_start(text: &str) -> Result<Self, CommandError> {
        let wrong = || CommandError::NotExecStart(crate::printable::printable(text.trim().as_bytes()));
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let [line] = lines[..] else { return Err(CommandError::NotOne(lines.len())) };
        let line = line.strip_prefix("ExecStart=").unwrap_or(line);
        if line.is_empty() {
            return Err(CommandError::NotOne(0));
        }
        let inside = line.strip_prefix("{ path=").and_then(|line| line.strip_suffix('}')).ok_or_else(wrong)?;
        let (program, rest) = inside.split_once(" ; argv[]=").ok_or_else(wrong)?;
        // After the arguments comes `ignore_errors=`, or `flags=` of ExecStartEx; arguments may hold nearly anything.
        let end =
            [" ; ignore_errors=", " ; flags="].iter().filter_map(|mark| rest.rfind(mark)).max().ok_or_else(wrong)?;
        let arguments: Vec<String> =
            rest.get(..end).unwrap_or_default().split_ascii_whitespace().skip(1).map(ToOwned::to_owned).collect();
        Self::new(Path::new(program), arguments)
    }

    /// A program's path with its arguments, the program's name not among them.
    pub fn new(program: &Path, arguments: Vec<String>) -> Result<Self, CommandError> {
        let version = version(program).ok_or_else(|| CommandError::NotPhpFpm(program.to_owned()))?;
        if let Some(variable) = arguments.iter().find(|argument| argument.contains('$')) {
            return Err(CommandError::Variable(variable.clone()));
        }
        let options = options(&arguments)?;
        // The last one counts, of each.
        let last =
            |letter| options.iter().rev().find(|(found, _)| *found == letter).map(|(_, value)| PathBuf::from(value));
        let prefix = last('p');
        let configuration = match (last('y'), &prefix, version) {
            (Some(file), _, _) => file,
            (None, Some(prefix), _) => prefix.join("etc/php-fpm.conf"),
            (None, None, Some(version)) => PathBuf::from(format!("/etc/php/{version}/fpm/php-fpm.conf")),
            (None, None, None) => return Err(CommandError::NoConfiguration(program.to_owned())),
        };
        let prefix = prefix.unwrap_or_else(|| PathBuf::from(PREFIX));
        for path in [program, configuration.as_path(), prefix.as_path()] {
            if !path.is_absolute() {
                return Err(CommandError::Relative(path.to_owned()));
            }
        }
        Ok(Self { program: program.to_owned(), arguments, configuration, prefix })
    }

    /// The program, by its absolute path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The version in its name, as in `php-fpm8.2`; none in `php-fpm`.
    pub fn version(&self) -> Option<&str> {
        version(&self.program).flatten()
    }

    /// The configuration file it begins with: that of `--fpm-config`, otherwise where Debian's package of that version has it.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// What relative paths in the configuration are relative to.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The arguments for [`Self::program`] to test this unit's configuration and start nothing. PHP-FPM then exits with 0, or
    /// with 78 and its reasons on standard error; like a start it creates and writes its `error_log`.
    pub fn test_arguments(&self) -> Vec<String> {
        [&["--test".to_owned()], &self.arguments[..]].concat()
    }
}

/// The version in a program's name, none in one without; `None` if it is no PHP-FPM.
fn version(program: &Path) -> Option<Option<&str>> {
    let rest = program.file_name()?.to_str()?.strip_prefix("php-fpm")?;
    if rest.is_empty() {
        return Some(None);
    }
    let (major, minor) = rest.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(major) && is_number(minor)).then_some(Some(rest))
}

/// The options by their letters, in order, with their values, empty where they take none. The value of a long option comes after
/// `=` or as the next argument; that of a letter also right behind it, and letters without values may stand together.
fn options(arguments: &[String]) -> Result<Vec<(char, String)>, CommandError> {
    let mut options = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let unknown = || CommandError::Option(argument.clone());
        let mut next = || arguments.next().cloned().ok_or_else(|| CommandError::NoValue(argument.clone()));
        if let Some(long) = argument.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            if let Some((letter, _)) = WITH_VALUE.iter().find(|(_, found)| *found == name) {
                options.push((*letter, value.map_or_else(next, Ok)?));
            } else {
                let mut flags = WITHOUT_VALUE.iter().chain([&AS_ROOT]);
                let (letter, _) = flags.find(|(_, found)| *found == name).ok_or_else(unknown)?;
                options.push((*letter, String::new()));
            }
            continue;
        }
        let mut letters = argument.strip_prefix('-').filter(|letters| !letters.is_empty()).ok_or_else(unknown)?.chars();
        while let Some(letter) = letters.next() {
            if WITH_VALUE.iter().any(|(found, _)| *found == letter) {
                let rest = letters.as_str();
                let value = if rest.is_empty() { next()? } else { rest.strip_prefix('=').unwrap_or(rest).to_owned() };
                options.push((letter, value));
                break;
            }
            if !WITHOUT_VALUE.iter().chain([&AS_ROOT]).any(|(found, _)| *found == letter) {
                return Err(unknown());
            }
            options.push((letter, String::new()));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As systemd 252 prints it for Debian's unit.
    const DEBIAN: &str = "ExecStart={ path=/usr/sbin/php-fpm8.2 ; argv[]=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config \
                          /etc/php/8.2/fpm/php-fpm.conf ; ignore_errors=no ; start_time=[Sun 2026-11-22 10:00:00 UTC] ; \
                          stop_time=[n/a] ; pid=71 ; code=(null) ; status=0/0 }\n";

    fn command(arguments: &str) -> Result<CommandLine, String> {
        let arguments = arguments.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        CommandLine::new(Path::new("/usr/sbin/php-fpm8.2"), arguments).map_err(|error| error.to_string())
    }

    fn configuration(arguments: &str) -> Result<String, String> {
        command(arguments).map(|command| command.configuration().display().to_string())
    }

    #[test]
    fn debians_unit_is_understood() {
        for text in [DEBIAN, DEBIAN.strip_prefix("ExecStart=").unwrap(), DEBIAN.trim()] {
            let command = CommandLine::from_exec_start(text).unwrap();
            assert_eq!(command.program(), Path::new("/usr/sbin/php-fpm8.2"));
            assert_eq!(command.version(), Some("8.2"));
            assert_eq!(command.configuration(), Path::new("/etc/php/8.2/fpm/php-fpm.conf"));
            assert_eq!(command.prefix(), Path::new("/usr"));
            let expected = ["--test", "--nodaemonize", "--fpm-config", "/etc/php/8.2/fpm/php-fpm.conf"];
            assert_eq!(command.test_arguments(), expected);
        }
    }

    #[test]
    fn the_extended_form_and_arguments_that_look_like_its_end_are_understood() {
        let text = "{ path=/usr/sbin/php-fpm7.4 ; argv[]=php-fpm7.4 -d x=\" ; ignore_errors=no ; \" ; flags= ; pid=0 }";
        let command = CommandLine::from_exec_start(text);
        // The spaces in the argument are lost, which is why it is no option any more.
        assert_eq!(command, Err(CommandError::Option(";".to_owned())));
        let text = "{ path=/usr/sbin/php-fpm7.4 ; argv[]=php-fpm7.4 -F ; flags= ; pid=0 }";
        assert_eq!(
            CommandLine::from_exec_start(text).unwrap().configuration(),
            Path::new("/etc/php/7.4/fpm/php-fpm.conf")
        );
    }

    #[test]
    fn the_configuration_is_found_in_every_form_of_the_option() {
        for arguments in [
            "-y /a.conf",
            "-y/a.conf",
            "-y=/a.conf",
            "--fpm-config /a.conf",
            "--fpm-config=/a.conf",
            "-y /b.conf -y /a.conf",
            "-FOny /a.conf",
            "-c /etc/php -d a=b -R --fpm-config /a.conf --allow-to-run-as-root --pid /run/x",
            "--prefix /srv --fpm-config=/a.conf",
        ] {
            assert_eq!(configuration(arguments).as_deref(), Ok("/a.conf"), "{arguments}");
        }
        assert_eq!(configuration("--nodaemonize").as_deref(), Ok("/etc/php/8.2/fpm/php-fpm.conf"));
        assert_eq!(configuration("-F -p /srv/php").as_deref(), Ok("/srv/php/etc/php-fpm.conf"));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_that_says_what() {
        let table = [
            ("--fpm-config $FILE", "the argument '$FILE' is filled in from the unit's environment: write it out"),
            ("-F ${OPTIONS}", "the argument '${OPTIONS}' is filled in from the unit's environment: write it out"),
            ("--fpm-confi /x", "PHP-FPM has no option '--fpm-confi'"),
            ("-x", "PHP-FPM has no option '-x'"),
            ("-", "PHP-FPM has no option '-'"),
            ("start", "PHP-FPM has no option 'start'"),
            ("-F -y", "the option '-y' has no value"),
            ("--fpm-config", "the option '--fpm-config' has no value"),
            ("-y etc/x.conf", "'etc/x.conf' is not an absolute path"),
            ("-p srv -y /x", "'srv' is not an absolute path"),
        ];
        for (arguments, expected) in table {
            assert_eq!(configuration(arguments), Err(expected.to_owned()), "{arguments}");
        }
        let error = |program: &str| CommandLine::new(Path::new(program), Vec::new()).unwrap_err().to_string();
        assert_eq!(
            error("/usr/sbin/php-fpm"),
            "'/usr/sbin/php-fpm' does not say which configuration it reads: add '--fpm-config FILE'"
        );
        for program in ["/usr/sbin/nginx", "/usr/sbin/php-fpmx", "/usr/sbin/php-fpm8", "/usr/sbin/php-fpm8.2a", "/"] {
            assert_eq!(error(program), format!("'{program}' is not PHP-FPM"));
        }
        assert_eq!(error("php-fpm8.2"), "'php-fpm8.2' is not an absolute path");
    }

    #[test]
    fn what_systemctl_does_not_print_is_an_error() {
        let error = |text: &str| CommandLine::from_exec_start(text).unwrap_err().to_string();
        assert_eq!(error(""), "the unit starts 0 programs instead of one");
        assert_eq!(error("ExecStart=\n"), "the unit starts 0 programs instead of one");
        assert_eq!(error(&format!("{DEBIAN}{DEBIAN}")), "the unit starts 2 programs instead of one");
        assert_eq!(error("/usr/sbin/php-fpm8.2"), "'/usr/sbin/php-fpm8.2' is not a command as systemctl shows it");
        assert!(error("{ path=/usr/sbin/php-fpm8.2 }").ends_with("is not a command as systemctl shows it"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = CommandLine::from_exec_start(&text);
            let _ = CommandLine::from_exec_start(&format!("{{ path=/php-fpm8.2 ; argv[]={text} ; ignore_errors=no ; }}"));
        }
    }
}
