//! The figures of PHP's caches: of opcache, the compiled code, and of APCu, the data that programs keep. Types and reading; where
//! they come from is [`Source`]'s matter.
//!
//! Both caches belong to the master process: every pool of a unit shares them, and one question tells of all.

use std::time::Duration;

use serde_json::Value;

use crate::admin_site::AdminSite;
use crate::ask::AskError;
use crate::helper::Helper;
use crate::json::{self, Fields, JsonFault};
use crate::printable::printable;

/// Where figures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The helper scripts of this crate, run by a pool over FastCGI.
    Helper(Helper),
    /// An admin site over HTTP, as the original's `php7adm` asks it.
    AdminSite(AdminSite),
}

impl Source {
    /// Reads the figures, within `deadline`.
    pub fn read(&self, deadline: Duration) -> Result<Figures, AskError> {
        match self {
            Self::Helper(helper) => helper.read(deadline),
            Self::AdminSite(site) => site.read(deadline),
        }
    }

    /// Empties APCu, within `deadline`. An error past it does not mean that nothing happened.
    pub fn clear_apcu(&self, deadline: Duration) -> Result<Cleared, AskError> {
        match self {
            Self::Helper(helper) => helper.clear_apcu(deadline),
            Self::AdminSite(site) => site.clear_apcu(deadline),
        }
    }
}

/// One reading of both caches.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The version of PHP, where it was said.
    pub php: Option<String>,
    /// The compiled code.
    pub opcache: Opcache,
    /// The data that programs keep.
    pub apcu: Apcu,
}

/// The state of opcache.
#[derive(Debug, Clone, PartialEq)]
pub enum Opcache {
    /// It works.
    On(Box<OpcacheFigures>),
    /// It is not enabled: by `opcache.enable`, or because it could not start. An admin site says the same where it may not ask
    /// (`opcache.restrict_api`).
    Off,
    /// It keeps code in files alone (`opcache.file_cache_only`), and has no memory that could be full.
    FilesOnly,
    /// The extension is not loaded.
    Missing,
    /// It is there but does not tell, with PHP's reason.
    Refused(String),
}

/// What `opcache_get_status` tells. Sizes are in bytes, percentages from 0 to 100, counts since it was started.
#[derive(Debug, Clone, PartialEq)]
pub struct OpcacheFigures {
    /// It was full, and takes nothing new until it restarts itself.
    pub cache_full: bool,
    /// It waits for requests to end, to restart itself.
    pub restart_pending: bool,
    /// It is restarting itself.
    pub restart_in_progress: bool,
    /// Memory in use.
    pub used_memory: u64,
    /// Memory to be had.
    pub free_memory: u64,
    /// Memory of code that was replaced, to be had again only after a restart.
    pub wasted_memory: u64,
    /// The share of that in all memory.
    pub wasted_percentage: f64,
    /// The memory for strings; none with `opcache.interned_strings_buffer=0`.
    pub interned_strings: Option<InternedStrings>,
    /// How many scripts are in it.
    pub cached_scripts: u64,
    /// How many names of scripts are in it; a script may have several.
    pub cached_keys: u64,
    /// How many names it has room for.
    pub max_cached_keys: u64,
    /// How often a script was found in it.
    pub hits: u64,
    /// How often one was not.
    pub misses: u64,
    /// The share of hits.
    pub hit_rate: f64,
    /// When it was started, in seconds since 1970.
    pub start_time: u64,
    /// When it last restarted itself, in seconds since 1970; none if it never did.
    pub last_restart_time: Option<u64>,
    /// How often it restarted itself for want of memory.
    pub oom_restarts: u64,
    /// How often it restarted itself for want of room for names.
    pub hash_restarts: u64,
    /// How often somebody had it restart.
    pub manual_restarts: u64,
}

/// The memory that opcache keeps strings in, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InternedStrings {
    /// All of it.
    pub buffer_size: u64,
    /// What is in use.
    pub used_memory: u64,
    /// What is to be had.
    pub free_memory: u64,
    /// How many strings.
    pub strings: u64,
}

impl OpcacheFigures {
    /// All of its memory, in bytes.
    pub fn total_memory(&self) -> u64 {
        self.used_memory.saturating_add(self.free_memory).saturating_add(self.wasted_memory)
    }

    /// How many names there is still room for.
    pub fn free_keys(&self) -> u64 {
        self.max_cached_keys.saturating_sub(self.cached_keys)
    }

