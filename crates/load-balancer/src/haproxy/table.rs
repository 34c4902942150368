//! The two tables of HAProxy's runtime API, read to the last byte: `show servers state` and the CSV of `show stat`. Columns are
//! found by their names, since their number grows with each version. Whatever is not as the management guide says (HAProxy 2.6,
//! section 9) is an error in a few words, without anything that was sent.

use std::collections::BTreeSet;

/// A server's row in `show servers state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// `be_id`, which `show stat` takes as its `iid`.
    pub(super) backend_id: u64,
    /// `srv_id`, which `show stat` takes as its `sid`.
    pub(super) server_id: u64,
    /// `srv_op_state`.
    pub(super) operational: u64,
    /// `srv_admin_state`, a mask.
    pub(super) administrative: u64,
    /// `srv_uweight`: the weight that is wished for, 0 to 256.
    pub(super) weight: u64,
}

/// A server's row in `show stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sessions {
    /// `scur`: sessions on the server right now.
    pub(super) open: u64,
    /// `qcur`: requests that wait for this server and no other.
    pub(super) queued: u64,
}

/// A server of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Its name.
    pub(super) name: String,
    /// How it stands.
    pub(super) state: State,
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// HAProxy refuses, and will again.
    Refused(String),
    /// It is no answer of HAProxy's, or not a whole one.
    Rubbish(String),
}

impl From<&str> for Unusable {
    fn from(why: &str) -> Self {
        Self::Rubbish(why.to_owned())
    }
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self::Rubbish(why)
    }
}

impl From<Unusable> for String {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Refused(why) | Unusable::Rubbish(why) => why,
        }
    }
}

/// Cuts one answer off: HAProxy ends each with an empty line, by which a reader knows that it is whole.
pub(super) fn first_answer(text: &str) -> Result<(&str, &str), String> {
    text.split_once("\n\n").ok_or_else(|| "its answer is cut short".to_owned())
}

/// An answer as text.
pub(super) fn text(answer: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(answer).map_err(|_| "its answer is not text".to_owned())
}

/// The answer to `show servers state BACKEND`: the server's row, none where the backend has no such server, and what follows.
pub(super) fn state<'a>(answer: &'a [u8], backend: &str, server: &str) -> Result<(Option<State>, &'a str), String> {
    let (servers, rest) = servers(text(answer)?, backend)?;
    let found = servers.into_iter().find(|one| one.name == server);
    Ok((found.map(|server| server.state), rest))
}

/// The same answer: every server of the backend, in HAProxy's order, each name once, and what follows.
pub(super) fn servers<'a>(answer: &'a str, backend: &str) -> Result<(Vec<Server>, &'a str), Unusable> {
    let first_line = answer.lines().next().unwrap_or_default();
    if first_line != "1" {
        return Err(refusal(first_line, backend));
    }
    let (table, rest) = first_answer(answer)?;
    let mut lines = table.lines().skip(1);
    let header = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or("its table of servers has no header")?;
    let header: Vec<&str> = header.split(' ').collect();
    let mut servers: Vec<Server> = Vec::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let row = Row { header: &header, fields: line.split(' ').collect() };
        row.is_whole()?;
        if row.field("be_name")? != backend {
            continue;
        }
        let name = row.field("srv_name")?.to_owned();
        let state = State {
            backend_id: row.number("be_id")?,
            server_id: row.number("srv_id")?,
            operational: row.number("srv_op_state")?,
            administrative: row.number("srv_admin_state")?,
            weight: row.number("srv_uweight")?,
        };
        if servers.iter().any(|other| other.name == name) {
            return Err(format!("it has the server '{name}' twice in the backend '{backend}'").into());
        }
        servers.push(Server { name, state });
    }
    Ok((servers, rest))
}

/// What is answered in place of the table, in the words of HAProxy 2.6.
fn refusal(line: &str, backend: &str) -> Unusable {
    match line {
        "Can't find backend." => {
            Unusable::Refused(format!("it has no backend '{backend}' (the pool's key 'backend', by default its name)"))
        }
        line if line.starts_with("Permission denied") => Unusable::Refused("it does not permit to be asked".to_owned()),
        line if line.starts_with("Unknown command") => {
            Unusable::Refused("it does not know 'show servers state'".to_owned())
        }
        line if !line.is_empty() && line.len() < 4 && line.bytes().all(|byte| byte.is_ascii_digit()) => {
            Unusable::Refused(format!("its table of servers is of format {line}, and known is 1"))
        }
        _ => "its answer is not one of HAProxy's runtime API".into(),
    }
}

/// The answer to `show stat BACKEND_ID 4 SERVER_ID`, which has to be this server's row.
pub(super) fn sessions(answer: &str, backend: &str, server: &str) -> Result<Sessions, String> {
    let mut found = None;
    statistics(answer, backend, |row| {
        if row.field("svname")? != server {
            return Err(ANOTHER.to_owned());
        }
        let sessions = Sessions { open: row.number("scur")?, queued: row.number("qcur")? };
        match found.replace(sessions) {
            None => Ok(()),
            Some(_) => Err("its statistics have the server twice".to_owned()),
        }
    })?;
    found.ok_or_else(|| "its statistics do not have the server".to_owned())
}

/// The answer to `show stat BACKEND_ID 4 -1`: the names of the servers that are a `backup`, sent to when no other can be.
pub(super) fn backups(answer: &str, backend: &str) -> Result<BTreeSet<String>, String> {
    let mut backups = BTreeSet::new();
    statistics(answer, backend, |row| {
        if row.number("bck")? > 0 {
            backups.insert(row.field("svname")?.to_owned());
        }
        Ok(())
    })?;
    Ok(backups)
}

/// It was reloaded between two lines, or does not count as we think.
const ANOTHER: &str = "its statistics are of another server";

/// Each row of statistics, all of which have to be of this backend.
fn statistics(answer: &str, backend: &str, mut each: impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
    let table = answer.strip_prefix("# ").ok_or("its statistics have no header")?;
    let mut records = records(table)?.into_iter();
    let header = records.next().ok_or("its statistics have no header")?;
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    for record in records {
        let row = Row { header: &header, fields: record.iter().map(String::as_str).collect() };
        row.is_whole()?;
        if row.field("pxname")? != backend {
            return Err(ANOTHER.to_owned());
        }
        each(&row)?;
    }
    Ok(())
}

/// Reads CSV up to the empty line that has to end it. A field with a comma, a quote or a line feed in it stands in quotes, and a
/// quote in it is doubled (the guide, section 9.1); what a server's health check said is such a field, and may be anything.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted && record.is_empty() && field.is_empty() => {
                return if letters.all(|letter| letter == '\n') {
                    Ok(records)
                } else {
                    Err("something follows its statistics".to_owned())
                };
            }
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            _ => field.push(letter),
        }
    }
    Err("its answer is cut short".to_owned())
}

/// A row of a table, under its header.
struct Row<'a> {
    header: &'a [&'a str],
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn is_whole(&self) -> Result<(), String> {
        if self.fields.len() == self.header.len() {
            Ok(())
        } else {
            Err("a row of its table is not as long as the header".to_owned())
        }
    }

    fn field(&self, column: &str) -> Result<&'a str, String> {
        let place = self.header.iter().position(|name| *name == column);
        let field = place.and_then(|place| self.fields.get(place)).copied();
        field.ok_or_else(|| format!("its table has no column '{column}'"))
    }

    fn number(&self, column: &str) -> Result<u64, String> {
        let field = self.field(column)?;
        let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { field.parse().ok() } else { None };
        number.ok_or_else(|| format!("its '{column}' is not a number"))
    }
}
