//! `--prune`: deletes what has a label of the files, and is no longer in the files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tonic::transport::Channel;

use super::labels::{has_labels, pairs, parse_label};
use super::resource::BoundResource;
use super::seed::{ENDINGS, described_elsewhere};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::printable;
use crate::cli::operator::parts::impact::show_deletion;

/// The arguments of pruning.
#[derive(clap::Args)]
pub struct Pruning {
    /// Delete connections and groups that have the labels and that no file describes; diff shows which.
    #[arg(long, requires = "label")]
    prune: bool,
    /// With --prune: only what has this label, KEY=VALUE; if given more than once, what has all of them.
    #[arg(long, requires = "prune", value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

/// Connections and groups to delete, groups first.
#[derive(Default)]
pub struct Prunable(Vec<BoundResource>);

/// The most deletions whose impact is shown.
const MAX_SHOWN: usize = 100;

/// The result of deleting.
pub struct Pruned {
    /// The resources that were deleted.
    pub names: Vec<String>,
    /// The error that ended it early.
    pub outcome: Result<(), Failure>,
}

impl Pruning {
    /// Finds what to delete; nothing without `--prune`. Says why there is nothing to delete.
    ///
    /// # Errors
    /// If the resources cannot be listed, or a file beside those that are read cannot be understood.
    pub async fn find(
        &self,
        channel: &Channel,
        files: &Described<'_>,
    ) -> Result<Prunable, Failure> {
        if !self.prune {
            return Ok(Prunable::default());
        }
        let elsewhere = described_elsewhere(files.paths, &ENDINGS)?;
        let mut found = self.labelled(channel).await?;
        if found.names().next().is_none() {
            let labels = pairs(self.label.iter().map(|(key, value)| (key, value)), " and ");
            say(&format!("nothing to delete: nothing has the label {labels}"));
            return Ok(found);
        }
        found.keep(|name| !files.names.contains(name));
        for name in found.names() {
            if let Some(file) = elsewhere.get(name) {
                let file = printable(&file.display().to_string());
                say(&format!(
                    "kept: {name}, which {file} describes, although that file is not read; name it with -f"
                ));
            }
        }
        found.keep(|name| !elsewhere.contains_key(name));
        if found.names().next().is_none() {
            say("nothing to delete: whatever has the label is in the files");
        }
        Ok(found)
    }

    /// The resources that have all of the labels.
    async fn labelled(&self, channel: &Channel) -> Result<Prunable, Failure> {
        let mut found = BoundResource::all(channel).await?;
        found.retain(|one| has_labels(&one.labels, &self.label));
        Ok(Prunable(found))
    }

    /// Reads again what to delete, after an apply that may have changed it. Only resources that the user has agreed to,
    /// and that still exist and have the labels, are left.
    pub async fn refreshed(
        &self,
        channel: &Channel,
        agreed: Prunable,
    ) -> Result<Prunable, Failure> {
        let names: BTreeSet<String> = agreed.names().map(ToOwned::to_owned).collect();
        if names.is_empty() {
            return Ok(agreed);
        }
        let mut now = self.labelled(channel).await?;
        now.keep(|name| names.contains(name));
        Ok(now)
    }
}

/// The resources of seed files.
pub struct Described<'a> {
    /// The files and directories that were named.
    pub paths: &'a [PathBuf],
    /// The names of the resources in the files that are read.
    pub names: BTreeSet<String>,
}

impl Prunable {
    fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|one| is_kept(&one.name));
    }

    /// The names of what would be deleted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| one.name.as_str())
    }

    /// Shows what breaks, and asks whether to delete them; as [`confirm`].
    pub async fn confirm(&self, channel: &Channel) -> Result<(), Failure> {
        let names: Vec<&str> = self.names().collect();
        for name in names.iter().take(MAX_SHOWN) {
            show_deletion(channel, name).await?;
        }
        match names.as_slice() {
            [] => Ok(()),
            names => confirm(false, &format!("Delete {}, not in the files?", names.join(", "))),
        }
    }

    /// Deletes them, up to the first that somebody has changed since it was found.
    pub async fn delete(self, channel: Channel, force: bool) -> Pruned {
        let mut names = Vec::new();
        for one in self.0 {
            let name = one.name.clone();
            if let Err(failure) = one.delete(channel.clone(), force).await {
                return Pruned { names, outcome: Err(failure) };
            }
            names.push(name);
        }
        Pruned { names, outcome: Ok(()) }
    }
}
