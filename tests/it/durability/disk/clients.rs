//! Clients that change state and remember each acknowledgement, and the check of them afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use super::Dice;
use super::channels::{Channels, Seen, ask, in_time, reason_of, resolved, step_channel, within};
use super::daemon::DEADLINE;
use super::history::{Check, Form, Known, Life, StepLife, access, expected, stamp, value};
use crate::harness::{bytes, open_request};

const CONNECTIONS: usize = 6;

const SECRETS: usize = 3;
/// The reasons why a step gets no value although all is well.
const NOT_THERE: [&str; 2] = ["RESOLVE_DENIED", "SECRET_NOT_FOUND"];

/// The result of a check.
#[derive(Default)]
pub struct Found {
    /// Differences from the acknowledged state.
    pub problems: Vec<String>,
    lives: BTreeMap<String, Life>,
}

/// One client, which changes only its own resources.
pub struct Client {
    number: usize,
    dice: Dice,
    values: u64,
    lives: BTreeMap<String, Life>,
    steps: Vec<StepLife>,
    channels: Option<Channels>,
    /// The run of its steps.
    pub run: String,
    pub acknowledged: usize,
    /// The longest wait for an answer.
    pub patience: Duration,
    /// The acknowledged changes of the store.
    pub changes: usize,
    /// The acknowledged closes of steps.
    pub closes: usize,
}

