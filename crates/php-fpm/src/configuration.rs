//! The configuration that a unit's PHP-FPM reads: its file and every file that is included, down to the pools. The rules of reading
//! are PHP-FPM's own, odd ones among them: a section goes on into an included file and back out of it, a section met again is
//! continued, names are the same in either case, and of two values the later counts.
//!
//! This is not a test of the configuration. What PHP-FPM would refuse may pass here, and
//! [`CommandLine::test_arguments`] is how to have it tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::allowed_clients::AllowedClients;
use crate::command_line::CommandLine;
use crate::files::Files;
use crate::glob;
use crate::ini::{self, Entry, LineFault};
use crate::pool::Pool;

/// How deep files may include each other; PHP-FPM's own limit.
const DEEPEST: usize = 5;
/// How many files are read, one read twice counted twice. A host with a thousand pools would start ten thousand processes.
const MOST_FILES: usize = 1000;
/// How much text is read, in bytes, over all files.
const LONGEST: usize = 16 * 1024 * 1024;

/// The directives of a pool that matter here.
const OF_POOLS: [&str; 11] = [
    "listen",
    "listen.allowed_clients",
    "prefix",
    "chroot",
    "user",
    "group",
    "pm.status_path",
    "pm.status_listen",
    "ping.path",
    "ping.response",
    "request_terminate_timeout",
];

/// What a PHP-FPM was told, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// How long a reload, and a graceful stop, waits for requests in flight: `process_control_timeout`. With zero they are cut off.
    pub process_control_timeout: Duration,
    /// The pools, in the order in which they were first named.
    pub pools: Vec<Pool>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Why a configuration cannot be understood. `E` is the error of the [`Files`] that were given.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError<E: std::error::Error + 'static> {
    /// The file that the unit names is not there.
    #[error("there is no '{}'", .0.display())]
    NoFile(PathBuf),
    /// A file or folder was not opened.
    #[error(transparent)]
    Files(E),
    /// A line that cannot be read, or is beyond this reader.
    #[error("'{}' line {line}: {fault}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From one.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A value that cannot be used.
    #[error("'{}' line {line}: '{directive}' is '{value}', which is not {expected}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// From one.
        line: usize,
        /// The directive.
        directive: String,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Files include each other more deeply than PHP-FPM allows.
    #[error("'{}' is included more than {DEEPEST} deep", .0.display())]
    TooDeep(PathBuf),
    /// More files, or longer ones, than are read.
    #[error("'{}' and what it includes are more than {MOST_FILES} files or {} MiB", .0.display(), LONGEST / 1024 / 1024)]
    TooMuch(PathBuf),
    /// There is no pool, so that PHP-FPM would not start.
    #[error("'{}' has no pool", .0.display())]
    NoPool(PathBuf),
    /// A pool does not say where it listens, so that PHP-FPM would not start.
    #[error("pool '{pool}' has no address: add 'listen = /run/php/{pool}.sock' to '{}'", file.display())]
    NoListen {
        /// The pool.
        pool: String,
        /// The file that begins it.
        file: PathBuf,
    },
}

/// Reads the configuration of the PHP-FPM that this command starts. PHP-FPM itself may have been started with an older one.
pub fn discover<F: Files>(command: &CommandLine, files: &mut F) -> Result<Configuration, ConfigurationError<F::Error>> {
    let main = command.configuration();
    let mut reader = Reader {
        files,
        prefix: command.prefix(),
        main,
        global: BTreeMap::new(),
        drafts: Vec::new(),
        current: None,
        read: Vec::new(),
        length: 0,
    };
    if !reader.load(main, 0)? {
        return Err(ConfigurationError::NoFile(main.to_owned()));
    }
    let Reader { global, drafts, read, .. } = reader;
    if drafts.is_empty() {
        return Err(ConfigurationError::NoPool(main.to_owned()));
    }
    let process_control_timeout = match global.get("process_control_timeout") {
        Some(set) => set.seconds()?,
        None => Duration::ZERO,
    };
    let pools = drafts.into_iter().map(|draft| draft.finish(command.prefix())).collect::<Result<_, _>>()?;
    Ok(Configuration { process_control_timeout, pools, files: read })
}

