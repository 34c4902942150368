//! The patterns of `include`: `glob(7)`, as far as C's `glob()` goes without its extensions. What a folder holds is asked of the
//! caller's [`Files`].

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::files::Files;

/// The paths that `pattern`, an absolute one, can mean, in the order of their bytes. One without wildcards means itself, whether it
/// is there or not. Folders are left out where they were seen to be such.
pub(crate) fn expand<F: Files>(pattern: &Path, files: &mut F) -> Result<Vec<PathBuf>, F::Error> {
    let parts: Vec<&OsStr> = pattern
        .components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part),
            Component::ParentDir => Some(OsStr::new("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    let mut found = BTreeSet::from([PathBuf::from("/")]);
    for (position, part) in parts.iter().enumerate() {
        let is_last = position + 1 == parts.len();
        let mut next = BTreeSet::new();
        for folder in found {
            if !is_pattern(part.as_bytes()) {
                next.insert(folder.join(part));
                continue;
            }
            for entry in files.list(&folder)? {
                if entry.is_folder != is_last && matches(part.as_bytes(), entry.name.as_bytes()) {
                    next.insert(folder.join(entry.name));
                }
            }
        }
        found = next;
    }
    let mut paths: Vec<PathBuf> = found.into_iter().collect();
    // As C's glob does: by the bytes of the whole path, in which a slash is a character like any other.
    paths.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    Ok(paths)
}

fn is_pattern(part: &[u8]) -> bool {
    part.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Whether a name matches a pattern. A dot at its beginning is matched by a dot alone.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') && !pattern.starts_with(b"\\.") {
        return false;
    }
    // Where the last star stood, and how much of the name it has taken so far.
    let mut star: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut name) = (pattern, name);
    loop {
        if let [b'*', rest @ ..] = pattern {
            star = Some((rest, name));
            pattern = rest;
            continue;
        }
        if name.is_empty() && pattern.is_empty() {
            return true;
        }
        if let Some(rest) = name.first().and_then(|byte| one(pattern, *byte)) {
            pattern = rest;
            name = name.get(1..).unwrap_or_default();
            continue;
        }
        match star {
            Some((after, taken)) if !taken.is_empty() => {
                let taken = taken.get(1..).unwrap_or_default();
                star = Some((after, taken));
                (pattern, name) = (after, taken);
            }
            _ => return false,
        }
    }
}

/// What is left of the pattern if its first item, no star, matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', inside @ ..] => match set(inside, byte) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            // Without its end it is a bracket like any other character.
            None => (byte == b'[').then_some(inside),
        },
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// Whether the set after a `[` has the byte, and what follows the set; `None` if it has no end.
fn set(inside: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (is_negated, mut rest) = match inside {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut has = false;
    let mut is_first = true;
    loop {
        match rest {
            [b']', after @ ..] if !is_first => return Some((has != is_negated, after)),
            [from, b'-', to, after @ ..] if *to != b']' => {
                has |= (*from..=*to).contains(&byte);
                rest = after;
            }
            [literal, after @ ..] => {
                has |= *literal == byte;
                rest = after;
            }
            [] => return None,
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::tests::Tree;

    #[test]
    fn names_match_as_the_shell_matches_them() {
        let table = [
            ("*.conf", "www.conf", true),
            ("*.conf", ".www.conf", false),
            (".*.conf", ".www.conf", true),
            ("*.conf", "www.conf.dpkg-old", false),
            ("*", "", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("w?w.conf", "www.conf", true),
            ("?ww", ".ww", false),
            ("[a-cw]ww", "www", true),
            ("[!w]ww", "www", false),
            ("[^x]ww", "www", true),
            ("[]x]", "]", true),
            ("[w", "[w", true),
            ("[w", "w", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a", "A", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_come_in_the_order_of_their_bytes_without_folders() {
        let mut files = Tree::new(&[
            ("/etc/php/pool.d/b.conf", ""),
            ("/etc/php/pool.d/a.conf", ""),
            ("/etc/php/pool.d/A.conf", ""),
            ("/etc/php/pool.d/10-x.conf", ""),
            ("/etc/php/pool.d/.hidden.conf", ""),
            ("/etc/php/pool.d/folder.conf/x", ""),
            ("/etc/php-2/pool.d/z.conf", ""),
        ]);
        let mut paths = |pattern: &str| {
            let paths = expand(Path::new(pattern), &mut files).unwrap();
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            paths("/etc/php/pool.d/*.conf"),
            "/etc/php/pool.d/10-x.conf /etc/php/pool.d/A.conf /etc/php/pool.d/a.conf /etc/php/pool.d/b.conf"
        );
        assert_eq!(paths("/etc/php*/pool.d/[b-z].conf"), "/etc/php-2/pool.d/z.conf /etc/php/pool.d/b.conf");
        assert_eq!(paths("/no/such/file"), "/no/such/file");
        assert_eq!(paths("/etc/php/pool.d/*.ini"), "");
    }

    proptest! {
        #[test]
        fn no_pattern_panics_and_a_name_matches_itself(pattern in "[a*?\\[\\]!\\\\.-]{0,12}", name in "[a-c.]{0,12}") {
            let _ = matches(pattern.as_bytes(), name.as_bytes());
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
        }
    }
}
