//! The command that goes on where this run ended: the same words, with the time from which restarts count.

/// The command, ready to be pasted into a shell. `typed` is the command line without the program; with `same_input` the hosts are to
/// come from standard input, wherever they came from.
pub fn command(typed: &[String], since: &str, same_input: bool) -> String {
    let mut words = vec!["rolling-restart".to_owned(), "--since".to_owned(), since.to_owned()];
    let mut typed = typed.iter();
    let mut options = true;
    while let Some(word) = typed.next() {
        match word.as_str() {
            "--since" if options => _ = typed.next(),
            given if options && given.starts_with("--since=") => {}
            "--hosts" if options && same_input => {
                _ = typed.next();
                words.extend(["--hosts".to_owned(), "-".to_owned()]);
            }
            given if options && same_input && given.starts_with("--hosts=") => words.push("--hosts=-".to_owned()),
            given => {
                options &= given != "--";
                words.push(quoted(given));
            }
        }
    }
    words.join(" ")
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_takes_the_place_of_an_earlier_one_and_every_other_word_is_kept() {
        for (typed, wanted) in [
            (&["appserver", "eqiad"][..], "appserver eqiad"),
            (&["--since", "@5", "a", "b", "--batch", "20%"], "a b --batch 20%"),
            (&["--since=@5", "--reason", "it's T1; x", "a", "b"], r"--reason 'it'\''s T1; x' a b"),
            (&["--gate", "", "--", "a", "b"], "--gate '' -- a b"),
        ] {
            let typed: Vec<_> = typed.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command(&typed, "T", false), format!("rolling-restart --since T {wanted}"));
        }
    }

    #[test]
    fn a_list_that_is_not_there_a_second_time_is_to_come_from_standard_input() {
        for (typed, same_input, wanted) in [
            (&["--hosts", "/dev/fd/63", "-q"][..], true, "--hosts - -q"),
            (&["-q", "--hosts=/dev/fd/63"], true, "-q --hosts=-"),
            (&["--hosts", "-"], true, "--hosts -"),
            (&["--hosts", "/srv/hosts"], false, "--hosts /srv/hosts"),
        ] {
            let typed: Vec<_> = typed.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command(&typed, "T", same_input), format!("rolling-restart --since T {wanted}"));
        }
    }
}