    fn read(status: &Fields<'_>) -> Result<Self, JsonFault> {
        let memory = status.object("memory_usage")?;
        let statistics = status.object("opcache_statistics")?;
        let interned_strings = match status.get("interned_strings_usage") {
            None => None,
            Some(_) => {
                let usage = status.object("interned_strings_usage")?;
                Some(InternedStrings {
                    buffer_size: usage.integer("buffer_size")?,
                    used_memory: usage.integer("used_memory")?,
                    free_memory: usage.integer("free_memory")?,
                    strings: usage.integer("number_of_strings")?,
                })
            }
        };
        Ok(Self {
            cache_full: status.boolean("cache_full")?,
            restart_pending: status.boolean("restart_pending")?,
            restart_in_progress: status.boolean("restart_in_progress")?,
            used_memory: memory.integer("used_memory")?,
            free_memory: memory.integer("free_memory")?,
            wasted_memory: memory.integer("wasted_memory")?,
            wasted_percentage: memory.number("current_wasted_percentage")?,
            interned_strings,
            cached_scripts: statistics.integer("num_cached_scripts")?,
            cached_keys: statistics.integer("num_cached_keys")?,
            max_cached_keys: statistics.integer("max_cached_keys")?,
            hits: statistics.integer("hits")?,
            misses: statistics.integer("misses")?,
            hit_rate: statistics.number("opcache_hit_rate")?,
            start_time: statistics.integer("start_time")?,
            last_restart_time: Some(statistics.integer("last_restart_time")?).filter(|time| *time != 0),
            oom_restarts: statistics.integer("oom_restarts")?,
            hash_restarts: statistics.integer("hash_restarts")?,
            manual_restarts: statistics.integer("manual_restarts")?,
        })
    }
}

impl Opcache {
    /// Reads what `opcache_get_status(false)` gives as JSON: an object, or `false`.
    pub fn parse(text: &[u8]) -> Result<Self, JsonFault> {
        match json::value(text)? {
            Value::Bool(false) => Ok(Self::Off),
            _ => Self::status(&Fields::new(&json::object(text)?)),
        }
    }

    fn status(status: &Fields<'_>) -> Result<Self, JsonFault> {
        let is_enabled = status.boolean("opcache_enabled")?;
        // Such a one says that it is not enabled.
        if status.get("file_cache_only") == Some(&Value::Bool(true)) {
            return Ok(Self::FilesOnly);
        }
        if !is_enabled {
            return Ok(Self::Off);
        }
        Ok(Self::On(Box::new(OpcacheFigures::read(status)?)))
    }
}

/// The state of APCu.
#[derive(Debug, Clone, PartialEq)]
pub enum Apcu {
    /// It works.
    On(ApcuFigures),
    /// It is not enabled (`apc.enabled`).
    Off,
    /// The extension is not loaded.
    Missing,
    /// It is there but does not tell, with PHP's reason.
    Refused(String),
}

/// What is known of APCu.
#[derive(Debug, Clone, PartialEq)]
pub struct ApcuFigures {
    /// The share of free memory that is in blocks under 5 MiB, in percent; 0 while it is one block. High says little while there is
    /// plenty.
    pub fragmentation: f64,
    /// More; an admin site tells none of it.
    pub usage: Option<ApcuUsage>,
}

/// How APCu is used. Sizes are in bytes, counts since it was started or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApcuUsage {
    /// In how many pieces its free memory is.
    pub free_blocks: u64,
    /// All of its memory.
    pub memory_size: u64,
    /// Memory to be had.
    pub memory_free: u64,
    /// How many entries are in it.
    pub entries: u64,
    /// How often an entry was found.
    pub hits: u64,
    /// How often one was not.
    pub misses: u64,
    /// How many entries were put in.
    pub inserts: u64,
    /// How often it threw everything away for want of memory.
    pub expunges: u64,
}

/// What became of clearing APCu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// It is empty.
    Done,
    /// It is not enabled: there was nothing to clear.
    Off,
    /// It is not loaded: there was nothing to clear.
    Missing,
}

impl Figures {
    /// Reads what the helper script `figures.php` prints.
    pub fn parse(text: &[u8]) -> Result<Self, JsonFault> {
        let answer = json::object(text)?;
        let answer = Fields::new(&answer);
        let opcache = answer.object("opcache")?;
        let apcu = answer.object("apcu")?;
        Ok(Self {
            php: Some(said(&answer, "php")?),
            opcache: match state(&opcache, ON_OR_NOT)? {
                "on" => Opcache::status(&opcache.object("figures")?)?,
                "off" => Opcache::Off,
                "missing" => Opcache::Missing,
                _ => Opcache::Refused(said(&opcache, "why")?),
            },
            apcu: match state(&apcu, ON_OR_NOT)? {
                "on" => Apcu::On(ApcuFigures::read(&apcu.object("figures")?)?),
                "off" => Apcu::Off,
                "missing" => Apcu::Missing,
                _ => Apcu::Refused(said(&apcu, "why")?),
            },
        })
    }
}

