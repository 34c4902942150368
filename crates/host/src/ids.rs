//! Which machine, which boot, which run: what a journal needs to say whose it is. The machine is known by its id and not by its
//! name, which a new machine may have inherited; a process by its boot and number.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::printable::{printable, shortened};

/// machine-id(5).
const MACHINE: &str = "/etc/machine-id";
/// random(4): made anew at each boot. A container that systemd-nspawn boots sees one of its own.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// random(4).
const RANDOM: &str = "/dev/urandom";

/// How much the kernel keeps of a process's name (proc(5), `comm`).
const LONGEST_NAME: usize = 15;

/// More than any id takes.
const LONGEST: u64 = 100;

/// The id of a machine, from its first boot on: 32 lower-case hexadecimal digits, not all zero (machine-id(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MachineId(String);

impl MachineId {
    /// Checks `given`, which is what stands in /etc/machine-id without the end of the line.
    pub fn new(given: impl Into<String>) -> Result<Self, NoMachineId> {
        let given = given.into();
        let right = given.len() == 32 && is_lower_hex(&given) && given.bytes().any(|digit| digit != b'0');
        if right { Ok(Self(given)) } else { Err(NoMachineId(shortened(&printable(&given), 40))) }
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MachineId {
    type Error = NoMachineId;

    fn try_from(given: String) -> Result<Self, NoMachineId> {
        Self::new(given)
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

/// Text that is no id of a machine, such as the "uninitialized" of a first boot that is not over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no machine id: 32 lower-case hexadecimal digits, not all zero")]
pub struct NoMachineId(String);

/// Why it is not known which machine or boot this is.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// The file could not be read.
    #[error("cannot read '{path}': {source}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// /etc/machine-id holds something else.
    #[error("cannot use '/etc/machine-id': {0}")]
    Machine(#[from] NoMachineId),
    /// The kernel's id of the boot is none.
    #[error("cannot use '/proc/sys/kernel/random/boot_id': '{0}' is no id of a boot")]
    Boot(String),
}

/// This machine's id, by /etc/machine-id.
pub fn machine() -> Result<MachineId, IdError> {
    Ok(MachineId::new(text(MACHINE)?)?)
}

/// The id of this boot: a UUID in the kernel's spelling, 36 characters.
pub fn boot() -> Result<String, IdError> {
    let id = text(BOOT)?;
    if is_uuid(&id) { Ok(id) } else { Err(IdError::Boot(shortened(&printable(&id), 40))) }
}

/// A name for a run that no other run has, on any host: 128 random bits as 32 hexadecimal digits.
pub fn fresh_run() -> Result<String, IdError> {
    let mut bits = [0; 16];
    File::open(RANDOM)
        .and_then(|mut random| random.read_exact(&mut bits))
        .map_err(|source| IdError::Unreadable { path: RANDOM, source })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

/// Whether a process of that number runs now and has the name of this tool, so that it is no other one that got the number since.
/// What decides whether a run may begin is the lock of the host.
///
/// A process that was killed keeps number and name until its parent collects it, which may be never. Its memory is gone before its
/// lock is, and the command line with it (proc(5)): whoever finds the lock free finds the process dead.
pub fn runs(pid: u32, tool: &str) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let tool: String = tool.chars().take(LONGEST_NAME).collect();
    let has_the_name = !tool.is_empty() && name.trim_end() == tool;
    has_the_name && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command_line| !command_line.is_empty())
}

/// The first line of a small file.
fn text(path: &'static str) -> Result<String, IdError> {
    let read = || {
        let mut text = String::new();
        File::open(Path::new(path))?.take(LONGEST).read_to_string(&mut text)?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    read().map_err(|source| IdError::Unreadable { path, source })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Groups of 8, 4, 4, 4 and 12 digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| is_lower_hex(group))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_machine_id_is_32_digits_and_not_all_zero() {
        let good = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        assert_eq!(MachineId::new(good).unwrap().as_str(), good);
        let upper = good.to_uppercase();
        let long = format!("{good}0");
        for junk in
            ["", "uninitialized", &good[1..], &upper, &long, &"0".repeat(32), "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4"]
        {
            let error = MachineId::new(junk).unwrap_err();
            assert!(error.to_string().starts_with(&format!("'{junk}' is no machine id")), "{error}");
        }
        assert!(!MachineId::new("\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
    }

    #[test]
    fn this_machine_and_this_boot_have_ids_that_stay() {
        assert_eq!(machine().unwrap(), machine().unwrap());
        assert_eq!(boot().unwrap(), boot().unwrap());
        assert_eq!(boot().unwrap().len(), 36);
    }

    #[test]
    fn the_id_of_a_boot_is_a_uuid() {
        assert!(is_uuid("ac9e2b4f-6cf1-4a4f-b2a5-6d9f8a1f7c3e"));
        for junk in ["", "ac9e2b4f6cf14a4fb2a56d9f8a1f7c3e", "ac9e2b4f-6cf1-4a4f-b2a5-6d9f8a1f7c3g", "----"] {
            assert!(!is_uuid(junk), "{junk:?} passed");
        }
    }

    #[test]
    fn no_two_runs_have_the_same_name() {
        let runs: Vec<String> = (0..100).map(|_| fresh_run().unwrap()).collect();
        assert!(runs.iter().all(|run| run.len() == 32 && is_lower_hex(run)), "{runs:?}");
        let different: std::collections::HashSet<&String> = runs.iter().collect();
        assert_eq!(different.len(), runs.len());
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_name_as_the_kernel_cuts_it_and_by_being_alive() {
        let _turn = crate::alone();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a-name-of-more-than-fifteen-letters");
        std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
        let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It has its name when it does its work.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert!(runs(child.id(), "a-name-of-more-than-fifteen-letters"));
        assert!(!runs(child.id(), "cat") && !runs(child.id(), "") && !runs(1, "a-name-of-more-than-fifteen-letters"));
        drop(child.stdin.take());
        // It has ended, and nobody has collected it yet.
        let process = Pid::from_raw(child.id().cast_signed());
        waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
        assert!(!runs(child.id(), name.trim_end()), "'{}' is dead", name.trim_end());
        child.wait().unwrap();
        for nobody in [0, child.id(), u32::MAX] {
            assert!(!runs(nobody, "a-name-of-more-than-fifteen-letters"), "{nobody}");
        }
    }
}
