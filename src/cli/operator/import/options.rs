//! The options that readers of every format take.

use super::names::NameArguments;
use crate::cli::operator::bindings::bindings;
use crate::grpc::pb;

/// The catalogue, and the options of the command line.
#[derive(clap::Args, Default)]
pub struct ImportOptions {
    /// Every integration there is.
    #[arg(skip)]
    pub catalogue: Vec<pb::Integration>,
    /// The arguments of --name.
    #[arg(skip)]
    pub names: NameArguments,
    /// The integration that the values belong to (env, kubernetes-secret, vault-kv-json).
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Its credential kind, where the fields fit several.
    #[arg(long, value_name = "KIND", requires = "integration")]
    pub kind: Option<String>,
    /// The workflow whose secrets the values become that belong to no connection.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// Take only the variables with this prefix, and remove the prefix (env).
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Take only the profile, Secret or registry of this name; may be given more than once (aws-profile,
    /// kubernetes-secret, docker-config).
    #[arg(long, visible_alias = "profile", value_name = "NAME")]
    pub only: Vec<String>,
    /// A principal that may resolve the connections, such as workflow:deploy; may be given more than once. Nobody by
    /// default. An existing connection loses its other resolvers, as the plan shows.
    #[arg(long = "resolver", value_name = "PRINCIPAL")]
    pub resolvers: Vec<String>,
    /// A principal that may have the broker act with the connections, and gets no value of them. Otherwise as --resolver.
    #[arg(long = "user", value_name = "PRINCIPAL")]
    pub users: Vec<String>,
}

impl ImportOptions {
    /// The access to the connections.
    pub fn access(&self) -> Vec<pb::AccessBinding> {
        let (users, resolvers) = (self.users.clone(), self.resolvers.clone());
        bindings([(pb::Relation::User, users), (pb::Relation::Resolver, resolvers)])
    }

    /// True if something with one of these names is to be taken.
    pub fn takes(&self, names: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| names.contains(&only.as_str()))
    }
}
