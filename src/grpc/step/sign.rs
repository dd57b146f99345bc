//! `StepService.Sign` and `GetSigningKey`.

use super::target::reference;
use crate::broker::{Error, PublicSigningKey, SignRequest};
use crate::grpc::request::parse_requests;
use crate::grpc::{convert, pb};
use crate::model::Reference;
use crate::ssh::LoginRequest;
use pb::resolve_request::Target;

parse_requests! {
    GetSigningKeyRequest -> Reference = |one| target(one.target);
    SignRequest -> SignRequest = |one| {
        let target = target(one.target)?;
        let login = LoginRequest::parse(one.data).map_err(Error::LoginInvalid)?;
        Ok(SignRequest { target, login })
    };
}

fn target(target: Option<pb::SigningTarget>) -> Result<Reference, Error> {
    use pb::signing_target::Target as Asked;
    reference(target.and_then(|target| target.target).map(|target| match target {
        Asked::Connection(connection) => Target::Connection(connection),
        Asked::Group(group) => Target::Group(group),
        Asked::DefaultFor(integration) => Target::DefaultFor(integration),
    }))
}

pub(super) fn signing_key(key: PublicSigningKey) -> pb::SigningKey {
    let PublicSigningKey { name, version, public_key, user, known_hosts } = key;
    let (name, version) = (name.to_text(), convert::count(version));
    let public_key = public_key.to_vec();
    pb::SigningKey { name, version, public_key, user, known_hosts }
}
