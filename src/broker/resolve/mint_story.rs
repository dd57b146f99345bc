//! The story of the credential that an upstream was asked for, from the journal.

use crate::broker::Broker;
use crate::broker::endings::story::{self, MintEnding};
use crate::broker::error::Error;
use crate::integration::Source;
use crate::journal::{
    Body, DecisionId, DecisionName, Event, Leased, MintFault, MintingLine, Outcome, Refused,
    ResolveLine, Upstream, WhichRuns,
};
use crate::lease::MintedCredential;
use crate::model::{Id, Timestamp, WorkflowPath};

/// The story of the credential that an upstream was asked for.
pub struct MintStory {
    /// The mint; `None` if the decision had not come to one.
    pub mint: Option<Id>,
    /// The protocol, if it is known.
    pub source: Option<Source>,
    /// How the mint began.
    pub begun: Option<MintBegun>,
    /// How it ended, and when; `None` while it is under way.
    pub end: Option<(Timestamp, MintEnd)>,
    /// How the credential ended, if it has, or is about to.
    pub ending: Option<MintEnding>,
}

/// How a mint began.
pub struct MintBegun {
    /// When.
    pub time: Timestamp,
    /// The decision that it was begun for, which may be another step's.
    pub decision: DecisionId,
    /// The step of that decision, with its workflow and run.
    pub principal: String,
}

/// How a mint ended for a decision.
pub enum MintEnd {
    /// The upstream has made the credential.
    Made {
        /// The handle of the credential, if it has one.
        handle: Option<String>,
        /// When the credential ends upstream.
        credential_expire_time: Timestamp,
        /// The upstream's number of the request, if it told the number.
        upstream_request: Option<String>,
    },
    /// There is no credential.
    Failed(MintFault),
}

/// The first lines that tell of a mint or of a lease.
#[derive(Default)]
struct Told {
    mint: Option<Id>,
    end: Option<(Timestamp, MintEnd)>,
    ending: Option<MintEnding>,
}

impl Told {
    /// Takes a line in if it is about what `is_wanted` says, by mint and lease.
    fn take(&mut self, line: Body, is_wanted: impl Fn(Option<Id>, Id) -> bool) {
        let Body { time, event, .. } = line;
        if self.mint.is_some() && story::mint_of(&event) == self.mint {
            self.ending = story::take(self.ending.take(), time, &event);
        }
        match event {
            Event::Minting(line) if is_wanted(Some(line.mint), line.lease) => {
                self.mint.get_or_insert(line.mint);
            }
            Event::Minted(line) | Event::MintJoined(line)
                if is_wanted(Some(line.credential.mint), line.lease) =>
            {
                self.mint.get_or_insert(line.credential.mint);
                let upstream_request = line.upstream_request.clone();
                self.end.get_or_insert_with(|| (time, made(&line.credential, upstream_request)));
            }
            Event::MintFailed(line) if is_wanted(line.mint, line.lease) => {
                self.mint = self.mint.or(line.mint);
                self.end.get_or_insert((time, MintEnd::Failed(line.fault)));
            }
            _ => {}
        }
    }
}

impl Broker {
    /// The story behind a decision; `None` if no upstream was asked. Reads files.
    ///
    /// # Errors
    /// If they cannot be read, or the caller no longer waits.
    pub(super) fn mint_story(
        &self,
        time: Timestamp,
        decided: &ResolveLine,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<MintStory>, Error> {
        let (source, told) = match &decided.outcome {
            Outcome::Allow(Leased {
                upstream: Some(Upstream { source, credential: Some(made_before) }),
                ..
            }) => {
                let end = Some((time, made(made_before, None)));
                (Some(*source), Told { mint: Some(made_before.mint), end, ending: None })
            }
            Outcome::Allow(Leased {
                upstream: Some(Upstream { source, credential: None }),
                lease,
                ..
            }) => {
                let is_its = |_, other| other == *lease;
                (Some(*source), self.told(&decided.principal, is_cancelled, is_its)?)
            }
            Outcome::Refuse(Refused { mint: Some(mint), .. }) => {
                (None, Told { mint: Some(*mint), ..Told::default() })
            }
            Outcome::Allow(Leased { upstream: None, .. })
            | Outcome::Refuse(Refused { mint: None, .. }) => {
                return Ok(None);
            }
        };
        let begun = told.mint.map(|mint| self.find_minting(mint)).transpose()?.flatten();
        let Some((begin_time, begun)) = begun else {
            let Told { mint, end, ending } = told;
            return Ok(Some(MintStory { mint, source, begun: None, end, ending }));
        };
        // The lines of the mint itself say more than those of a decision that came later.
        let is_own = |mint, lease| mint == Some(begun.mint) && lease == begun.lease;
        let whole = self.told(&begun.principal, is_cancelled, is_own)?;
        let end = match (told.end, whole.end) {
            (Some((_, MintEnd::Made { .. })) | None, Some(whole)) => Some(whole),
            (end, _) => end,
        };
        let (decision, principal) = (begun.decision, begun.principal.to_string());
        Ok(Some(MintStory {
            mint: told.mint,
            source: Some(begun.source),
            begun: Some(MintBegun { time: begin_time, decision, principal }),
            end,
            ending: whole.ending,
        }))
    }

    /// The line with which a mint began, and its time.
    fn find_minting(&self, mint: Id) -> Result<Option<(Timestamp, MintingLine)>, Error> {
        let place = DecisionName::Opaque(u128::from_be_bytes(*mint.as_bytes()));
        Ok(match self.journal.find(place)? {
            Some((_, Body { time, event: Event::Minting(line), .. })) => Some((time, *line)),
            _ => None,
        })
    }

    /// What the lines of a step's run tell.
    fn told(
        &self,
        step: &WorkflowPath,
        is_cancelled: &dyn Fn() -> bool,
        is_wanted: impl Fn(Option<Id>, Id) -> bool,
    ) -> Result<Told, Error> {
        let mut told = Told::default();
        let Some(run) = &step.run else { return Ok(told) };
        let which = WhichRuns { run, workflow: Some(&step.workflow), executor: None };
        self.journal.run_lines::<Error>(which, is_cancelled, |line| {
            told.take(line, &is_wanted);
            Ok(())
        })?;
        Ok(told)
    }
}

fn made(credential: &MintedCredential, upstream_request: Option<String>) -> MintEnd {
    MintEnd::Made {
        handle: credential.handle.clone(),
        credential_expire_time: credential.credential_expire_time,
        upstream_request,
    }
}
