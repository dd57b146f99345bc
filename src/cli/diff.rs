//! `keyhatch diff`: what apply would change.

use super::Common;
use super::apply::Files;
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::output::{print, say};
use super::plan;

/// What is there differs from the files, as diff(1) and `kubectl diff` say it; errors are above.
const DIFFERS: u8 = 1;
const TROUBLE: u8 = 2;

/// Arguments of `diff`.
#[derive(clap::Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
}

impl Diff {
    pub(super) async fn run(self, common: &Common) -> Result<u8, Failure> {
        self.compare(common).await.map_err(|failure| match failure.exit_code {
            exit::FAILED => failure.with_exit_code(TROUBLE),
            _ => failure,
        })
    }

    async fn compare(self, common: &Common) -> Result<u8, Failure> {
        let seeds = self.files.read()?;
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        let steps = plan::of_seeds(channel, &seeds).await?;
        let others: Vec<_> = steps.iter().filter(|step| step.changes()).collect();
        let answer: Vec<_> = others.iter().map(|step| step.to_json()).collect();
        let names = || others.iter().map(|step| step.name()).collect::<Vec<_>>().join("\n");
        if others.is_empty() {
            say(&format!("{} of {} are as the files say", steps.len(), steps.len()));
            return Ok(0);
        }
        print(common.output, &answer, || plan::to_text(others.iter().copied()), names)?;
        say(&format!("{} of {} differ", others.len(), steps.len()));
        Ok(DIFFERS)
    }
}
