//! The class of each request, by its path: what it takes of its peer's quota, and for how long.

use crate::identity::Lane;

/// How a request is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// Documents that come one by one, and are held until all are there: one Apply at a time, and few that wait. It takes
    /// its place when it comes.
    Documents,
    /// It ends or renews something.
    Ending,
    /// Whether the broker lives is asked when it is overloaded, too.
    Health,
    /// A stream of a service that is not ours, which may be open for days.
    Looking,
    /// A stream of ours, likewise. It takes a place until it begins.
    Stream,
    /// Everything else.
    Unary,
}

impl RequestClass {
    /// How requests of this path are taken. What is not served is answered as soon as it is whole.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/keyhatch.v1.ApplyService/Apply" | "/keyhatch.v1.ApplyService/Plan" => Self::Documents,
            "/keyhatch.v1.StepService/RenewLease"
            | "/keyhatch.v1.StepService/RevokeLease"
            | "/keyhatch.v1.ExecutorService/CloseRun"
            | "/keyhatch.v1.ExecutorService/CloseStep"
            | "/keyhatch.v1.ExecutorService/RenewStep"
            | "/keyhatch.v1.ConnectionService/DeleteConnection"
            | "/keyhatch.v1.ExecutorRegistryService/DeleteExecutor"
            | "/keyhatch.v1.GroupService/DeleteGroup"
            | "/keyhatch.v1.GroupService/RemoveMembers"
            | "/keyhatch.v1.IntegrationService/DeleteIntegration"
            | "/keyhatch.v1.OperatorService/DeleteOperator"
            | "/keyhatch.v1.SecretService/DeleteSecret"
            | "/keyhatch.v1.SystemService/RenewCertificate" => Self::Ending,
            "/grpc.health.v1.Health/Check" => Self::Health,
            "/grpc.health.v1.Health/Watch"
            | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self::Looking,
            "/keyhatch.v1.StepService/Watch"
            | "/keyhatch.v1.SystemService/Backup"
            | "/keyhatch.v1.SystemService/TailJournal" => Self::Stream,
            _ => Self::Unary,
        }
    }

    /// Whether its service leaves it to the door to ask who is there.
    pub(super) fn is_foreign(self) -> bool {
        matches!(self, Self::Health | Self::Looking)
    }

    /// Whether its reply is a stream.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Looking | Self::Stream)
    }

    /// The lane in which the request takes a place; `None` if it takes no place.
    pub(super) fn lane(self) -> Option<Lane> {
        match self {
            Self::Health => None,
            Self::Documents => Some(Lane::Documents),
            Self::Ending => Some(Lane::Ending),
            Self::Looking => Some(Lane::Looking),
            Self::Stream | Self::Unary => Some(Lane::Others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::edge::methods;

    /// A method that is renamed, or new, must not lose its way.
    #[test]
    fn what_ends_or_renews_something_has_its_lane() {
        let methods::Methods { steps, admin, .. } = methods::methods();
        let verbs = ["Close", "Delete", "Remove", "Renew", "Revoke"];
        for method in steps.iter().chain(&admin) {
            let name = method.split_once('/').unwrap().1;
            let ends = verbs.iter().any(|verb| name.starts_with(verb));
            assert_eq!(
                RequestClass::of(&format!("/{method}")) == RequestClass::Ending,
                ends,
                "{method}"
            );
        }
    }
}