impl ApcuFigures {
    fn read(figures: &Fields<'_>) -> Result<Self, JsonFault> {
        Ok(Self {
            fragmentation: figures.number("fragmentation")?,
            usage: Some(ApcuUsage {
                free_blocks: figures.integer("free_blocks")?,
                memory_size: figures.integer("memory_size")?,
                memory_free: figures.integer("memory_free")?,
                entries: figures.integer("entries")?,
                hits: figures.integer("hits")?,
                misses: figures.integer("misses")?,
                inserts: figures.integer("inserts")?,
                expunges: figures.integer("expunges")?,
            }),
        })
    }

    /// Reads what an admin site's `/apcu-frag` gives.
    pub(crate) fn parse_fragmentation(text: &[u8]) -> Result<Self, JsonFault> {
        let answer = json::object(text)?;
        Ok(Self { fragmentation: Fields::new(&answer).number("fragmentation")?, usage: None })
    }
}

/// What became of clearing APCu, or PHP's reason why nothing did; as the helper script `apcu-clear.php` prints it.
pub(crate) fn parse_cleared(text: &[u8]) -> Result<Result<Cleared, String>, JsonFault> {
    let answer = json::object(text)?;
    let apcu = Fields::new(&answer).object("apcu")?;
    Ok(match state(&apcu, CLEARED_OR_NOT)? {
        "cleared" => Ok(Cleared::Done),
        "off" => Ok(Cleared::Off),
        "missing" => Ok(Cleared::Missing),
        _ => Err(said(&apcu, "why")?),
    })
}

