//! Endings whose line the journal does not take: who took access away hears nothing before the line is on disk.

use std::path::PathBuf;
use std::process::Child;

use crate::durability::disk::{Kind, read, shim};
use crate::durability::endings::World;
use crate::harness::{connection, keyhatch_in, wait_until};

/// A broker whose journal can be made to refuse the line of an ending.
struct Refusing {
    world: World,
    /// The line is refused while this file exists.
    file: PathBuf,
}

impl Refusing {
    /// `None` if the shim is not built.
    fn start() -> Option<Self> {
        let shim = shim()?;
        let env = |directory: &std::path::Path| {
            let below = |name: &str| directory.join(name).into_os_string();
            let mut refuse = std::ffi::OsString::from("\"ending\":");
            refuse.push(below("refuse"));
            vec![
                ("LD_PRELOAD", shim.clone().into()),
                ("SHIM_DIRECTORY", below("state")),
                ("SHIM_LOG", below("record")),
                ("SHIM_REFUSE", refuse),
            ]
        };
        let world = World::start_with(|_| None, env);
        let file = world.directory.path().join("refuse");
        Some(Self { world, file })
    }

    fn refuse(&self) {
        std::fs::write(&self.file, "").unwrap();
    }

    fn accept(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }

    /// Begins a command.
    fn begin(&self, arguments: &[&str]) -> Child {
        keyhatch_in(self.world.directory.path(), arguments).spawn().unwrap()
    }

    /// Waits until the journal was asked this often, at least, and has refused.
    fn refused(&self, times: usize) {
        let record = self.world.directory.path().join("record");
        wait_until("the journal refuses the line", || {
            let events = read(&record);
            events.iter().filter(|one| one.kind == Kind::Write && !one.is_done).count() >= times
        });
    }
}

#[test]
fn removed_access_is_not_told_before_the_ending_is_on_disk() {
    let Some(refusing) = Refusing::start() else { return };
    let world = &refusing.world;
    let url = "https://auth.example.com/token";
    let fields = [("token_url", url), ("client_id", "me"), ("client_secret", "x")];
    let seed = world.directory.path().join("other.yaml");
    std::fs::write(&seed, connection("oauth2", "other", &fields)).unwrap();
    world.must(&["apply", "-f", seed.to_str().unwrap()]);
    world.resolve("s");
    refusing.refuse();
    let disable = ["connection", "update", "oauth2/api", "--disable"];
    let mut first = refusing.begin(&disable);
    refusing.refused(5);
    // The same again changes nothing, and is not told either.
    let mut again = refusing.begin(&disable);
    // The writer goes on: another change that takes away is in force.
    let mut deleting = refusing.begin(&["connection", "delete", "oauth2/other", "--yes"]);
    let get = ["connection", "get", "oauth2/other"];
    wait_until("it is in force", || !world.serving().run(&get).status.success());
    for changing in [&mut first, &mut again, &mut deleting] {
        assert!(changing.try_wait().unwrap().is_none(), "nobody is told");
    }
    assert_eq!((world.count("ending"), world.revocations.calls()), (0, 0));
    refusing.accept();
    for mut changing in [first, again, deleting] {
        assert!(changing.wait().unwrap().success());
        assert_eq!(world.count("ending"), 1);
    }
    world.wait_for_the_end();
    assert_eq!(world.revocations.revoked(), ["minted-1"]);
}

#[test]
fn a_closing_tells_of_an_ending_that_cannot_begin() {
    let Some(refusing) = Refusing::start() else { return };
    let world = &refusing.world;
    let (step, _) = world.resolve("s");
    refusing.refuse();
    let closed = world.must(&["step", "close", &step, "-o", "json"]);
    assert!(closed.contains("oauth2/api"), "{closed}");
    assert_eq!((world.count("closed"), world.count("ending")), (1, 0));
    refusing.accept();
    world.wait_for_the_end();
    assert_eq!(world.revocations.revoked(), ["minted-1"]);
}

#[test]
fn a_daemon_stops_although_an_ending_cannot_begin() {
    let Some(mut refusing) = Refusing::start() else { return };
    refusing.world.resolve("s");
    refusing.refuse();
    let mut disabling = refusing.begin(&["connection", "update", "oauth2/api", "--disable"]);
    refusing.refused(5);
    refusing.world.stop();
    assert!(!disabling.wait().unwrap().success());
    refusing.accept();
    refusing.world.serve();
    // The change was in force, and its ending begins with the daemon.
    refusing.world.wait_for_the_end();
    assert_eq!(refusing.world.revocations.revoked(), ["minted-1"]);
}
