//! Figures of real caches, in every state that they can be in.

use php_fpm::fastcgi::{self, Request};
use php_fpm::{Apcu, ApcuFigures, ApcuUsage, Cleared, Figures, Helper, Opcache, OpcacheFigures, Source};
use testbed::Result;

use crate::fpm::{Fpm, LONG, Root, section};

/// Puts in twenty thousand entries and takes every other one out again.
const FRAGMENT: &str = "<?php
for ($i = 0; $i < 20000; $i++) apcu_store(\"k$i\", str_repeat('x', 300));
for ($i = 0; $i < 20000; $i += 2) apcu_delete(\"k$i\");
echo 'ok';";

fn start(more: &str, arguments: &[&str]) -> Result<Fpm> {
    Root::new()?.start(&section("www", 1, more), arguments)
}

fn source(fpm: &Fpm) -> Source {
    Source::Helper(Helper::new(&fpm.pool("www")))
}

fn read(fpm: &Fpm) -> Figures {
    source(fpm).read(LONG).unwrap()
}

fn opcache(fpm: &Fpm) -> OpcacheFigures {
    match read(fpm).opcache {
        Opcache::On(figures) => *figures,
        other => panic!("{other:?}"),
    }
}

fn apcu(fpm: &Fpm) -> (ApcuFigures, ApcuUsage) {
    match read(fpm).apcu {
        Apcu::On(figures) => (figures.clone(), figures.usage.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn run(fpm: &Fpm, text: &str) -> Result<()> {
    let script = fpm.root.write("script.php", text);
    let response = fastcgi::call(&fpm.pool("www").listen, &Request::script(&script), LONG)?;
    assert_eq!((response.status, &response.body[..]), (200, &b"ok"[..]), "{}", response.errors);
    Ok(())
}

#[test]
fn both_caches_tell_their_figures() -> Result<()> {
    let fpm = start("", &[])?;
    let figures = read(&fpm);
    assert!(figures.php.unwrap().starts_with("8.2."));
    let opcache = opcache(&fpm);
    // Debian's 128 MiB, and the room for 10000 names rounded up to a prime.
    assert_eq!((opcache.total_memory(), opcache.max_cached_keys), (128 * 1024 * 1024, 16_229));
    assert!(!opcache.cache_full && !opcache.restart_pending && !opcache.restart_in_progress);
    assert!(opcache.interned_strings.is_some());
    let (apcu, usage) = apcu(&fpm);
    assert!(apcu.fragmentation.abs() < f64::EPSILON, "{apcu:?}");
    assert_eq!((usage.free_blocks, usage.entries), (1, 0));
    Ok(())
}

#[test]
fn asking_does_not_fill_opcache() -> Result<()> {
    let fpm = start("", &["-d", "opcache.file_update_protection=0"])?;
    for _ in 0..5 {
        read(&fpm);
    }
    let opcache = opcache(&fpm);
    assert_eq!((opcache.cached_scripts, opcache.cached_keys), (1, 1), "{opcache:?}");
    Ok(())
}

#[test]
fn a_fragmented_apcu_is_seen_and_cleared() -> Result<()> {
    let fpm = start("", &[])?;
    run(&fpm, FRAGMENT)?;
    let (fragmented, usage) = apcu(&fpm);
    assert!(fragmented.fragmentation > 1.0 && fragmented.fragmentation < 99.0, "{fragmented:?}");
    assert!(usage.free_blocks > 10_000 && usage.entries == 10_000, "{usage:?}");
    let before = opcache(&fpm);
    assert_eq!(source(&fpm).clear_apcu(LONG)?, Cleared::Done);
    let (cleared, usage) = apcu(&fpm);
    assert!(cleared.fragmentation.abs() < f64::EPSILON, "{cleared:?}");
    assert_eq!((usage.free_blocks, usage.entries), (1, 0));
    // Opcache was left alone.
    let after = opcache(&fpm);
    assert_eq!((after.start_time, after.manual_restarts), (before.start_time, 0));
    Ok(())
}

#[test]
fn what_is_not_loaded_is_missing() -> Result<()> {
    // No php.ini, and so no extension.
    let fpm = start("", &["--no-php-ini"])?;
    let figures = read(&fpm);
    assert_eq!((figures.opcache, figures.apcu), (Opcache::Missing, Apcu::Missing));
    assert_eq!(source(&fpm).clear_apcu(LONG)?, Cleared::Missing);
    Ok(())
}

#[test]
fn what_is_disabled_is_off() -> Result<()> {
    let fpm = start("", &["-d", "opcache.enable=0", "-d", "apc.enabled=0"])?;
    let figures = read(&fpm);
    assert_eq!((figures.opcache, figures.apcu), (Opcache::Off, Apcu::Off));
    assert_eq!(source(&fpm).clear_apcu(LONG)?, Cleared::Off);
    Ok(())
}

#[test]
fn an_opcache_disabled_in_the_pool_alone_is_off() -> Result<()> {
    let fpm = start("php_admin_value[opcache.enable] = 0", &[])?;
    assert_eq!(read(&fpm).opcache, Opcache::Off);
    Ok(())
}

#[test]
fn an_opcache_in_files_alone_or_without_strings_is_told_apart() -> Result<()> {
    let fpm = start("", &["-d", "opcache.file_cache=/tmp", "-d", "opcache.file_cache_only=1"])?;
    assert_eq!(read(&fpm).opcache, Opcache::FilesOnly);
    let fpm = start("", &["-d", "opcache.interned_strings_buffer=0"])?;
    assert_eq!(opcache(&fpm).interned_strings, None);
    Ok(())
}

#[test]
fn what_may_not_be_asked_is_refused_with_phps_reason() -> Result<()> {
    let more = "php_admin_value[opcache.restrict_api] = /nowhere\nphp_admin_value[disable_functions] = apcu_sma_info,apcu_clear_cache";
    let fpm = start(more, &[])?;
    let figures = read(&fpm);
    let why = "Zend OPcache API is restricted by \"restrict_api\" configuration directive";
    assert_eq!(figures.opcache, Opcache::Refused(why.to_owned()));
    assert_eq!(figures.apcu, Apcu::Refused("apcu_sma_info is among disable_functions".to_owned()));
    let error = source(&fpm).clear_apcu(LONG).unwrap_err().to_string();
    assert!(error.ends_with(": APCu was not cleared: apcu_clear_cache is among disable_functions"), "{error}");
    Ok(())
}

#[test]
fn an_apcu_in_too_many_pieces_to_count_costs_no_opcache_figures() -> Result<()> {
    // The pool's limit is one that a script cannot raise.
    let fpm = start("php_admin_value[memory_limit] = 3M", &[])?;
    run(&fpm, FRAGMENT)?;
    let figures = read(&fpm);
    assert!(matches!(figures.opcache, Opcache::On(_)), "{figures:?}");
    let Apcu::Refused(why) = figures.apcu else { panic!("{:?}", figures.apcu) };
    assert!(why.starts_with("Allowed memory size of 3145728 bytes exhausted"), "{why}");
    Ok(())
}

#[test]
fn what_a_pool_prepends_is_no_part_of_the_figures() -> Result<()> {
    let fpm = start("php_admin_value[auto_prepend_file] = @/prepend.php", &[])?;
    fpm.root.write("prepend.php", "<?php echo 'PREPENDED'; header('X-A: b');");
    read(&fpm);
    assert_eq!(source(&fpm).clear_apcu(LONG)?, Cleared::Done);
    Ok(())
}

#[test]
fn the_helper_scripts_take_no_input_and_are_not_to_be_kept() -> Result<()> {
    let fpm = start("", &[])?;
    let address = fpm.pool("www").listen;
    for script in ["figures.php", "apcu-clear.php"] {
        let plain = Request::script(&format!("/usr/share/safe-service-restart/{script}"));
        let response = fastcgi::call(&address, &plain, LONG)?;
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert!(response.field("cache-control").is_some_and(|value| value.contains("no-store")), "{response:?}");
        let query = Request { query: "state=x&opcache=reset&<script>".to_owned(), ..plain };
        assert!(!String::from_utf8_lossy(&fastcgi::call(&address, &query, LONG)?.body).contains("<script>"));
    }
    for text in [include_str!("../../php/figures.php"), include_str!("../../php/apcu-clear.php")] {
        for input in ["$_", "php://input", "getenv", "opcache_reset", "opcache_invalidate", "opcache_compile"] {
            assert!(!text.contains(input), "{input}");
        }
    }
    Ok(())
}
