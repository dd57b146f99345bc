//! `keyhatch diff`: what apply would change.

use super::apply::{SeedFiles, print_plan};
use super::plan;
use super::prune::Pruning;
use crate::cli::Common;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;

/// The exit codes of diff(1) and `kubectl diff`: the broker differs from the files, and any error.
const DIFFERS: u8 = 1;
const TROUBLE: u8 = 2;

#[derive(clap::Args)]
pub struct Diff {
    #[command(flatten)]
    files: SeedFiles,
    #[command(flatten)]
    pruning: Pruning,
}

impl Diff {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        self.compare(common).await.map_err(|failure| match failure.exit_code {
            exit::FAILED => failure.with_exit_code(TROUBLE),
            _ => failure,
        })
    }

    async fn compare(self, common: &Common) -> Result<u8, Failure> {
        let seeds = self.files.read()?;
        let channel = common.operator().await?;
        let prunable = self.pruning.find(&channel, &self.files.described(&seeds)).await?;
        let steps = plan::of_seeds(channel, &seeds).await?;
        let others: Vec<_> = steps.iter().filter(|step| step.changes()).collect();
        let (differing, deleted) = (others.len(), prunable.names().count());
        if differing + deleted == 0 {
            say(&format!("{} of {} are as the files say", steps.len(), steps.len()));
            return Ok(0);
        }
        print_plan(common.output, &others, &prunable)?;
        say(&format!("{differing} of {} differ", steps.len()));
        if deleted > 0 {
            say(&format!("{deleted} would be deleted"));
        }
        Ok(DIFFERS)
    }
}
