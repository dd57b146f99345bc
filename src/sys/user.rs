//! What root does in somebody else's directory, it does as that user; what it runs for somebody else, too.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Group, User, getgrouplist};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Does work in a directory. If this process is root and the directory another user's, the work is done as that user:
/// what it makes is his, and nothing that he has put there leads to more than he may write. It still reads what root
/// may read, such as a key that is kept elsewhere.
///
/// # Errors
/// If a thread cannot become that user.
pub fn as_owner_of<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // One that is not there is for the work to say.
    let owner = std::fs::metadata(path).ok().filter(|found| found.uid() != 0);
    let Some(owner) = owner.filter(|_| rustix::process::geteuid().is_root()) else {
        return Ok(work());
    };
    on_a_thread(|| {
        let read = CapabilitySet::DAC_READ_SEARCH;
        become_user(owner.uid(), owner.gid(), &[], read)?;
        Ok(work())
    })
}

/// Of threads, the kernel knows who they are one by one: credentials(7). Those that this one starts are as it is, and so
/// are the processes.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let done = std::thread::Builder::new().spawn_scoped(scope, work)?;
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A user whom root may become.
#[derive(Debug)]
pub struct OtherUser {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// The account, if the system knows one.
    account: Option<User>,
}

impl OtherUser {
    /// The user with this id, and the groups of the account. One that this system does not know has a group of the same
    /// number and no other: no group of root's.
    ///
    /// # Errors
    /// If accounts or groups cannot be looked up.
    pub fn find(uid: u32) -> io::Result<Self> {
        let Some(account) = User::from_uid(uid.into())? else {
            return Ok(Self { uid, gid: uid, groups: Vec::new(), account: None });
        };
        let name = CString::new(account.name.clone())?;
        let groups = getgrouplist(&name, account.gid)?.into_iter().map(|gid| gid.as_raw());
        let (gid, groups) = (account.gid.as_raw(), groups.collect());
        Ok(Self { uid, gid, groups, account: Some(account) })
    }

    /// Does work as this user, with no right of root's left: also what it starts.
    ///
    /// # Errors
    /// If a thread cannot become this user.
    pub fn work_as<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            become_user(self.uid, self.gid, &self.groups, CapabilitySet::empty())?;
            Ok(work())
        })
    }

    /// The variables that say who a user is.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Some(User { name, dir, shell, .. }) = &self.account else { return Vec::new() };
        let home = dir.clone().into_os_string();
        let shell = shell.clone().into_os_string();
        vec![("HOME", home), ("SHELL", shell), ("USER", name.into()), ("LOGNAME", name.into())]
    }
}

/// Whether a group is a user's private one: it has the user's name, and no other member.
pub(super) fn is_private_group(uid: u32, gid: u32) -> bool {
    // Containers run as any user in root's group.
    let user = Some(uid).filter(|uid| *uid != 0);
    let user = user.and_then(|uid| User::from_uid(uid.into()).ok().flatten());
    let group = Group::from_gid(gid.into()).ok().flatten();
    user.zip(group).is_some_and(|(user, group)| {
        user.name == group.name && group.mem.iter().all(|member| *member == user.name)
    })
}

/// Makes this thread another user's, with these capabilities of root's left, as far as a container has left them to root.
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