/// A value with where it stands.
#[derive(Debug, Clone)]
struct Set {
    directive: String,
    value: String,
    file: PathBuf,
    line: usize,
}

impl Set {
    fn unusable<E: std::error::Error>(&self, expected: &'static str) -> ConfigurationError<E> {
        let Self { directive, value, file, line } = self.clone();
        let value = crate::printable::printable(value.as_bytes());
        ConfigurationError::Value { file, line, directive, value, expected }
    }

    fn address<E: std::error::Error>(&self, prefix: &Path) -> Result<Address, ConfigurationError<E>> {
        Address::parse(&self.value, prefix).map_err(|_| self.unusable("the path of a socket or a port"))
    }

    /// A time as PHP-FPM writes it: a number, whole seconds unless it ends in `m`, `h` or `d`. A negative one is none.
    fn seconds<E: std::error::Error>(&self) -> Result<Duration, ConfigurationError<E>> {
        let (number, unit) = match self.value.as_bytes().last() {
            Some(b'm') => (self.value.strip_suffix('m'), 60),
            Some(b'h') => (self.value.strip_suffix('h'), 3600),
            Some(b'd') => (self.value.strip_suffix('d'), 86_400),
            Some(b's') => (self.value.strip_suffix('s'), 1),
            _ => (Some(self.value.as_str()), 1),
        };
        let number = number.and_then(|number| number.trim().parse::<i32>().ok());
        let number = number.ok_or_else(|| self.unusable("a time such as '90', '90s', '2m', '1h' or '1d'"))?;
        Ok(Duration::from_secs(u64::try_from(number).unwrap_or(0) * unit))
    }
}

/// A pool being read.
#[derive(Debug)]
struct Draft {
    name: String,
    /// Which file begins it.
    file: PathBuf,
    set: BTreeMap<&'static str, Set>,
}

impl Draft {
    fn finish<E: std::error::Error>(self, unit_prefix: &Path) -> Result<Pool, ConfigurationError<E>> {
        let Self { name, file, set } = self;
        let given = |directive: &str| set.get(directive).filter(|set| !set.value.is_empty());
        let text = |directive: &str| given(directive).map(|set| set.value.clone());
        let prefix = given("prefix").map(|set| unit_prefix.join(&set.value));
        let base = prefix.as_deref().unwrap_or(unit_prefix);
        let Some(listen) = given("listen") else { return Err(ConfigurationError::NoListen { pool: name, file }) };
        // The page's own listener is a pool of its own to PHP-FPM, and one without the pool's prefix.
        let status_listen = given("pm.status_listen").map(|set| set.address(unit_prefix)).transpose()?;
        let chroot = text("chroot").map(|path| match path.strip_prefix("$prefix") {
            // A plain join would take what follows for a path from the root.
            Some(rest) => base.join(rest.trim_start_matches('/')),
            None => base.join(path),
        });
        let terminate = given("request_terminate_timeout").map(Set::seconds).transpose()?;
        Ok(Pool {
            listen: listen.address(base)?,
            // One that is empty lets in nobody.
            allowed_clients: set.get("listen.allowed_clients").map(|set| AllowedClients::parse(&set.value)),
            // With a listener of its own the page has a path even if none is given.
            status_path: text("pm.status_path").or_else(|| status_listen.is_some().then(|| "/".to_owned())),
            status_listen,
            ping_path: text("ping.path"),
            ping_response: text("ping.response").unwrap_or_else(|| "pong".to_owned()),
            chroot,
            prefix,
            user: text("user"),
            group: text("group"),
            request_terminate_timeout: terminate.filter(|time| !time.is_zero()),
            name,
            file,
        })
    }
}

