//! POSIX access control lists, acl(5): other users may use files that this process owns.
//!
//! A list is the extended attribute `system.posix_acl_access`, little endian (linux/posix_acl_xattr.h and
//! linux/posix_acl.h; what the kernel takes for a valid list is posix_acl_valid in fs/posix_acl.c):
//!
//! ```text
//! 0        4      6      8           12     14     16
//! ┌────────┬──────┬──────┬───────────┬──────┬──────┬───────────┬─
//! │ 2: u32 │ tag  │ perm │ id: u32   │ tag  │ perm │ id: u32   │ …
//! └────────┴──────┴──────┴───────────┴──────┴──────┴───────────┴─
//!  version   entry: the owner          entry: a user
//! ```
//!
//! Entries are in the order of their tags: owner, users, owning group, groups, mask, others. A list with a named user or
//! group has a mask, which limits every named entry and the owning group. chmod changes the mask, and a mode shows it as the
//! group's bits; so a mode is never set after a list.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Uid, XattrFlags, chmod, chownat, fgetxattr, fgetxattr_query,
    fsetxattr, getxattr, lgetxattr, setxattr,
};
use rustix::io::Errno;

const ATTRIBUTE: &str = "system.posix_acl_access";
const VERSION: u32 = 2;
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The longest extended attribute, in bytes: xattr(7).
const MAX_LIST_BYTES: usize = 64 * 1024;
/// The id of entries without a user or group.
const NO_ID: u32 = u32::MAX;

/// The users who may use a file of this process's user, besides that user.
#[derive(Clone, Copy, Debug)]
pub enum Grantees {
    /// No other user.
    Nobody,
    /// Every user who can reach the file.
    Everybody,
    /// A user, the members of a group, or both.
    Named {
        /// The user; never the user of this process.
        uid: Option<u32>,
        /// The group.
        gid: Option<u32>,
    },
}

/// The use of a file that grantees are permitted.
#[derive(Clone, Copy, Debug)]
pub enum Permission {
    /// Connect to a socket.
    Connect,
    /// List a directory, and reach the files in it.
    Enter,
    /// Read a file.
    Read,
    /// Reach the files in a directory by their names.
    Search,
}

impl Permission {
    fn owner_bits(self) -> u16 {
        match self {
            Self::Connect => 6,
            Self::Enter | Self::Search => 7,
            Self::Read => 4,
        }
    }

    fn grantee_bits(self) -> u16 {
        match self {
            Self::Connect => 6,
            Self::Enter => 5,
            Self::Read => 4,
            Self::Search => 1,
        }
    }
}

/// Gives grantees a permission on a file that only this process's user can reach.
///
/// # Errors
/// `EINVAL` if a grantee is not mapped in this user namespace; `EPERM` or `EOPNOTSUPP` if the file system has no lists and
/// the file's owner cannot be changed instead.
pub(super) fn grant(path: &str, permission: Permission, grantees: Grantees) -> io::Result<()> {
    let (ours, theirs) = (permission.owner_bits(), permission.grantee_bits());
    let (uid, gid) = match grantees {
        Grantees::Nobody => return set_mode(path, ours << 6),
        Grantees::Everybody => return set_mode(path, ours << 6 | theirs << 3 | theirs),
        Grantees::Named { uid, gid } => (uid, gid),
    };
    match setxattr(path, ATTRIBUTE, &list(permission, uid, gid), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => change_owner(path, permission, uid, gid),
        outcome => Ok(outcome?),
    }
}

/// True if the file system of an open file has lists.
pub(super) fn are_kept(file: impl AsFd) -> bool {
    fgetxattr_query(file, ATTRIBUTE) != Err(Errno::OPNOTSUPP)
}

/// True if an open file has a list with more entries than its mode. It may be open by its path only (O_PATH).
pub(super) fn is_extended(file: BorrowedFd<'_>) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut none: [u8; 0] = [];
    !matches!(getxattr(path, ATTRIBUTE, &mut none), Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Copies the list of a file to an open file, if it has more entries than the mode.
///
/// # Errors
/// If the list cannot be read or set.
pub fn copy_list(from: &Path, to: impl AsFd) -> io::Result<()> {
    copy(to, |list| lgetxattr(from, ATTRIBUTE, list))
}

/// [`copy_list`] for two open files.
///
/// # Errors
/// As [`copy_list`].
pub fn copy_list_of_open(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    copy(to, |list| fgetxattr(from, ATTRIBUTE, list))
}

fn copy(to: impl AsFd, read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> io::Result<()> {
    let mut list = vec![0; MAX_LIST_BYTES];
    let length = match read(list.as_mut_slice()) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
        read => read?,
    };
    list.truncate(length);
    Ok(fsetxattr(to, ATTRIBUTE, &list, XattrFlags::empty())?)
}

fn list(permission: Permission, uid: Option<u32>, gid: Option<u32>) -> Vec<u8> {
    let theirs = permission.grantee_bits();
    let user = uid.map(|uid| (USER, theirs, uid));
    let group = gid.map(|gid| (GROUP, theirs, gid));
    let entries = [
        Some((OWNER, permission.owner_bits(), NO_ID)),
        user,
        Some((OWNING_GROUP, 0, NO_ID)),
        group,
        Some((MASK, theirs, NO_ID)),
        Some((OTHERS, 0, NO_ID)),
    ];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries.into_iter().flatten() {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// For a file system without lists: makes the grantee the owner of a file, which takes CAP_CHOWN (chown(2)). The owner of a
/// directory stays, and every user may search it.
fn change_owner(
    path: &str,
    permission: Permission,
    uid: Option<u32>,
    gid: Option<u32>,
) -> io::Result<()> {
    match permission {
        Permission::Enter => return set_mode(path, 0o711),
        // This process does not work in directories of other users.
        Permission::Search => return Err(Errno::OPNOTSUPP.into()),
        Permission::Connect | Permission::Read => {}
    }
    let group = gid.map_or(0, |_| permission.grantee_bits() << 3);
    set_mode(path, permission.owner_bits() << 6 | group)?;
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_mode(path: &str, mode: u16) -> io::Result<()> {
    Ok(chmod(path, Mode::from_raw_mode(mode.into()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As setfacl(1) writes them, byte for byte.
    #[test]
    fn a_list_has_the_kernels_layout() {
        let told =
            |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            told(&list(Permission::Read, Some(1000), None)),
            "02000000\
             01000400ffffffff\
             02000400e8030000\
             04000000ffffffff\
             10000400ffffffff\
             20000000ffffffff"
        );
        assert_eq!(
            told(&list(Permission::Enter, None, Some(1000))),
            "02000000\
             01000700ffffffff\
             04000000ffffffff\
             08000500e8030000\
             10000500ffffffff\
             20000000ffffffff"
        );
    }
}
