//! Scripts that go wrong, in every way that PHP-FPM has for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use php_fpm::fastcgi::{self, Request, Response};
use php_fpm::{AskError, Helper, Opcache, Source};
use testbed::Result;

use crate::fpm::{Fpm, LONG, Root, section};

/// Messages to standard error alone, as Debian's php.ini for PHP-FPM has it.
const QUIET: [&str; 4] = ["-d", "display_errors=0", "-d", "log_errors=1"];

fn start(more: &str) -> Result<Fpm> {
    Root::new()?.start(&section("www", 1, more), &QUIET)
}

fn run(fpm: &Fpm, script: &str) -> Response {
    fastcgi::call(&fpm.pool("www").listen, &Request::script(script), LONG).unwrap()
}

/// The error of the figures of a pool, without what was asked.
fn figures(fpm: &Fpm, folder: Option<&Path>) -> String {
    let pool = fpm.pool("www");
    let helper = Helper::new(&pool);
    let helper = folder.map_or(helper.clone(), |folder| helper.with_folder(folder));
    let error: AskError = Source::Helper(helper).read(LONG).unwrap_err();
    let text = error.to_string();
    let place = format!("' of pool 'www' at '{}': ", fpm.root.path("www.sock"));
    let (asked, came) = text.split_once(&place).unwrap_or_else(|| panic!("{text}"));
    assert!(asked.starts_with("figures from '/") && asked.ends_with("/figures.php"), "{text}");
    came.to_owned()
}

#[test]
fn a_missing_script_is_404_with_advice() -> Result<()> {
    let fpm = start("")?;
    let response = run(&fpm, "/no/such.php");
    assert_eq!((response.status, response.errors.as_str()), (404, "Primary script unknown"));
    assert_eq!(response.body, b"File not found.\n");
    assert_eq!(
        figures(&fpm, Some(Path::new("/nowhere"))),
        "it answers 404, 'Primary script unknown': put it there, and let 'www-data' read it and every folder above"
    );
    Ok(())
}

#[test]
fn an_unreadable_script_is_403_with_advice() -> Result<()> {
    let fpm = start("")?;
    fs::set_permissions(fpm.root.shared().join("figures.php"), fs::Permissions::from_mode(0o600))?;
    let came = figures(&fpm, Some(&fpm.root.shared()));
    assert!(came.starts_with("it answers 403, '") && came.contains("Permission denied"), "{came}");
    assert!(came.ends_with(": let 'www-data' read it"), "{came}");
    Ok(())
}

#[test]
fn a_folder_that_the_pool_may_not_enter_is_404_with_advice() -> Result<()> {
    let fpm = start("")?;
    fs::create_dir(fpm.root.shared().join("closed"))?;
    fpm.root.write("closed/figures.php", "<?php");
    fs::set_permissions(fpm.root.shared().join("closed"), fs::Permissions::from_mode(0o700))?;
    let came = figures(&fpm, Some(&fpm.root.shared().join("closed")));
    assert!(came.starts_with("it answers 40"), "{came}");
    assert!(came.contains("let 'www-data' read it"), "{came}");
    Ok(())
}

#[test]
fn a_fatal_error_is_500_and_phps_words_are_kept() -> Result<()> {
    let fpm = start("")?;
    let script = fpm.root.write("fatal.php", "<?php error_log('first'); no_such_function();");
    let response = run(&fpm, &script);
    assert_eq!(response.status, 500);
    assert!(response.errors.starts_with("PHP message: first; PHP message: PHP Fatal error:  Uncaught Error: Call to"));
    fpm.root.write("figures.php", "<?php no_such_function();");
    let came = figures(&fpm, Some(&fpm.root.shared()));
    assert!(
        came.starts_with("it answers 500, 'PHP message: PHP Fatal error:  Uncaught Error: Call to undefined"),
        "{came}"
    );
    Ok(())
}

#[test]
fn rubbish_is_shown_with_phps_words() -> Result<()> {
    let fpm = start("")?;
    fpm.root.write("figures.php", "<?php error_log('why'); echo 'Warning: x';");
    assert_eq!(
        figures(&fpm, Some(&fpm.root.shared())),
        "its answer is not JSON: it begins with 'Warning: x', 'PHP message: why'"
    );
    Ok(())
}

#[test]
fn a_body_over_the_cap_is_named_and_the_pool_goes_on() -> Result<()> {
    let fpm = start("ping.path = /ping")?;
    fpm.root.write("figures.php", "<?php echo str_repeat('x', 10000000);");
    assert_eq!(figures(&fpm, Some(&fpm.root.shared())), "its answer is longer than 65536 bytes");
    fpm.pool("www").ping()?.ask(LONG)?;
    Ok(())
}

#[test]
fn error_output_over_the_cap_is_named() -> Result<()> {
    let fpm = start("")?;
    fpm.root.write("figures.php", "<?php for ($i = 0; $i < 1000; $i++) error_log(str_repeat('x', 1000));");
    assert_eq!(figures(&fpm, Some(&fpm.root.shared())), "its error output is longer than 65536 bytes");
    Ok(())
}

#[test]
fn a_process_that_dies_is_a_connection_closed_early() -> Result<()> {
    let fpm = start("")?;
    fpm.root.write("figures.php", "<?php posix_kill(posix_getpid(), 9);");
    assert_eq!(figures(&fpm, Some(&fpm.root.shared())), "it closed the connection without an answer");
    Ok(())
}

#[test]
fn an_extension_that_may_not_be_run_says_which_directive_to_change() -> Result<()> {
    let fpm = start("security.limit_extensions = .phtml")?;
    let came = figures(&fpm, None);
    assert!(came.starts_with("it answers 403, 'Access to the script"), "{came}");
    let file = fpm.root.path("php-fpm.conf");
    assert!(
        came.ends_with(&format!(": add '.php' to 'security.limit_extensions' of pool 'www' in '{file}'")),
        "{came}"
    );
    Ok(())
}

#[test]
fn a_folder_outside_open_basedir_says_which_directive_to_change() -> Result<()> {
    let fpm = start("php_admin_value[open_basedir] = /srv")?;
    let came = figures(&fpm, None);
    let file = fpm.root.path("php-fpm.conf");
    let advice = format!(": add '/usr/share/safe-service-restart' to 'open_basedir' of pool 'www' in '{file}'");
    assert!(came.starts_with("it answers 40") && came.ends_with(&advice), "{came}");
    Ok(())
}

#[test]
fn in_a_chroot_the_script_is_looked_for_inside() -> Result<()> {
    let fpm = start("chroot = /srv/jail")?;
    assert_eq!(
        figures(&fpm, None),
        "it answers 404, 'Primary script unknown': the pool sees '/srv/jail' alone: copy \
         '/usr/share/safe-service-restart/figures.php' to '/srv/jail/usr/share/safe-service-restart/figures.php'"
    );
    // As it says.
    let root = Root::new()?;
    fs::create_dir_all(root.shared().join("jail/usr/share/safe-service-restart"))?;
    root.write("jail/usr/share/safe-service-restart/figures.php", include_str!("../../php/figures.php"));
    let fpm = root.start(&section("www", 1, "chroot = @/jail"), &QUIET)?;
    let figures = Source::Helper(Helper::new(&fpm.pool("www"))).read(LONG)?;
    assert!(matches!(figures.opcache, Opcache::On(_)), "{figures:?}");
    Ok(())
}
