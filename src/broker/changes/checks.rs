//! The checks that every change of a resource makes, and the note that the journal keeps of it.

use std::fmt::Display;

use super::documents::Access;
use crate::access::{Bindings, Decision, Pattern, Principal, Relation, decide_edit};
use crate::broker::error::Error;
use crate::journal::ChangeNote;
use crate::model::{Id, ResourceName};

/// Refuses a caller who is neither an editor of the resource nor an administrator.
pub(crate) fn require_editor(
    caller: &Principal,
    access: &Bindings,
    resource: &ResourceName,
) -> Result<(), Error> {
    match decide_edit(caller, access) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny => Err(Error::EditDenied(resource.clone())),
    }
}

/// Refuses a write that would undo another operator's write.
pub(crate) fn check_etag(
    given: Option<&String>,
    current: &str,
    resource: &ResourceName,
) -> Result<(), Error> {
    match given {
        Some(etag) if etag != current => Err(Error::EtagMismatch(resource.clone())),
        _ => Ok(()),
    }
}

/// The bindings of a new resource: the given ones, and the creator as an editor.
pub(crate) fn first_access(caller: &Principal, given: Access) -> Result<Bindings, Error> {
    let mut access = Bindings::default();
    access.replace_all(given).map_err(Error::PrincipalInvalid)?;
    if let Principal::Operator(name, ..) = caller {
        access.add(Relation::Editor, Pattern::Operator(name.clone()));
    }
    Ok(access)
}

/// A note of a change, without the details of the change.
pub(crate) fn change_note(
    by: impl Display,
    action: impl Into<String>,
    resource: impl Display,
    uid: Id,
    version: u64,
) -> ChangeNote {
    ChangeNote {
        principal: by.to_string(),
        action: action.into(),
        resource: resource.to_string(),
        uid,
        version,
        fields: Vec::new(),
        settings: Vec::new(),
        access: None,
    }
}
