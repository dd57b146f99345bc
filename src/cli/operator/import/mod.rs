//! `keyhatch import`: makes documents of credentials that are kept elsewhere, and sends them as `apply` does.
//!
//! A reader of a format makes documents of the bytes of a file, and says what it leaves out ([`Extracted`]). It reads and
//! writes nothing else, and takes no variable of the user into a value: a file is data. The plan is shown by names before
//! anything is sent. Values are never shown.

mod assign;
mod extracted;
mod fit;
mod formats;
mod input_file;
mod names;
mod options;
mod plan;

use std::path::PathBuf;

use clap::ValueEnum;

use super::apply::{print_applied, send};
use super::plan::ask;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::printable;
use crate::model::WorkflowName;
use extracted::Extracted;
use input_file::ImportFile;
use names::NameArguments;
use options::ImportOptions;
use plan::ImportPlan;

#[derive(clap::Args)]
pub struct Import {
    /// The format of the files.
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: ImportFormat,
    /// Files, or - for stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The name of connections that have no name in the file (env, vault-kv-json), or of the only connection. OLD=NEW
    /// renames what the file calls OLD: a profile, a Secret or SECRET/KEY, a registry, a variable; may be given more than
    /// once.
    #[arg(long, value_name = "[OLD=]NAME")]
    name: Vec<String>,
    #[command(flatten)]
    options: ImportOptions,
    /// Show the plan, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The formats.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImportFormat {
    /// connections: and secrets: of Puppet Relay's tools
    Relay,
    /// NAME=VALUE lines of a .env file
    Env,
    /// ~/.aws/credentials and ~/.aws/config
    AwsProfile,
    /// ~/.docker/config.json
    DockerConfig,
    /// Secret objects, in YAML or JSON
    KubernetesSecret,
    /// The output of vault kv get -format=json
    VaultKvJson,
}

impl Import {
    pub(crate) async fn run(mut self, common: &Common) -> Result<(), Failure> {
        self.options.names = self.check()?;
        let files = self.files.iter().map(|file| ImportFile::read(file));
        let files: Vec<_> = files.collect::<Result<_, _>>()?;
        let channel = common.operator().await?;
        self.options.catalogue = pages::integrations(&channel).await?;
        let extracted = whole(read(self.from, &files, &self.options), &self.options.names)?;
        drop(files);
        let documents = || extracted.entries.iter().map(|entry| entry.document.clone());
        let planned = ask(channel.clone(), documents().collect()).await?;
        let plan = ImportPlan::new(&extracted, planned);
        if self.dry_run {
            return plan.answer(common.output);
        }
        plan.announce();
        confirm(self.yes, &format!("Import {} document(s)?", extracted.entries.len()))?;
        print_applied(common.output, &send(channel, documents().collect()).await?)
    }

    /// The arguments of `--name`. Refuses options that the format ignores: nobody should believe that they have an
    /// effect.
    fn check(&self) -> Result<NameArguments, Failure> {
        use ImportFormat::{AwsProfile, DockerConfig, Env, KubernetesSecret, Relay, VaultKvJson};
        let given = &self.options;
        let options: [(&str, bool, &[ImportFormat]); 4] = [
            ("--integration", given.integration.is_some(), &[Env, KubernetesSecret, VaultKvJson]),
            ("--workflow", given.workflow.is_some(), &[Relay, Env, KubernetesSecret, VaultKvJson]),
            ("--prefix", given.prefix.is_some(), &[Env]),
            ("--only", !given.only.is_empty(), &[AwsProfile, KubernetesSecret, DockerConfig]),
        ];
        given.workflow.as_deref().map(WorkflowName::parse).transpose()?;
        let misplaced = options.iter().find(|(_, given, of)| *given && !of.contains(&self.from));
        let Some((option, _, formats)) = misplaced else { return NameArguments::parse(&self.name) };
        let names = formats.iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        Err(Failure::usage(format!("{option} is for --from {}; leave it out", names.join(", "))))
    }
}

fn read(from: ImportFormat, sources: &[ImportFile], wanted: &ImportOptions) -> Extracted {
    let each = |reader: fn(&[u8], &ImportOptions) -> Extracted| {
        sources.iter().map(|source| reader(&source.bytes, wanted).within(&source.shown)).collect()
    };
    match from {
        ImportFormat::Relay => {
            sources.iter().map(|source| formats::relay::read(source, wanted)).collect()
        }
        ImportFormat::Env => each(formats::env::read),
        // AWS' tools read its two files as one.
        ImportFormat::AwsProfile => formats::aws_profile::read(sources, wanted),
        ImportFormat::DockerConfig => each(formats::docker_config::read),
        ImportFormat::KubernetesSecret => each(formats::kubernetes_secret::read),
        ImportFormat::VaultKvJson => each(formats::vault::read),
    }
}

/// The documents, if there are any and no problems.
fn whole(mut extracted: Extracted, names: &NameArguments) -> Result<Extracted, Failure> {
    names.give(&mut extracted);
    extracted.refuse_doubles();
    if extracted.problems.is_empty() && !extracted.entries.is_empty() {
        return Ok(extracted);
    }
    plan::skipped(&extracted);
    let problems: Vec<_> = extracted.problems.iter().map(|problem| printable(problem)).collect();
    Err(match problems.is_empty() {
        true => Failure::usage("there is nothing to import"),
        false => Failure::of_problems(problems, "; nothing is imported"),
    })
}
