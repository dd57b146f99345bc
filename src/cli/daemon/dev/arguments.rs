//! The arguments of `dev`, and the documents and the step that they describe.

use std::ffi::OsString;
use std::path::PathBuf;

use tonic::transport::Channel;

use crate::cli::daemon::broker_args::SharedParents;
use crate::cli::executor::open_step::open;
use crate::cli::io::failure::Failure;
use crate::cli::operator::seed;
use crate::cli::operator::seed::{AllowedReads, Seed, SeedContext};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// Arguments of `dev`.
#[derive(clap::Args)]
pub struct Dev {
    /// A seed file or directory instead of the sample; may be given more than once.
    #[arg(short, long, value_name = "SEED")]
    pub(super) file: Vec<PathBuf>,
    /// The workflow whose step is opened; it may resolve every seeded connection that names nobody.
    #[arg(long, value_name = "NAME", default_value = "dev")]
    pub(super) workflow: String,
    #[command(flatten)]
    pub(super) parents: SharedParents,
    /// The filter of the log, which goes to stderr.
    #[arg(long, env = "KEYHATCH_LOG", value_name = "FILTER", default_value = "warn")]
    pub(super) log: String,
    /// A command to run as the step, instead of the tour.
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// The seed file of the tour.
pub(super) const SAMPLE: &str = "\
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: sample}
spec:
  integration: aws
  fields:
    access_key_id: AKIAIOSFODNN7EXAMPLE
    secret_access_key: not-a-real-secret-access-key
    region: eu-west-1
";

impl Dev {
    /// The documents of the files that were given, or else those of `sample`.
    pub(super) fn documents(&self, sample: &str) -> Result<Vec<Seed>, Failure> {
        let resolver = format!("workflow:{}", self.workflow);
        // The user's files seed a broker of the user's own.
        let allowed = AllowedReads::everything();
        let (workflow, default_resolver) = (Some(self.workflow.as_str()), Some(resolver.as_str()));
        let context = SeedContext { workflow, default_resolver, allowed: &allowed };
        if self.file.is_empty() {
            return seed::parse_text(sample, "the sample", &context);
        }
        seed::read_all(&self.file, &context)
    }

    /// Says which resources `dev` opened to its workflow because their documents name nobody. `None` if there is none.
    pub(super) fn granted(&self, documents: &[Seed]) -> Option<String> {
        let workflow = format!("workflow:{}", self.workflow);
        let is_ours = |access: &[pb::AccessBinding]| matches!(access, [only] if only.principals.as_slice() == [workflow.as_str()]);
        let named = documents.iter().filter_map(|seed| match &seed.document {
            Document::Connection(one) => {
                is_ours(&one.access).then(|| format!("{}/{}", one.integration, one.name))
            }
            Document::Group(one) => is_ours(&one.access).then(|| format!("group:{}", one.name)),
            Document::Integration(_) | Document::Secret(_) => None,
        });
        let named = named.collect::<Vec<_>>().join(", ");
        (!named.is_empty()).then(|| {
            format!("dev lets {workflow} use {named}, because the seed names nobody for it")
        })
    }

    pub(super) async fn open(&self, executor: Channel) -> Result<pb::OpenedStep, Failure> {
        let request = pb::OpenStepRequest {
            workflow: self.workflow.clone(),
            run: "1".to_owned(),
            step: "step".to_owned(),
            mount_path: "host".to_owned(),
            ..Default::default()
        };
        open(executor, request).await
    }
}
