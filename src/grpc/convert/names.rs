//! Parsers of resource names. Each accepts names of one collection only.

use crate::broker::Error;
use crate::model::{
    ConnectionRef, ExecutorName, GroupName, Id, IntegrationName, Invalid, OperatorName,
    ResourceName, SecretRef,
};

macro_rules! parsers {
    ($($function:ident -> $name:ty: $collection:ident, $what:literal, $rule:literal;)*) => {$(
        pub(in crate::grpc) fn $function(text: &str) -> Result<$name, Error> {
            match text.parse()? {
                ResourceName::$collection(name) => Ok(name),
                _ => Err(Invalid::new($what, text, $rule).into()),
            }
        }
    )*};
}

parsers! {
    connection_name -> ConnectionRef: Connection, "connection name", "for example connections/aws/prod";
    executor_name -> ExecutorName: Executor, "executor name", "for example executors/build-host-1";
    group_name -> GroupName: Group, "group name", "for example groups/aws-accounts";
    integration_name -> IntegrationName: Integration, "integration name", "for example integrations/aws";
    lease_id -> Id: Lease, "lease name", "leases/ID, as in the name of the lease";
    opening_id -> Id: Opening, "opening name", "openings/ID, as OpenStep returned it";
    operator_name -> OperatorName: Operator, "operator name", "for example operators/alice";
    secret_name -> SecretRef: Secret, "secret name", "for example workflows/deploy/secrets/token";
}
