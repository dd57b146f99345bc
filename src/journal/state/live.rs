//! Everything that is open and leased: the fold of the journal's lines.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::heads::{Epoch, Heads};
use super::mints::Mints;
use super::open_step::LiveOpening;
use super::open_step::ended_steps::{EndedStep, EndedSteps};
use super::remembered::Remembered;
use super::requests::{DoneRequest, RequestNote, RequestTable};
use super::usage::Usage;
use super::use_counts::LineAt;
use crate::access::Blocks;
use crate::journal::event::{
    Announced, Attempt, Checkpoint, EndedLeases, Event, FORMAT, OperatorCloseLine, RenewalLine,
    ResolveLine, RestoredAs,
};
use crate::lease::{LeaseTable, Terms};
use crate::model::{Formats, Id, IdMap, Opening, PinnedCertificate, RequestId, StepKey, Timestamp};

/// How many attempts at closed steps are remembered.
const MAX_CLOSED_ATTEMPTS: usize = 100_000;

/// Everything that is open and leased.
#[derive(Debug, Default)]
pub struct Live {
    formats: Formats,
    heads: Heads,
    openings: IdMap<Arc<LiveOpening>>,
    open_steps: HashMap<StepKey, Id>,
    /// How many steps each registered executor has open.
    open_counts: IdMap<usize>,
    /// Open steps by the request that opened them: registration and request id.
    open_requests: HashMap<(Id, RequestId), Id>,
    /// The last attempts at closed steps.
    attempts: Remembered<StepKey, i32, MAX_CLOSED_ATTEMPTS>,
    leases: LeaseTable,
    mints: Mints,
    requests: RequestTable,
    usage: Usage,
    /// The batches that are announced and not in force yet, with their requests.
    announced: VecDeque<Announced>,
    is_quarantined: bool,
    restored_as: Option<RestoredAs>,
    blocks: Arc<Blocks>,
    ended_by_operators: EndedSteps,
}

impl Live {
    /// What operators have blocked.
    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// The steps that operators have closed.
    pub fn ended_by_operators(&self) -> &EndedSteps {
        &self.ended_by_operators
    }

    /// The highest formats that were written.
    pub(crate) fn formats(&self) -> Formats {
        self.formats
    }

    /// The last publication on which a decision may depend: decisions must be made on it.
    pub fn epoch(&self) -> Epoch {
        self.heads.epoch
    }

    /// Takes in that no decision depends on what was published after this.
    pub(crate) fn keep_epoch(&mut self, epoch: Epoch) {
        self.heads.epoch = epoch;
    }

    /// Takes in that decisions depend on what is published next, which is no batch.
    pub(crate) fn next_epoch(&mut self) {
        self.heads.epoch = self.heads.epoch.after_lever();
    }

