//! Work as another user: in directories of other users, and for programs that run as them.
//!
//! Accounts and groups are read from /etc/passwd and /etc/group: passwd(5), group(5). The C library would use the sources of
//! nsswitch.conf(5), with libraries of the host that a static program must not load and a small image does not have. Users
//! and groups of a directory service are known by their ids.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Stat, fstat, stat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::input;

const ACCOUNTS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// The longest list, in bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The id of a group by its name.
pub fn group_id(name: &str) -> Option<u32> {
    let list = read(GROUPS).ok()?;
    groups(&list).find(|group| group.name == name).map(|group| group.gid)
}

/// Does work in a directory. If this process is root and another user owns the directory, the work is done as that user. So
/// the user owns the files that are made, and no link of the user's leads to files that the user may not write. The work can
/// still read files that root may read, such as a key that is kept elsewhere.
///
/// The path may lead elsewhere when the work begins. So the work opens it with [`super::Trust`], or checks the owner itself
/// and uses [`as_owner`].
///
/// # Errors
/// If a thread cannot become that user.
pub fn as_owner_of<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    match stat(path) {
        Ok(found) => as_owner_of_found(&found, work),
        // The work reports a directory that does not exist.
        Err(_) => Ok(work()),
    }
}

/// [`as_owner_of`] for an open directory, wherever its path leads by now.
///
/// # Errors
/// If a thread cannot become that user.
pub fn as_owner<T: Send>(directory: impl AsFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    as_owner_of_found(&fstat(directory)?, work)
}

fn as_owner_of_found<T: Send>(found: &Stat, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if found.st_uid == 0 || !rustix::process::geteuid().is_root() {
        return Ok(work());
    }
    on_a_thread(|| {
        become_user(found.st_uid, found.st_gid, &[], CapabilitySet::DAC_READ_SEARCH)?;
        Ok(work())
    })
}

/// Runs work on a thread of its own. Each thread has its own credentials, which its children inherit: credentials(7).
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let done = std::thread::Builder::new().spawn_scoped(scope, work)?;
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A user that root can work as.
#[derive(Debug)]
pub struct OtherUser {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// The variables of the account.
    variables: Vec<(&'static str, OsString)>,
}

impl OtherUser {
    /// The user with this id, with the groups of the account. A user without an account has the group of the same number
    /// alone, so that no group of root's is left; the name is the number, and the home `/`.
    ///
    /// # Errors
    /// If accounts or groups cannot be read.
    pub fn find(uid: u32) -> io::Result<Self> {
        let (accounts_list, groups_list) = (read(ACCOUNTS)?, read(GROUPS)?);
        let Some(account) = accounts(&accounts_list).find(|account| account.uid == uid) else {
            let variables = variables(&uid.to_string(), "", "");
            return Ok(Self { uid, gid: uid, groups: Vec::new(), variables });
        };
        let own = groups(&groups_list).filter(|group| group.has(account.name));
        let groups = std::iter::once(account.gid).chain(own.map(|group| group.gid)).collect();
        let variables = variables(account.name, account.home, account.shell);
        Ok(Self { uid, gid: account.gid, groups, variables })
    }

    /// Does work as this user. Neither the work nor its child processes have any right of root.
    ///
    /// # Errors
    /// If a thread cannot become this user.
    pub fn work_as<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            become_user(self.uid, self.gid, &self.groups, CapabilitySet::empty())?;
            Ok(work())
        })
    }

    /// The variables that describe the user: `USER`, `LOGNAME`, `HOME` and `SHELL`.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        self.variables.clone()
    }
}

/// The variables of an account. Empty parts have the defaults of passwd(5) and login(1).
fn variables(name: &str, home: &str, shell: &str) -> Vec<(&'static str, OsString)> {
    let home = if home.is_empty() { "/" } else { home };
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    let said = [("USER", name), ("LOGNAME", name), ("HOME", home), ("SHELL", shell)];
    said.map(|(name, value)| (name, value.into())).into()
}

/// True if a group is a user's private group: it has the user's name and no other member, and is no other account's group.
pub(super) fn is_private_group(uid: u32, gid: u32) -> bool {
    // Root's group is never private: containers run any user in it.
    let lists = (uid != 0).then(|| read(ACCOUNTS).ok().zip(read(GROUPS).ok())).flatten();
    lists.is_some_and(|(accounts, groups)| is_private(&accounts, &groups, uid, gid))
}

