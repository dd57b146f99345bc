//! The class of each request, by its path: how it is bounded and timed.

use crate::identity::Lane;

/// How a request is bounded and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// A stream of documents, held until all have arrived. One Apply of a peer runs at a time, and few wait. It takes
    /// its place when its head arrives.
    Documents,
    /// It ends or renews something.
    Ending,
    /// An exchange that is streamed both ways. It takes a place until its stream begins, from its head on; its message is
    /// not counted, because it is passed on as it comes.
    Exchange,
    /// A health check. It is answered even under overload.
    Health,
    /// A stream of another project's service, which may be open for days.
    Looking,
    /// A stream of our services, which may be open for days. It takes a place until it begins.
    Stream,
    /// Everything else.
    Unary,
}

impl RequestClass {
    /// The class of requests to this path. Unknown paths are answered as soon as the request is whole.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/keyhatch.v1.ApplyService/Apply" | "/keyhatch.v1.ApplyService/Plan" => Self::Documents,
            "/keyhatch.v1.StepService/RenewLease"
            | "/keyhatch.v1.StepService/RevokeLease"
            | "/keyhatch.v1.ExecutorService/CloseRun"
            | "/keyhatch.v1.ExecutorService/CloseStep"
            | "/keyhatch.v1.ExecutorService/RenewStep"
            | "/keyhatch.v1.BlockService/Block"
            | "/keyhatch.v1.ConnectionService/DeleteConnection"
            | "/keyhatch.v1.ExecutorRegistryService/DeleteExecutor"
            | "/keyhatch.v1.GroupService/DeleteGroup"
            | "/keyhatch.v1.GroupService/RemoveMembers"
            | "/keyhatch.v1.IntegrationService/DeleteIntegration"
            | "/keyhatch.v1.LeaseService/RevokeLeases"
            | "/keyhatch.v1.OperatorService/DeleteOperator"
            | "/keyhatch.v1.SecretService/DeleteSecret"
            | "/keyhatch.v1.SystemService/RenewCertificate" => Self::Ending,
            "/grpc.health.v1.Health/Check" => Self::Health,
            "/grpc.health.v1.Health/Watch"
            | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self::Looking,
            "/keyhatch.v1.StepService/Send" => Self::Exchange,
            "/keyhatch.v1.StepService/Watch"
            | "/keyhatch.v1.SystemService/Backup"
            | "/keyhatch.v1.SystemService/TailJournal" => Self::Stream,
            _ => Self::Unary,
        }
    }

    /// True if the service does not check its peer itself, so that the admission layer must.
    pub(super) fn is_foreign(self) -> bool {
        matches!(self, Self::Health | Self::Looking)
    }

    /// True if the reply is a stream.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Exchange | Self::Looking | Self::Stream)
    }

    /// The lane in which the request takes a place; `None` if it takes no place.
    pub(super) fn lane(self) -> Option<Lane> {
        match self {
            Self::Health => None,
            Self::Documents => Some(Lane::Documents),
            Self::Ending => Some(Lane::Ending),
            Self::Looking => Some(Lane::Looking),
            Self::Exchange | Self::Stream | Self::Unary => Some(Lane::Others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::edge::methods;

    /// A renamed or new method must not lose its class.
    #[test]
    fn methods_that_end_or_renew_have_their_lane() {
        let methods::Methods { steps, admin, .. } = methods::methods();
        let verbs = ["Block", "Close", "Delete", "Remove", "Renew", "Revoke"];
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