    /// How far the batches are.
    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// Whether the broker was restored and is not confirmed yet.
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }

    /// What an administrator has said of the broker after it was restored. A copy stays a copy, and so do the brokers that are
    /// restored from its backups: somewhere the original goes on.
    pub fn restored_as(&self) -> Option<RestoredAs> {
        self.restored_as
    }

    /// The live leases.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// The mints that are under way, and the credentials that are owed an ending.
    pub(crate) fn mints(&self) -> &Mints {
        &self.mints
    }

    /// The uses of resources.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    /// The requests that were done, without those whose step is still open.
    pub fn requests(&self) -> &RequestTable {
        &self.requests
    }

    /// The request that a registration sent under this id, if any.
    pub fn open_request(&self, registration: Id, id: &RequestId) -> Option<DoneRequest> {
        let open = self.open_requests.get(&(registration, id.clone()));
        let open = open.and_then(|opening| self.openings.get(opening));
        match open.and_then(|open| open.record().request.as_ref().zip(Some(open.record().id))) {
            Some((request, opening)) => {
                Some(DoneRequest { mac: request.mac, opening: Some(opening) })
            }
            None => self.requests.find(registration, id),
        }
    }

    /// The open step of this id.
    pub fn opening(&self, id: Id) -> Option<&Arc<LiveOpening>> {
        self.openings.get(&id)
    }

    /// All open steps, in no order.
    pub fn openings(&self) -> impl Iterator<Item = &Arc<LiveOpening>> {
        self.openings.values()
    }

    /// How many steps are open.
    pub fn open_count(&self) -> usize {
        self.openings.len()
    }

    /// How many steps a registered executor has open.
    pub fn open_count_of(&self, registration: Id) -> usize {
        self.open_counts.get(&registration).copied().unwrap_or_default()
    }

    /// The open attempt at this step.
    pub fn open_attempt(&self, key: &StepKey) -> Option<&Arc<LiveOpening>> {
        self.openings.get(self.open_steps.get(key)?)
    }

    /// The number of the last attempt at this step, open or closed; 0 if it is unknown.
    pub fn last_attempt(&self, key: &StepKey) -> i32 {
        let open = self.open_attempt(key).map(|open| open.record().attempt);
        let closed = || self.attempts.find(key.executor_uid, key).copied();
        open.or_else(closed).unwrap_or_default()
    }

    pub(crate) fn mints_mut(&mut self) -> &mut Mints {
        &mut self.mints
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.leases.expire(now);
        self.follow_leases();
    }

    /// The credentials of openings whose leases have changed may be due to be ended.
    fn follow_leases(&mut self) {
        for opening in self.leases.take_touched() {
            self.mints.owed_mut().change_opening(opening);
        }
    }

    /// Applies a line. Lines have the same effect at start and while running.
    pub(crate) fn apply(&mut self, event: &Event, time: Timestamp, at: LineAt) {
        self.usage.take(event, time, at, &self.mints);
        match event {
            Event::CertificateRenewed { opening, certificate } => {
                self.renew(*opening, certificate);
            }
            Event::Checkpoint(checkpoint) => self.start_from(checkpoint),
            Event::ClockSetBack => self.close_all(),
            Event::Closed { opening, .. } => self.close(*opening),
            Event::Formats(formats) => self.formats = *formats,
            Event::Abandoned { .. } | Event::Head { .. } | Event::Intent(_) => {
                self.apply_batch(event);
            }
            Event::LeaseRenewal(line) => self.renew_lease(line),
            Event::LeaseRevoked { lease, .. } => drop(self.leases.remove(*lease)),
            Event::Blocked(_)
            | Event::ClosedByOperator(_)
            | Event::LeasesRevoked(_)
            | Event::Unblocked(_) => self.apply_lever(event, time),
            Event::EndedUpstream(_)
            | Event::Ending(_)
            | Event::LeftDisabled(_)
            | Event::LeftToExpire(_)
            | Event::MintFailed(_)
            | Event::MintJoined(_)
            | Event::Minted(_)
            | Event::Minting(_)
            | Event::Tested(_) => self.apply_mint(event, time),
            Event::Opened(opening) => self.open(opening),
            Event::QuarantineEnded { restored_as, .. } => self.end_quarantine(*restored_as),
            Event::Restored { .. } => {
                self.close_all();
                self.is_quarantined = true;
            }
            Event::Resolve(line) | Event::Send(line) => self.take_decision(line),
            Event::Sent(line) => self.leases.finish(line.lease),
            Event::AdminRefused { .. }
            | Event::BackedUp { .. }
            | Event::Compared { .. }
            | Event::Continued { .. }
            | Event::KeyRotated { .. }
            | Event::LoggedIn(_)
            | Event::RateRefused { .. }
            | Event::Rotated { .. }
            | Event::Sign(_)
            | Event::Signed(_)
            | Event::Started { .. }
            | Event::Stopped
            | Event::Torn { .. } => {}
        }
        self.follow_leases();
    }

    /// Applies a line of a batch of changes.
    fn apply_batch(&mut self, event: &Event) {
        match event {
            Event::Abandoned { batch } => {
                self.heads.abandoned = *batch;
                self.announced.retain(|announced| announced.batch != *batch);
                self.mints.lost_mut().abandon(*batch);
            }
            Event::Head { batch, revoked, .. } => {
                self.take_head(*batch, revoked);
                self.mints.lost_mut().take_head(*batch);
            }
            Event::Intent(intent) => {
                self.announce(intent.batch, &intent.requests);
                self.mints.lost_mut().announce(intent.batch, &intent.changes);
            }
            _ => {}
        }
    }

    /// Applies the line of a mint or of an ending.
    fn apply_mint(&mut self, event: &Event, time: Timestamp) {
        self.mints.apply(event, time, &mut self.leases);
        // A step may be closed before the upstream answers: the line of the credential says all there is to say.
        if let Event::Minted(line) = event
            && !self.openings.contains_key(&line.opening)
        {
            self.mints.close(line.opening);
        }
    }

    fn end_quarantine(&mut self, restored_as: Option<RestoredAs>) {
        self.is_quarantined = false;
        if restored_as == Some(RestoredAs::Copy) {
            self.mints.forget_owed();
        }
        if self.restored_as != Some(RestoredAs::Copy) {
            self.restored_as = restored_as.or(self.restored_as);
        }
    }

    fn renew_lease(&mut self, line: &RenewalLine) {
        if let Some(renewed) = line.outcome.allowed() {
            let (expire_time, limited_by) = (renewed.expire_time, renewed.limited_by);
            self.leases.extend(line.lease, Terms { expire_time, limited_by });
        }
    }

    fn take_decision(&mut self, line: &ResolveLine) {
        if let Some(ended) = line.ended_lease() {
            self.leases.remove(ended);
        }
        if let Some(lease) = line.new_lease() {
            self.leases.insert(lease);
        }
    }

    /// Applies the line of a lever of operators.
    fn apply_lever(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::Blocked(line) => {
                Arc::make_mut(&mut self.blocks).insert(line.block(time));
                self.revoke(&line.revoked);
            }
            Event::ClosedByOperator(line) => self.close_by_operator(line, time),
            Event::LeasesRevoked(line) => self.revoke(&line.revoked),
            Event::Unblocked(line) => Arc::make_mut(&mut self.blocks).remove(&line.block),
            _ => {}
        }
    }

    fn close_by_operator(&mut self, line: &OperatorCloseLine, time: Timestamp) {
        if let Some(block) = line.block(time) {
            Arc::make_mut(&mut self.blocks).insert(block);
        }
        for EndedLeases { opening, .. } in &line.closed {
            if let Some(live) = self.openings.get(opening) {
                self.ended_by_operators.insert(EndedStep::of(live.record()));
            }
            self.close(*opening);
        }
    }

    /// Ends leases by an operator's word. A Watch ends with its lease.
    fn revoke(&mut self, revoked: &[EndedLeases]) {
        for EndedLeases { opening, leases, .. } in revoked {
            let removed = leases.iter().filter_map(|lease| self.leases.remove(*lease));
            let watched: Vec<Id> =
                removed.filter(|lease| lease.is_watch).map(|lease| lease.id).collect();
            if let Some(opening) = self.openings.get(opening) {
                opening.end_watches(&watched);
            }
        }
    }

    fn renew(&self, opening: Id, certificate: &PinnedCertificate) {
        if let Some(live) = self.openings.get(&opening) {
            live.take_certificate(certificate.clone());
        }
    }

    fn announce(&mut self, batch: u64, requests: &[RequestNote]) {
        self.heads.intent = batch;
        self.announced.push_back(Announced { batch, requests: requests.to_vec() });
    }

    fn take_head(&mut self, batch: u64, revoked: &[Id]) {
        self.heads.take_head(batch);
        for id in revoked {
            self.leases.remove(*id);
        }
        // Batches that were announced before are in force, too: a kill can leave a batch without its head.
        while self.announced.front().is_some_and(|announced| announced.batch <= batch) {
            let Some(announced) = self.announced.pop_front() else { break };
            announced.requests.into_iter().for_each(|request| self.requests.insert(request));
        }
    }

    fn start_from(&mut self, checkpoint: &Checkpoint) {
        let mut usage = std::mem::take(&mut self.usage);
        usage.start_from(checkpoint);
        *self = Self {
            usage,
            formats: checkpoint.formats,
            heads: Heads::start_from(checkpoint),
            announced: checkpoint.announced.iter().cloned().collect(),
            is_quarantined: checkpoint.quarantined,
            restored_as: checkpoint.restored_as,
            mints: Mints::start_from(checkpoint),
            blocks: Arc::new(checkpoint.blocks.iter().cloned().collect()),
            ended_by_operators: checkpoint.ended_steps.iter().cloned().collect(),
            ..Self::default()
        };
        for Attempt { key, number } in &checkpoint.attempts {
            self.attempts.insert(key.executor_uid, key.clone(), *number);
        }
        for opening in &checkpoint.openings {
            self.open(opening);
        }
        for lease in &checkpoint.leases {
            self.leases.insert(lease.clone());
        }
        for request in &checkpoint.requests {
            self.requests.insert(request.clone());
        }
        for opening in checkpoint.unwritten.iter().filter_map(|id| self.openings.get(id)) {
            opening.mark_unwritten();
        }
    }

    /// The first line of the next file.
    pub(crate) fn checkpoint(&self, file: u64) -> Checkpoint {
        let attempts = self.attempts.iter();
        let closed = attempts.filter(|(_, key, _)| !self.open_steps.contains_key(*key));
        let attempts = closed.map(|(_, key, number)| Attempt { key: key.clone(), number: *number });
        let unwritten = self.openings.values().filter(|opening| opening.is_certificate_unwritten());
        Checkpoint {
            format: FORMAT,
            file,
            formats: self.formats,
            head: self.heads.head,
            intent: self.heads.intent,
            abandoned: self.heads.abandoned,
            openings: self.openings.values().map(|opening| opening.present()).collect(),
            leases: self.leases.iter().cloned().collect(),
            requests: self.requests.iter().collect(),
            announced: self.announced.iter().cloned().collect(),
            attempts: attempts.collect(),
            unwritten: unwritten.map(|opening| opening.record().id).collect(),
            mints: self.mints.iter().cloned().collect(),
            owed: self.mints.owed().iter().cloned().collect(),
            outliving: self.mints.all_outliving().cloned().collect(),
            lost_refreshes: self.mints.lost().iter().cloned().collect(),
            quarantined: self.is_quarantined,
            restored_as: self.restored_as,
            blocks: self.blocks.iter().cloned().collect(),
            ended_steps: self.ended_by_operators.iter().cloned().collect(),
        }
    }

    fn close_all(&mut self) {
        let open: Vec<Id> = self.openings.keys().copied().collect();
        open.into_iter().for_each(|id| self.close(id));
    }

    fn open(&mut self, opening: &Opening) {
        let registration = opening.key.executor_uid;
        self.open_steps.insert(opening.key.clone(), opening.id);
        *self.open_counts.entry(registration).or_default() += 1;
        if let Some(request) = &opening.request {
            self.open_requests.insert((registration, request.id.clone()), opening.id);
        }
        self.openings.insert(opening.id, Arc::new(LiveOpening::new(opening.clone())));
    }

    fn close(&mut self, id: Id) {
        if let Some(live) = self.openings.remove(&id) {
            live.close();
            self.remember(live.record());
        }
        self.leases.remove_opening(id);
        self.mints.close(id);
    }

    /// Remembers of a closed step what later requests may ask for.
    fn remember(&mut self, closed: &Opening) {
        let (key, registration) = (&closed.key, closed.key.executor_uid);
        if self.open_steps.get(key) == Some(&closed.id) {
            self.open_steps.remove(key);
        }
        let left = self.open_count_of(registration).saturating_sub(1);
        match left {
            0 => drop(self.open_counts.remove(&registration)),
            _ => drop(self.open_counts.insert(registration, left)),
        }
        self.attempts.insert(registration, key.clone(), closed.attempt);
        let Some(request) = closed.request.clone() else { return };
        self.open_requests.remove(&(registration, request.id.clone()));
        self.requests.insert(RequestNote { registration, request, opening: Some(closed.id) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::DecisionId;
    use crate::journal::event::Intent;
    use crate::model::NamedRequest;

    fn announce(batch: u64, id: &str) -> Event {
        let request = NamedRequest { id: RequestId::parse(id).unwrap(), mac: [1; 32].into() };
        let registration = Id::from_bytes([7; 16]);
        let request = RequestNote { registration, request, opening: None };
        Event::Intent(Intent { batch, changes: Vec::new(), requests: vec![request] })
    }

    /// The requests that were done when, after two were announced, this came.
    fn done(last: &[Event]) -> Vec<String> {
        let mut live = Live::default();
        let announced = [announce(1, "a"), announce(2, "b")];
        let events = announced.iter().chain(last);
        let at = LineAt { id: DecisionId { file: 1, line: 1 }, offset: 0 };
        events.for_each(|event| live.apply(event, Timestamp::from_millis(0), at));
        live.requests().iter().map(|note| note.request.id.to_string()).collect()
    }

    /// One batch is announced while the one before is committed, so a kill can leave two without a head.
    #[test]
    fn a_request_is_done_when_its_batch_or_a_later_one_is_in_force() {
        let head = |batch| Event::Head { batch, recovered: false, revoked: Vec::new() };
        assert_eq!(done(&[]), Vec::<String>::new());
        assert_eq!(done(&[head(1)]), ["a"]);
        assert_eq!(done(&[head(2)]), ["a", "b"]);
        assert_eq!(done(&[Event::Abandoned { batch: 2 }, head(1), head(3)]), ["a"]);
    }
}