impl Client {
    pub fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            dice: Dice::new(seed.wrapping_mul(31).wrapping_add(number as u64)),
            values: 0,
            lives: BTreeMap::new(),
            steps: Vec::new(),
            channels: None,
            run: "1".to_owned(),
            acknowledged: 0,
            patience: DEADLINE,
            changes: 0,
            closes: 0,
        }
    }

    pub fn connect(&mut self, channels: &Channels) {
        self.channels = Some(channels.clone());
    }

    fn operator(&self) -> Channel {
        self.channels.as_ref().unwrap().operator.clone()
    }

    fn executor(&self) -> Channel {
        self.channels.as_ref().unwrap().executor.clone()
    }

    /// The lengths of the record at each answer to OpenStep.
    pub fn openings(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|step| step.acknowledged)
    }

    /// Sends one request. `length` is the current length of the record. `Ok` if the request was acknowledged.
    pub async fn act(&mut self, length: &(dyn Fn() -> u64 + Sync)) -> Result<(), String> {
        let done = match self.dice.roll(10) {
            0..=2 => self.step(length).await,
            3..=4 => self.secret(length).await,
            _ => self.connection(length).await,
        };
        self.acknowledged += usize::from(done.is_ok());
        done
    }

    async fn told<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        within(self.patience, call).await.map(tonic::Response::into_inner)
    }

    fn new_value(&mut self) -> u64 {
        self.values += 1;
        ((self.number as u64) << 32) | self.values
    }

    /// Remembers a request and its answer.
    fn remember(
        &mut self,
        name: String,
        form: Option<Form>,
        answer: &Result<Option<Form>, Status>,
        now: u64,
    ) {
        let known = match answer {
            Ok(told) => {
                self.changes += 1;
                Known { form: told.clone(), acknowledged: Some(now) }
            }
            Err(_) => Known { form, acknowledged: None },
        };
        self.lives.entry(name).or_insert_with(Life::new).0.push(known);
    }

    /// The state by the last acknowledgement.
    fn believed(&self, name: &str) -> Option<Form> {
        let told = self.lives.get(name)?.0.iter().rfind(|known| known.acknowledged.is_some());
        told?.form.clone()
    }

    async fn connection(&mut self, length: &(dyn Fn() -> u64 + Sync)) -> Result<(), String> {
        let name = format!("connections/slack/c{}-{}", self.number, self.dice.roll(CONNECTIONS));
        let mut client = ConnectionServiceClient::new(self.operator());
        let before = self.believed(&name);
        let what = self.dice.roll(6);
        let form = match &before {
            Some(_) if what == 0 => None,
            // The access changes, or the value.
            Some(form) if what < 3 => {
                Some(Form { is_allowed: !form.is_allowed, stamp: None, ..form.clone() })
            }
            Some(form) => Some(Form { value: self.new_value(), stamp: None, ..form.clone() }),
            None => Some(Form { value: self.new_value(), is_allowed: what != 0, stamp: None }),
        };
        let answer = match &form {
            None => {
                let asked = pb::DeleteConnectionRequest {
                    name: name.clone(),
                    force: true,
                    ..Default::default()
                };
                self.told(client.delete_connection(asked)).await.map(|()| None)
            }
            Some(form) => {
                let told =
                    |told: pb::Connection| Some(Form { stamp: stamp(&told), ..form.clone() });
                let made = self.told(put(&mut client, &name, before.as_ref(), form)).await;
                made.map(told)
            }
        };
        self.remember(name.clone(), form, &answer, length());
        answer.map(drop).map_err(|error| format!("{name}: {error}"))
    }

    async fn secret(&mut self, length: &(dyn Fn() -> u64 + Sync)) -> Result<(), String> {
        let name = format!("workflows/w/secrets/s{}-{}", self.number, self.dice.roll(SECRETS));
        let mut client = SecretServiceClient::new(self.operator());
        let deletes = self.believed(&name).is_some() && self.dice.roll(3) == 0;
        let form = Form { value: self.new_value(), is_allowed: true, stamp: None };
        let answer = if deletes {
            let asked = pb::DeleteSecretRequest { name: name.clone(), ..Default::default() };
            self.told(client.delete_secret(asked)).await.map(|()| None)
        } else {
            let value = value(form.value).into_bytes();
            let asked = pb::PutSecretRequest { name: name.clone(), value, ..Default::default() };
            self.told(client.put_secret(asked)).await.map(|told| {
                let stamp = Some((String::new(), told.version, String::new()));
                Some(Form { stamp, ..form.clone() })
            })
        };
        self.remember(name.clone(), Some(form).filter(|_| !deletes), &answer, length());
        answer.map(drop).map_err(|error| format!("{name}: {error}"))
    }

    async fn step(&mut self, length: &(dyn Fn() -> u64 + Sync)) -> Result<(), String> {
        let open = self.steps.iter().position(|step| !step.is_closing);
        let Some(open) = open else { return self.open(length).await };
        if self.dice.roll(3) == 0 {
            self.close(open, length).await
        } else {
            self.resolve(open).await
        }
    }

    async fn open(&mut self, length: &(dyn Fn() -> u64 + Sync)) -> Result<(), String> {
        let mut asked = open_request("w", &format!("s{}-{}", self.number, self.steps.len()));
        asked.run.clone_from(&self.run);
        let opened = self.told(ExecutorServiceClient::new(self.executor()).open_step(asked)).await;
        let opened = opened.map_err(|error| format!("open: {error}"))?;
        self.steps.push(StepLife {
            opened,
            run: self.run.clone(),
            leases: Vec::new(),
            acknowledged: length(),
            is_closing: false,
            closed: None,
        });
        Ok(())
    }

    async fn close(
        &mut self,
        number: usize,
        length: &(dyn Fn() -> u64 + Sync),
    ) -> Result<(), String> {
        let step = &mut self.steps[number];
        step.is_closing = true;
        let name = step.opened.name.clone();
        let asked = pb::CloseStepRequest { name, ..Default::default() };
        let closed = self.told(ExecutorServiceClient::new(self.executor()).close_step(asked)).await;
        closed.map_err(|error| format!("close: {error}"))?;
        self.steps[number].closed = Some(length());
        self.closes += 1;
        Ok(())
    }

    /// Resolves one of its resources. The result must be the acknowledged state.
    async fn resolve(&mut self, number: usize) -> Result<(), String> {
        let names: Vec<String> = self.lives.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = &names[self.dice.roll(names.len())];
        let step = step_channel(&self.steps[number].opened).await?;
        let last = self.lives[name].last();
        let is_told = last.acknowledged.is_some();
        let (got, lease) = match ask(&step, name).await {
            Ok(got) => (Ok(got.fields.into_values().collect()), Some(got.lease.name)),
            Err(status) => match reason_of(&status) {
                Some(reason) if NOT_THERE.contains(&reason.as_str()) => (Err(reason), None),
                _ => return Err(format!("resolve: {status}")),
            },
        };
        assert!(!is_told || got == expected(name, last.form.as_ref()), "{name}");
        self.steps[number].leases.extend(lease);
        Ok(())
    }

    /// Checks that everything is as it was acknowledged.
    pub async fn check(
        &self,
        seen: &Seen,
        channels: &Channels,
        check: Check,
        dice: &mut Dice,
    ) -> Found {
        let mut found = Found::default();
        for (name, life) in &self.lives {
            let form = seen.form(name);
            let mut possible = life.possible(check.length);
            possible.retain(|possible| match (possible, &form) {
                (Some(possible), Some(form)) => possible.is_seen(form),
                (None, None) => true,
                _ => false,
            });
            // A state with an acknowledged stamp is that state, and not a refused one.
            let is_told = |possible: &Option<Form>| matches!((possible, &form), (Some(one), Some(found)) if one.stamp == found.stamp);
            if possible.iter().any(is_told) {
                possible.retain(is_told);
            }
            if possible.is_empty() {
                let all = life.possible(check.length);
                found.problems.push(format!("{name}: found {form:?}, and not one of {all:?}"));
                continue;
            }
            if dice.roll(check.one_in) == 0 {
                let got = resolved(&channels.look, name).await;
                possible.retain(|form| got == expected(name, form.as_ref()));
                if possible.is_empty() {
                    let got = got.map(|value| value.chars().take(16).collect::<String>());
                    found.problems.push(format!("{name}: its value is {got:?}"));
                    continue;
                }
            }
            let stamp = form.and_then(|form| form.stamp);
            let form = possible.pop().flatten().map(|form| Form { stamp, ..form });
            let life = Life(vec![Known { form, acknowledged: Some(0) }]);
            found.lives.insert(name.clone(), life);
        }
        found.problems.extend(self.check_steps(channels, check).await);
        found
    }

    /// Continues from the result of a check that resolved every value. Returns the closed steps.
    pub fn settle(&mut self, found: Found) -> Vec<StepLife> {
        self.lives = found.lives;
        let (over, open) = self.steps.drain(..).partition(|step| step.is_closing);
        self.steps = open;
        over
    }

    /// Takes closed steps back.
    pub fn remember_steps(&mut self, steps: Vec<StepLife>) {
        self.steps.extend(steps);
    }

    async fn check_steps(&self, channels: &Channels, check: Check) -> Vec<String> {
        let mut problems = Vec::new();
        let mut runs = BTreeMap::<&str, pb::Run>::new();
        for step in self.steps.iter().filter(|step| step.acknowledged <= check.length) {
            if !runs.contains_key(step.run.as_str()) {
                let asked = pb::GetRunRequest { workflow: "w".to_owned(), run: step.run.clone() };
                let mut client = ExecutorServiceClient::new(channels.executor.clone());
                let run = in_time(client.get_run(asked)).await;
                runs.insert(&step.run, run.unwrap());
            }
            let found =
                runs[step.run.as_str()].steps.iter().find(|found| found.name == step.opened.name);
            problems.extend(step.problem(found, check));
        }
        problems
    }
}

async fn put(
    client: &mut ConnectionServiceClient<Channel>,
    name: &str,
    before: Option<&Form>,
    form: &Form,
) -> Result<tonic::Response<pb::Connection>, Status> {
    let text = value(form.value);
    let connection = pb::Connection {
        name: name.to_owned(),
        fields: bytes(&[("api_token", &text)]),
        access: access(form.is_allowed),
        ..Default::default()
    };
    let Some(before) = before else {
        let asked =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        return client.create_connection(asked).await;
    };
    // The request has only the changed part.
    let path = if before.value == form.value { "access" } else { "fields" };
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
    let connection = match path {
        "access" => pb::Connection { fields: BTreeMap::new(), ..connection },
        _ => pb::Connection { access: Vec::new(), ..connection },
    };
    let asked = pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask,
        ..Default::default()
    };
    client.update_connection(asked).await
}