/// The states that a cache can be in, and the complaint about another.
type States = ([&'static str; 4], &'static str);
const ON_OR_NOT: States = (["on", "off", "missing", "refused"], "one of on, off, missing and refused");
const CLEARED_OR_NOT: States = (["cleared", "off", "missing", "refused"], "one of cleared, off, missing and refused");

/// Words that end in messages. They are a pool's, and any code that it runs can answer.
fn said(fields: &Fields<'_>, key: &str) -> Result<String, JsonFault> {
    Ok(printable(fields.text(key)?.as_bytes()))
}

fn state<'a>(cache: &Fields<'a>, (states, expected): States) -> Result<&'a str, JsonFault> {
    let found = cache.text("state")?;
    if states.contains(&found) {
        return Ok(found);
    }
    Err(cache.odd("state", &Value::from(found), expected))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // As php-fpm 8.2.32 with APCu 5.1.22 gave them.
    const FIGURES: &[u8] = include_bytes!("../tests/fixtures/figures.json");
    const OPCACHE_OFF: &[u8] = include_bytes!("../tests/fixtures/figures-opcache-off.json");
    const REFUSED: &[u8] = include_bytes!("../tests/fixtures/figures-refused.json");
    const NO_STRINGS: &[u8] = include_bytes!("../tests/fixtures/opcache-no-interned-strings.json");
    const FILES_ONLY: &[u8] = include_bytes!("../tests/fixtures/opcache-files-only.json");

    fn fault(text: &[u8]) -> String {
        Figures::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn real_figures_are_read() {
        let figures = Figures::parse(FIGURES).unwrap();
        assert_eq!(figures.php.as_deref(), Some("8.2.32"));
        let Opcache::On(opcache) = figures.opcache else { panic!("{:?}", figures.opcache) };
        assert_eq!((opcache.used_memory, opcache.free_memory, opcache.wasted_memory), (9_169_384, 125_048_344, 0));
        assert_eq!(opcache.total_memory(), 128 * 1024 * 1024);
        assert_eq!((opcache.cached_keys, opcache.max_cached_keys, opcache.free_keys()), (1, 16_229, 16_228));
        assert_eq!((opcache.hits, opcache.misses, opcache.last_restart_time), (0, 3, None));
        assert!(opcache.hit_rate.abs() < 0.001);
        let strings = opcache.interned_strings.unwrap();
        assert_eq!((strings.buffer_size, strings.strings), (8_388_608, 4601));
        let Apcu::On(apcu) = figures.apcu else { panic!("{:?}", figures.apcu) };
        assert!((apcu.fragmentation - 17.038).abs() < 0.001);
        let usage = apcu.usage.unwrap();
        assert_eq!((usage.free_blocks, usage.entries, usage.memory_size), (10_001, 10_000, 33_554_312));
    }

    #[test]
    fn every_state_that_is_not_on_has_a_type() {
        let figures = Figures::parse(OPCACHE_OFF).unwrap();
        assert_eq!((figures.opcache, figures.apcu), (Opcache::Off, Apcu::Off));
        let figures = Figures::parse(REFUSED).unwrap();
        let why = "Zend OPcache API is restricted by \"restrict_api\" configuration directive";
        assert_eq!(figures.opcache, Opcache::Refused(why.to_owned()));
        assert_eq!(figures.apcu, Apcu::Refused("apcu_sma_info is among disable_functions".to_owned()));
        let odd = br#"{"php": "8\u001b[2J", "opcache": {"state": "refused", "why": "a\nb"}, "apcu": {"state": "refused", "why": "\u0007"}}"#;
        let figures = Figures::parse(odd).unwrap();
        assert_eq!(figures.php.as_deref(), Some("8\\u{1b}[2J"));
        let (opcache, apcu) = (Opcache::Refused("a\\nb".to_owned()), Apcu::Refused("\\u{7}".to_owned()));
        assert_eq!((figures.opcache, figures.apcu), (opcache, apcu));
        let missing = br#"{"php": "7.4.33", "opcache": {"state": "missing"}, "apcu": {"state": "missing"}}"#;
        let figures = Figures::parse(missing).unwrap();
        assert_eq!((figures.opcache, figures.apcu), (Opcache::Missing, Apcu::Missing));
    }

    #[test]
    fn an_opcache_without_strings_or_without_memory_has_a_type() {
        let Ok(Opcache::On(opcache)) = Opcache::parse(NO_STRINGS) else { panic!("not on") };
        assert_eq!(opcache.interned_strings, None);
        assert_eq!(Opcache::parse(FILES_ONLY), Ok(Opcache::FilesOnly));
        assert_eq!(Opcache::parse(b"false"), Ok(Opcache::Off));
        assert!(Opcache::parse(b"true").is_err() && Opcache::parse(b"null").is_err() && Opcache::parse(b"[]").is_err());
    }

    #[test]
    fn every_figure_that_is_missing_or_odd_is_named() {
        let whole: Value = serde_json::from_slice(FIGURES).unwrap();
        for (pointer, name) in [
            ("/php", "php"),
            ("/opcache", "opcache"),
            ("/opcache/state", "opcache.state"),
            ("/opcache/figures/cache_full", "opcache.figures.cache_full"),
            ("/opcache/figures/memory_usage/free_memory", "opcache.figures.memory_usage.free_memory"),
            (
                "/opcache/figures/interned_strings_usage/used_memory",
                "opcache.figures.interned_strings_usage.used_memory",
            ),
            ("/opcache/figures/opcache_statistics/oom_restarts", "opcache.figures.opcache_statistics.oom_restarts"),
            (
                "/opcache/figures/opcache_statistics/opcache_hit_rate",
                "opcache.figures.opcache_statistics.opcache_hit_rate",
            ),
            ("/apcu/figures/fragmentation", "apcu.figures.fragmentation"),
            ("/apcu/figures/entries", "apcu.figures.entries"),
        ] {
            let mut odd = whole.clone();
            *odd.pointer_mut(pointer).unwrap() = Value::from(vec!["x"]);
            let message = fault(odd.to_string().as_bytes());
            assert!(message.starts_with(&format!("its answer has '{name}' = [\"x\"], which is not ")), "{message}");
            let mut without = whole.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            assert_eq!(fault(without.to_string().as_bytes()), format!("its answer has no '{name}'"));
        }
        let states = br#"{"php": "8", "opcache": {"state": "great"}, "apcu": {}}"#;
        assert_eq!(
            fault(states),
            "its answer has 'opcache.state' = \"great\", which is not one of on, off, missing and refused"
        );
        assert_eq!(fault(b"Warning: x"), "its answer is not JSON: it begins with 'Warning: x'");
    }

    #[test]
    fn whether_apcu_was_cleared_is_read() {
        let cleared = |state: &str| {
            parse_cleared(format!(r#"{{"php": "8.2.32", "apcu": {state}}}"#).as_bytes())
                .map_err(|fault| fault.to_string())
        };
        assert_eq!(cleared(r#"{"state": "cleared"}"#), Ok(Ok(Cleared::Done)));
        assert_eq!(cleared(r#"{"state": "off"}"#), Ok(Ok(Cleared::Off)));
        assert_eq!(cleared(r#"{"state": "missing"}"#), Ok(Ok(Cleared::Missing)));
        assert_eq!(cleared(r#"{"state": "refused", "why": "x"}"#), Ok(Err("x".to_owned())));
        assert_eq!(cleared(r#"{"state": "refused"}"#), Err("its answer has no 'apcu.why'".to_owned()));
        assert!(cleared(r#"{"state": "on"}"#).is_err());
    }

    proptest! {
        #[test]
        fn real_figures_with_any_byte_changed_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = FIGURES.to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = Figures::parse(&text);
            let _ = Opcache::parse(&text);
            let _ = parse_cleared(&text);
        }
    }
}
