//! What root does in somebody else's directory, it does as that user.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Group, User};
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
    // Of threads, the kernel knows who they are one by one: credentials(7). Those that this one starts are as it is.
    std::thread::scope(|scope| {
        let work = || {
            become_user(owner.uid(), owner.gid())?;
            Ok(work())
        };
        let done = std::thread::Builder::new().spawn_scoped(scope, work)?;
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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

fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // As far as a container has left it to root.
    let read = capabilities(None)?.permitted & CapabilitySet::DAC_READ_SEARCH;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: read, permitted: read, inheritable };
    Ok(set_capabilities(None, sets)?)
}