fn is_private(account_list: &str, group_list: &str, uid: u32, gid: u32) -> bool {
    let account = accounts(account_list).find(|account| account.uid == uid);
    let group = groups(group_list).find(|group| group.gid == gid);
    account.zip(group).is_some_and(|(account, group)| {
        // A group does not list the users whose primary group it is: their accounts do.
        account.name == group.name
            && groups(group_list)
                .filter(|other| other.gid == gid)
                .all(|group| group.members().all(|member| member == account.name))
            && accounts(account_list)
                .filter(|other| other.gid == gid)
                .all(|other| other.name == account.name)
    })
}

/// A line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

/// A line of group(5).
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    list: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn members(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.list.split(',').map(str::trim).filter(|member| !member.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        self.members().any(|member| member == name)
    }
}

fn accounts(list: &str) -> impl Iterator<Item = Account<'_>> {
    entries(list).filter_map(|parts| {
        let [name, _, uid, gid, _, home, shell] = parts.try_into().ok()?;
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home, shell })
    })
}

fn groups(list: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    entries(list).filter_map(|parts| {
        let [name, _, gid, list] = parts.try_into().ok()?;
        Some(GroupEntry { name, gid: gid.parse().ok()?, list })
    })
}

/// The parts of each line. Lines that refer to other lists (`+` and `-`, of NIS) are skipped.
fn entries(list: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_entry = |line: &&str| !line.is_empty() && !line.starts_with(['+', '-', '#', ':']);
    list.lines().filter(is_entry).map(|line| line.split(':').collect())
}

/// A list; empty if the file does not exist.
fn read(path: &str) -> io::Result<String> {
    match input::file(Path::new(path), MOST_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        list => Ok(String::from_utf8_lossy(&list?).into_owned()),
    }
}

/// Makes this thread another user's. It keeps these capabilities, as far as root has them in this container.
fn become_user(uid: u32, gid: u32, groups: &[u32], kept: CapabilitySet) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    let groups: Vec<_> = groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
    set_keep_capabilities(true)?;
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let kept = capabilities(None)?.permitted & kept;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n\
                            bob:x:1001:1001::/:\n+::::::\nbroken:x:1002\n";
    const GROUPS: &str =
        "root:x:0:\nann:x:1000:\nbob:x:1001:bob,ann\n# x:x:7:\nbroken\n+:::\nown:x:1002:bob\n";

    #[test]
    fn a_group_that_is_another_accounts_own_is_not_private() {
        assert!(is_private(ACCOUNTS, GROUPS, 1000, 1000));
        let accounts = format!("{ACCOUNTS}\napp:x:1003:1000::/:/bin/sh\n");
        assert!(!is_private(&accounts, GROUPS, 1000, 1000));
        let groups = format!("{GROUPS}also:x:1000:bob\n");
        assert!(!is_private(ACCOUNTS, &groups, 1000, 1000));
    }

    #[test]
    fn accounts_and_groups_are_read_as_the_system_does() {
        let bob = accounts(ACCOUNTS).find(|account| account.name == "bob").unwrap();
        assert_eq!((bob.uid, bob.gid, bob.home, bob.shell), (1001, 1001, "/", ""));
        assert_eq!(accounts(ACCOUNTS).count(), 3);
        let names: Vec<_> = groups(GROUPS).map(|group| (group.name, group.gid)).collect();
        assert_eq!(names, [("root", 0), ("ann", 1000), ("bob", 1001), ("own", 1002)]);
        let of = |name: &str| groups(GROUPS).filter(|group| group.has(name)).count();
        assert_eq!((of("bob"), of("ann"), of("")), (2, 1, 0));
        for (uid, gid, expected) in [
            (1000, 1000, true),
            (1001, 1001, false),
            (1001, 1002, false),
            (1000, 1002, false),
            (7, 1000, false),
        ] {
            assert_eq!(is_private(ACCOUNTS, GROUPS, uid, gid), expected, "{uid} {gid}");
        }
    }
}
