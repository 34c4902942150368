//! The reader of configurations held against `php-fpm -tt`, which prints what PHP-FPM itself understood; and the test of a configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use php_fpm::{CommandLine, Pool, discover};
use testbed::Result;

use crate::fpm::{Root, Shared, section};

const PROGRAM: &str = "/usr/sbin/php-fpm8.2";

fn command_line(arguments: &[&str]) -> Result<CommandLine> {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Ok(CommandLine::new(Path::new(PROGRAM), arguments)?)
}

/// What `-tt` prints, by pool and directive.
fn understood(root: &Root, file: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let output = root.run(Path::new(PROGRAM), &["-tt", "-y", file].map(ToOwned::to_owned));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let mut pools: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut pool = String::new();
    for line in text.lines().filter_map(|line| line.split_once("NOTICE: ").map(|(_, line)| line)) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut pool);
        } else if let Some((name, value)) = line.strip_prefix('\t').and_then(|line| line.split_once(" = ")) {
            pools.entry(pool.clone()).or_default().insert(name.to_owned(), value.to_owned());
        }
    }
    pools
}

fn shown(value: Option<&str>) -> String {
    value.unwrap_or("undefined").to_owned()
}

/// A pool as `-tt` prints it, as far as both know it.
fn as_printed(pool: &Pool) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("listen", pool.listen.to_string()),
        ("user", shown(pool.user.as_deref())),
        ("group", shown(pool.group.as_deref())),
        ("ping.path", shown(pool.ping_path.as_deref())),
        ("ping.response", shown(pool.ping_path.as_ref().map(|_| pool.ping_response.as_str()))),
        ("pm.status_path", shown(pool.status_path.as_deref())),
        ("chroot", shown(pool.chroot.as_ref().and_then(|path| path.to_str()))),
        ("prefix", shown(pool.prefix.as_ref().and_then(|path| path.to_str()))),
        ("request_terminate_timeout", format!("{}s", pool.request_terminate_timeout.map_or(0, |time| time.as_secs()))),
    ])
}

fn assert_same(root: &Root, file: &str) -> Result<()> {
    let theirs = understood(root, file);
    let ours = discover(&command_line(&["-y", file])?, &mut Shared)?;
    let names: Vec<&str> = ours.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names.len() + 1, theirs.len(), "{names:?} {theirs:?}");
    assert_eq!(theirs["global"]["process_control_timeout"], format!("{}s", ours.process_control_timeout.as_secs()));
    for pool in &ours.pools {
        for (name, value) in as_printed(pool) {
            // PHP-FPM joins paths by a slash, whether there is one or not.
            assert_eq!(value, theirs[&pool.name][name].replace("//", "/"), "{name} of {}", pool.name);
        }
    }
    Ok(())
}

#[test]
fn odd_but_good_configurations_are_understood_as_php_fpm_understands_them() -> Result<()> {
    let root = Root::new()?;
    std::fs::create_dir(root.shared().join("pool.d"))?;
    let basics = "user=www-data\npm=static\npm.max_children=1\n";
    root.write(
        "pool.d/20-b.conf",
        &format!(
            "; a comment\n[b]\n{basics}listen = \"@/b ; no.sock\" ; tail\nping.path=/b\nping.response = a  b ; c\n"
        ),
    );
    root.write(
        "pool.d/10-A.conf",
        &format!("[A]\n{basics}LISTEN=127.0.0.1:9000\nPing.Path = '/p-$pool' \nping.response = \"esc\\\\n\\\"d\"\ngroup = www-data\n"),
    );
    root.write(
        "pool.d/zz.conf",
        "[\"B\"] request_terminate_timeout = \"2 m\"\n[c]\nuser=www-data\nlisten = run/$pool.sock\npm = static\n",
    );
    root.write("pool.d/.hidden.conf", "[hidden]\n");
    root.write("pool.d/x.conf.dpkg-dist", "rubbish");
    std::fs::create_dir(root.shared().join("pool.d/folder.conf"))?;
    // As a Windows editor leaves them, and an editor of before UTF-8.
    root.write("pool.d/30-bom.conf", &format!("\u{feff}[bom]\n{basics}\u{feff}listen = /run/bom.sock\n"));
    let latin1 = [b"; caf\xe9\n[latin1] ; \xe9\n", basics.as_bytes(), b"listen = /run/l.sock ; \xe9\n"].concat();
    std::fs::write(root.shared().join("pool.d/31-latin1.conf"), latin1)?;
    let file = root.write(
        "main.conf",
        "[Global]\nerror_log = @/log\nprocess_control_timeout = 1h\ninclude = @/pool.d/*.conf\npm.max_children = 7\n\
         prefix = @/\nping.path = /first\nping.path = /second\npm.status_listen = 9001\n[global]\ninclude=@/no/such/file\n",
    );
    assert_same(&root, &file)
}