struct Reader<'a, F> {
    files: &'a mut F,
    prefix: &'a Path,
    main: &'a Path,
    global: BTreeMap<&'static str, Set>,
    drafts: Vec<Draft>,
    /// The pool whose section we are in; `None` in `[global]`.
    current: Option<usize>,
    read: Vec<PathBuf>,
    length: usize,
}

impl<F: Files> Reader<'_, F> {
    /// Reads a file and what it includes; false if there is none.
    fn load(&mut self, file: &Path, depth: usize) -> Result<bool, ConfigurationError<F::Error>> {
        let Some(text) = self.files.read(file).map_err(ConfigurationError::Files)? else { return Ok(false) };
        if depth >= DEEPEST {
            return Err(ConfigurationError::TooDeep(file.to_owned()));
        }
        self.length += text.len();
        self.read.push(file.to_owned());
        if self.read.len() > MOST_FILES || self.length > LONGEST {
            return Err(ConfigurationError::TooMuch(self.main.to_owned()));
        }
        for (position, text) in text.split('\n').enumerate() {
            let number = position + 1;
            let wrong = |fault| ConfigurationError::Line { file: file.to_owned(), line: number, fault };
            let line = ini::line(text).map_err(wrong)?;
            if let Some(name) = line.section {
                self.enter(name, file);
            }
            let Some(entry) = line.entry else { continue };
            // Of this one name the case matters.
            if entry.name == "include" {
                let pattern = entry.value().map_err(wrong)?;
                if !pattern.is_empty() {
                    self.include(&self.prefix.join(pattern), depth)?;
                }
            } else {
                self.set(entry, file, number).map_err(wrong)?;
            }
        }
        Ok(true)
    }

    /// A pattern that nothing matches is no error to PHP-FPM, only a warning.
    fn include(&mut self, pattern: &Path, depth: usize) -> Result<(), ConfigurationError<F::Error>> {
        for path in glob::expand(pattern, self.files).map_err(ConfigurationError::Files)? {
            self.load(&path, depth + 1)?;
        }
        Ok(())
    }

    fn enter(&mut self, name: String, file: &Path) {
        if name.eq_ignore_ascii_case("global") {
            self.current = None;
            return;
        }
        let known = self.drafts.iter().position(|draft| draft.name.eq_ignore_ascii_case(&name));
        self.current = Some(known.unwrap_or(self.drafts.len()));
        if known.is_none() {
            self.drafts.push(Draft { name, file: file.to_owned(), set: BTreeMap::new() });
        }
    }

    /// Keeps a directive that matters; a value of another one is not even read.
    fn set(&mut self, entry: Entry<'_>, file: &Path, line: usize) -> Result<(), LineFault> {
        let draft = self.current.and_then(|current| self.drafts.get_mut(current));
        let wanted: &[&'static str] = if draft.is_some() { &OF_POOLS } else { &["process_control_timeout"] };
        let Some(directive) = wanted.iter().find(|name| name.eq_ignore_ascii_case(entry.name)) else { return Ok(()) };
        let mut value = entry.value()?;
        let set = match draft {
            Some(draft) => {
                value = value.replace("$pool", &draft.name);
                &mut draft.set
            }
            None => &mut self.global,
        };
        set.insert(directive, Set { directive: (*directive).to_owned(), value, file: file.to_owned(), line });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    const MAIN: &str = "/etc/php/8.2/fpm/php-fpm.conf";
    const WWW: &str = "/etc/php/8.2/fpm/pool.d/www.conf";

    fn command(arguments: &[&str]) -> CommandLine {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        CommandLine::new(Path::new("/usr/sbin/php-fpm8.2"), arguments).unwrap()
    }

    fn read(files: &[(&str, &str)]) -> Result<Configuration, String> {
        discover(&command(&[]), &mut Tree::new(files)).map_err(|error| error.to_string())
    }

    fn pool(text: &str) -> Result<Pool, String> {
        read(&[(MAIN, text)]).map(|mut configuration| configuration.pools.remove(0))
    }

    #[test]
    fn debians_layout_is_read() {
        let configuration = read(&[
            (
                MAIN,
                "[global]\npid = /run/x.pid\nprocess_control_timeout = 3m\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n",
            ),
            (WWW, "; the pool\n[www]\nuser = www-data\ngroup = www-data\nlisten = /run/php/$pool.sock\npm = static\n"),
            ("/etc/php/8.2/fpm/pool.d/api.conf", "[api]\nlisten = 9001\nping.path = /ping\n"),
            ("/etc/php/8.2/fpm/pool.d/old.conf.dpkg-dist", "rubbish"),
        ])
        .unwrap();
        assert_eq!(configuration.process_control_timeout, Duration::from_secs(180));
        let names: Vec<&str> = configuration.pools.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(names, ["api", "www"]);
        let [api, www] = &configuration.pools[..] else { panic!("{configuration:?}") };
        assert_eq!(api.listen.to_string(), "127.0.0.1:9001");
        assert_eq!((api.ping_path.as_deref(), api.ping_response.as_str()), (Some("/ping"), "pong"));
        assert_eq!(www.listen, Address::Unix(PathBuf::from("/run/php/www.sock")));
        assert_eq!((www.user.as_deref(), www.group.as_deref()), (Some("www-data"), Some("www-data")));
        assert_eq!((&www.status_path, &www.status_listen, &www.ping_path), (&None, &None, &None));
        assert_eq!(www.file, Path::new(WWW));
        let files = [MAIN, "/etc/php/8.2/fpm/pool.d/api.conf", WWW].map(PathBuf::from);
        assert_eq!(configuration.files, files);
    }

    #[test]
    fn every_directive_of_a_pool_that_matters_is_read() {
        let www = pool(
            "[www]\nprefix = /srv/www\nlisten = run/www.sock\nchroot = $prefix/jail\nLISTEN.owner = x\npm.status_path=/status\n\
             PM.Status_Listen = run/status.sock\nping.path = /p-$pool\nping.response = \"I am $pool\"\n\
             request_terminate_timeout = 1h\nenv[A] = ${NOT_OURS}\nphp_admin_value[x] = 1|2\n",
        )
        .unwrap();
        assert_eq!(www.listen, Address::Unix(PathBuf::from("/srv/www/run/www.sock")));
        assert_eq!(www.status_listen, Some(Address::Unix(PathBuf::from("/usr/run/status.sock"))));
        assert_eq!(www.status_path.as_deref(), Some("/status"));
        assert_eq!((www.ping_path.as_deref(), www.ping_response.as_str()), (Some("/p-www"), "I am www"));
        assert_eq!(www.chroot.as_deref(), Some(Path::new("/srv/www/jail")));
        assert_eq!(www.request_terminate_timeout, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_status_listener_without_a_path_has_the_root() {
        let www = pool("[www]\nlisten=/x\npm.status_listen=9002\n").unwrap();
        assert_eq!(www.status_path.as_deref(), Some("/"));
    }

    #[test]
    fn empty_values_and_zero_times_are_none() {
        let www = pool(
            "[www]\nlisten=/x\npm.status_path=\nping.path = none\nping.response=\"\"\nchroot=\nrequest_terminate_timeout=0\n",
        )
        .unwrap();
        assert_eq!((&www.status_path, &www.ping_path, &www.chroot), (&None, &None, &None));
        assert_eq!((www.ping_response.as_str(), www.request_terminate_timeout), ("pong", None));
    }

    #[test]
    fn sections_go_on_across_files_and_the_later_value_counts() {
        let configuration = read(&[
            (MAIN, "include = /one.conf\nlisten = /after-include\n[WWW]\nping.path = /b\n[Global]\nprocess_control_timeout=5\n"),
            ("/one.conf", "[www]\nlisten = /x\nping.path = /a"),
        ])
        .unwrap();
        let [www] = &configuration.pools[..] else { panic!("{configuration:?}") };
        assert_eq!(www.name, "www");
        assert_eq!(www.listen.to_string(), "/after-include");
        assert_eq!(www.ping_path.as_deref(), Some("/b"));
        assert_eq!(www.file, Path::new("/one.conf"));
        assert_eq!(configuration.process_control_timeout, Duration::from_secs(5));
    }

    #[test]
    fn relative_includes_start_at_the_prefix_and_missing_ones_are_nothing() {
        let mut files = Tree::new(&[("/srv/etc/php-fpm.conf", "include=etc/p.conf\ninclude=/nowhere\n")]);
        files.put("/srv/etc/p.conf", "[www]\nlisten=s\n");
        let configuration = discover(&command(&["-p", "/srv"]), &mut files).unwrap();
        assert_eq!(configuration.pools[0].listen.to_string(), "/srv/s");
        assert_eq!(files.read, ["/srv/etc/php-fpm.conf", "/srv/etc/p.conf", "/nowhere"].map(PathBuf::from));
    }

    #[test]
    fn files_that_include_each_other_end() {
        assert_eq!(read(&[(MAIN, &format!("include={MAIN}"))]), Err(format!("'{MAIN}' is included more than 5 deep")));
        let fan = format!("{}[www]\nlisten=/x\n", "include=/leaf\n".repeat(MOST_FILES));
        let expected = format!("'{MAIN}' and what it includes are more than 1000 files or 16 MiB");
        assert_eq!(read(&[(MAIN, &fan), ("/leaf", "")]), Err(expected.clone()));
        let long = format!("{}\n{}", "include=/long\n".repeat(17), "[www]\nlisten=/x\n");
        assert_eq!(read(&[(MAIN, &long), ("/long", &"\n".repeat(1024 * 1024))]), Err(expected));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let table = [
            ("", format!("'{MAIN}' has no pool")),
            ("[global]\n", format!("'{MAIN}' has no pool")),
            ("\n[www]\nping\n", format!("'{MAIN}' line 3: 'ping' has no value")),
            (
                "[www]\nlisten = ${SOCK}\n",
                format!(
                    "'{MAIN}' line 2: the value of 'listen' is taken from the environment variable 'SOCK', which is not known here: write it out"
                ),
            ),
            (
                "[www]\nlisten = 0\n",
                format!("'{MAIN}' line 2: 'listen' is '0', which is not the path of a socket or a port"),
            ),
            (
                "[www]\nping.path=/p\n",
                format!("pool 'www' has no address: add 'listen = /run/php/www.sock' to '{MAIN}'"),
            ),
            (
                "process_control_timeout=1w\n[www]\nlisten=/x\n",
                format!(
                    "'{MAIN}' line 1: 'process_control_timeout' is '1w', which is not a time such as '90', '90s', '2m', '1h' or '1d'"
                ),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(read(&[(MAIN, text)]), Err(expected), "{text}");
        }
        assert_eq!(read(&[]), Err(format!("there is no '{MAIN}'")));
        // A folder that a pattern looks into must be there, as for PHP-FPM.
        assert_eq!(read(&[(MAIN, "include=/no/*.conf\n")]), Err("entity not found".to_owned()));
    }

    #[test]
    fn times_are_read_as_php_fpm_reads_them() {
        let time = |value: &str| {
            read(&[(MAIN, &format!("process_control_timeout={value}\n[www]\nlisten=/x\n"))])
                .map(|configuration| configuration.process_control_timeout.as_secs())
        };
        for (value, expected) in
            [("90", 90), ("90s", 90), ("2m", 120), ("\"2 m\"", 120), ("1h", 3600), ("1d", 86_400), ("-1", 0), ("0", 0)]
        {
            assert_eq!(time(value), Ok(expected), "{value}");
        }
        for value in ["", "m", "x", "1.5"] {
            assert!(time(value).is_err(), "{value}");
        }
    }
}
