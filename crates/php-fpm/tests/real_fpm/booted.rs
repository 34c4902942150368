//! Debian's own unit and files, on a host that booted.

use std::path::Path;

use php_fpm::{CommandLine, Files, Listed, discover};
use testbed::Result;
use testbed::host::{Host, Output};

/// The files of a host.
struct Of<'a>(&'a Host);

/// A command on the host failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

impl Files for Of<'_> {
    type Error = Failed;

    fn read(&mut self, path: &Path) -> Result<Option<String>, Failed> {
        let found = self.0.exec(&["cat", &path.display().to_string()]).map_err(|error| Failed(error.to_string()))?;
        Ok(found.success().ok())
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<Listed>, Failed> {
        let shown = self.0.exec(&["ls", "-1Ap", &folder.display().to_string()]).and_then(Output::success);
        let shown = shown.map_err(|error| Failed(error.to_string()))?;
        let listed = |name: &str| Listed { name: name.trim_end_matches('/').into(), is_folder: name.ends_with('/') };
        Ok(shown.lines().map(listed).collect())
    }
}

#[test]
fn debians_unit_and_pool_are_discovered_and_pass_their_test() -> Result<()> {
    let host = Host::builder("mw1.test")?.boot()?;
    let shown = host.exec(&["systemctl", "show", "--property=ExecStart", "php8.2-fpm.service"])?.success()?;
    let command = CommandLine::from_exec_start(&shown)?;
    assert_eq!(command.program(), Path::new("/usr/sbin/php-fpm8.2"));
    assert_eq!(command.configuration(), Path::new("/etc/php/8.2/fpm/php-fpm.conf"));

    let configuration = discover(&command, &mut Of(&host))?;
    let [pool] = &configuration.pools[..] else { panic!("{configuration:?}") };
    assert_eq!((pool.name.as_str(), pool.listen.to_string().as_str()), ("www", "/run/php/php8.2-fpm.sock"));
    assert_eq!((pool.user.as_deref(), pool.group.as_deref()), (Some("www-data"), Some("www-data")));
    assert_eq!(pool.file, Path::new("/etc/php/8.2/fpm/pool.d/www.conf"));
    let missing = pool.status_page().unwrap_err().to_string();
    let expected =
        "pool 'www' has no status page: add 'pm.status_path = /fpm-status' to '/etc/php/8.2/fpm/pool.d/www.conf'";
    assert_eq!(missing, expected);

    let program = command.program().display().to_string();
    let arguments = command.test_arguments();
    let test: Vec<&str> = [program.as_str()].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    host.exec(&test)?.success()?;
    host.write("/etc/php/8.2/fpm/pool.d/broken.conf", "[broken]\nlisten = /run/php/broken.sock\n")?;
    let broken = host.exec(&test)?;
    assert!(broken.success().is_err());
    // What was running goes on.
    assert_eq!(host.property("php8.2-fpm", "ActiveState")?, "active");
    Ok(())
}