#[test]
fn values_are_understood_as_php_fpm_understands_them() -> Result<()> {
    // Every value of this table is tried as the response of a pool's own ping page.
    let values = [
        "one \"two\" three",
        "'single ; q' x",
        "\"esc\\\\n\\\"d\"",
        "\"a\\'b\\x\\\\c\"",
        "'q'   \"z\"  y 'w'  v",
        "\"/a b  c  \"  d",
        "a  b  ;c",
        "a'b c'd",
        "a\\;b",
        "\"a;b\"",
        "'q'   ; x",
        "a$b",
        "\"a$\"",
        "x{y}",
        "#y",
        "[b]",
        "On",
        "yes",
        "nullx",
        "\"on\"",
        "007",
        "é",
        "a,b]",
        "\"a=b!(c)|d&e^f~\"",
        "'a=b'",
        "a:b/*?",
        "\"a\"\t'b'",
        "-5",
        "a\tb",
    ];
    let root = Root::new()?;
    let mut text = "[global]\nerror_log = @/log\n".to_owned();
    for (number, value) in values.iter().enumerate() {
        text += &section(&format!("p{number}"), 1, "ping.path=/p");
        writeln!(text, "ping.response = {value}")?;
    }
    let file = root.write("main.conf", &text);
    assert_same(&root, &file)
}

#[test]
fn what_is_refused_here_is_refused_by_php_fpm_too() -> Result<()> {
    let root = Root::new()?;
    for line in ["ping.path", "ping.path /x", "# comment", "[other", "  [other]", "ping.path = \"/x", "ping.path = '/x"]
    {
        let text = format!("[global]\nerror_log = @/log\n{}{line}\n", section("www", 1, ""));
        let file = root.write("main.conf", &text);
        let command = command_line(&["-y", &file])?;
        let tested = root.run(command.program(), &command.test_arguments());
        assert!(!tested.status.success(), "{line}");
        assert!(discover(&command, &mut Shared).is_err(), "{line}");
    }
    Ok(())
}

#[test]
fn a_good_configuration_passes_its_test_and_a_broken_one_fails_with_php_fpms_words() -> Result<()> {
    let root = Root::new()?;
    let file = root.write("main.conf", "[global]\nerror_log = @/log\ninclude=@/*.pool\n");
    let pool = root.write("www.pool", &section("www", 1, ""));
    let command = command_line(&["--nodaemonize", "-d", "display_errors=0", "--fpm-config", &file])?;
    let test = || root.run(command.program(), &command.test_arguments());
    let good = test();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    root.write("www.pool", &section("www", 0, ""));
    let broken = test();
    assert_eq!(broken.status.code(), Some(78));
    let words = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(words.contains("[pool www] pm.max_children must be a positive value"), "{words}");
    root.write("www.pool", &format!("{}no.such = 1\n", section("www", 1, "")));
    let words = String::from_utf8_lossy(&test().stderr).into_owned();
    assert!(words.contains(&format!("[{pool}:8] unknown entry 'no.such'")), "{words}");
    Ok(())
}

#[test]
fn every_form_of_the_options_is_one_of_php_fpms() -> Result<()> {
    let root = Root::new()?;
    let file = root.write("main.conf", &format!("[global]\nerror_log = @/log\n{}", section("www", 1, "")));
    let joined = [format!("-y{file}"), format!("-y={file}"), format!("--fpm-config={file}")];
    let [short, short_equals, long_equals] = joined.each_ref().map(String::as_str);
    for arguments in [
        &["-y", &file][..],
        &[short],
        &[short_equals],
        &[long_equals],
        &["--fpm-config", &file],
        &["-FOny", &file],
        &["-R", "-c", "/etc/php/8.2/fpm", "-d", "a=b", "--pid", "/run/x", "-F", "-y", &file],
        &["-p", "/usr", "--allow-to-run-as-root", "--force-stderr", "-y", &file],
        &["-y", "/no/such", "-y", &file],
    ] {
        let command = command_line(arguments)?;
        assert_eq!(command.configuration(), Path::new(&file));
        let tested = root.run(command.program(), &command.test_arguments());
        assert!(tested.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&tested.stderr));
    }
    for arguments in [&["start", "-y", &file][..], &["--fpm", &file], &["-y", &file, "-x"], &["-F", "-y"]] {
        assert!(command_line(arguments).is_err(), "{arguments:?}");
        let arguments: Vec<String> = ["-t"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        assert!(!root.run(Path::new(PROGRAM), &arguments).status.success(), "{arguments:?}");
    }
    Ok(())
}
