//! A real php-fpm in a root of its own: the test bed's root file system under an overlay, so that nothing is written to it, with one
//! folder shared with the test, at the same path inside and out. Its processes are in a process namespace of their own, since
//! PHP-FPM's children outlive a master that is killed: when its first process goes, all go.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use php_fpm::{CommandLine, Configuration, Files, Listed, Pool, discover};
use tempfile::TempDir;
use testbed::{Result, prepared, wait};

/// Longer than anything here should take.
pub const LONG: Duration = Duration::from_secs(30);

/// What runs in the new namespaces before PHP-FPM takes its place. Arguments: the root file system, the test's folder, the command.
const PREPARE_AND_EXEC: &str = r#"
rootfs=$1 folder=$2
shift 2
mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
mkdir -p "$folder/root$folder/shared" "$folder/root/usr/share/safe-service-restart" "$folder/root/srv/jail"
cp "$folder/shared/"*.php "$folder/root/usr/share/safe-service-restart"
chmod -R u=rwX,go=rX "$folder/root/usr/share/safe-service-restart"
mount --bind "$folder/shared" "$folder/root$folder/shared"
mount -t proc proc "$folder/root/proc"
exec chroot "$folder/root" "$@"
"#;

/// The scripts that are installed beside the tools.
const HELPERS: [(&str, &str); 2] = [
    ("figures.php", include_str!("../../php/figures.php")),
    ("apcu-clear.php", include_str!("../../php/apcu-clear.php")),
];

/// A root to run php-fpm in.
pub struct Root {
    rootfs: PathBuf,
    folder: TempDir,
}

impl Root {
    /// A new one, with the helper scripts in their place.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("testbed-{}-php-fpm-", std::process::id())).tempdir()?;
        // PHP-FPM's children are not root and must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["upper", "work", "root", "shared"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let root = Self { rootfs: prepared::rootfs()?, folder };
        for (name, text) in HELPERS {
            root.write(name, text);
        }
        Ok(root)
    }

    /// The folder that both sides see.
    pub fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// A path in it, as text.
    pub fn path(&self, name: &str) -> String {
        self.shared().join(name).display().to_string()
    }

    /// Writes a file into it, `@/` standing for the folder, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.shared().join(name), text.replace("@/", &self.path(""))).unwrap();
        self.path(name)
    }

    /// A command in this root, ended when the test ends however it ends.
    fn command(&self, program: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "--", "sh", "-ec", PREPARE_AND_EXEC, "sh"])
            .args([&self.rootfs, self.folder.path(), program])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub fn run(&self, program: &Path, arguments: &[String]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// Starts php-fpm with this configuration, `@/` standing for the shared folder, and waits until it is ready.
    pub fn start(self, configuration: &str, arguments: &[&str]) -> Result<Fpm> {
        let file = self.write("php-fpm.conf", &format!("[global]\nerror_log = @/error.log\n{configuration}"));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let arguments: Vec<String> = ["--nodaemonize", "--force-stderr", "--fpm-config", &file]
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(arguments)
            .collect();
        let command_line = CommandLine::new(Path::new("/usr/sbin/php-fpm8.2"), arguments.clone())?;
        let log = self.shared().join("output");
        let output = File::create(&log)?;
        let mut command = self.command(command_line.program(), &arguments);
        let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let mut fpm = Fpm { child, command_line, root: self };
        let ready = wait::until("php-fpm to be ready", LONG, || {
            let ended = fpm.child.try_wait()?.is_some();
            let said = fs::read_to_string(&log)?;
            assert!(!ended, "php-fpm ended at once:\n{said}");
            Ok(said.contains("ready to handle connections"))
        });
        ready.map(|()| fpm)
    }
}

/// A running php-fpm; ends with this value.
pub struct Fpm {
    child: Child,
    command_line: CommandLine,
    /// After the process: its files go last.
    pub root: Root,
}

impl Fpm {
    /// What [`discover`] makes of its configuration.
    pub fn configuration(&self) -> Configuration {
        discover(&self.command_line, &mut Shared).unwrap()
    }

    /// Ends it without a warning; its files stay.
    pub fn kill(&mut self) {
        // Killed, `unshare --kill-child` takes the namespace's first process with it, and that all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The pool of this name, as it was discovered.
    pub fn pool(&self, name: &str) -> Pool {
        self.configuration().pools.into_iter().find(|pool| pool.name == name).unwrap()
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The files of the shared folder are at the same path outside.
pub struct Shared;

impl Files for Shared {
    type Error = io::Error;

    fn read(&mut self, path: &Path) -> io::Result<Option<String>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&mut self, folder: &Path) -> io::Result<Vec<Listed>> {
        php_fpm::list(folder)
    }
}

/// A pool's section with a number of processes and a socket named after it.
pub fn section(name: &str, children: u32, more: &str) -> String {
    format!(
        "[{name}]\nuser = www-data\ngroup = www-data\nlisten = @/{name}.sock\npm = static\npm.max_children = {children}\n{more}\n"
    )
}
