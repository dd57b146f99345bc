//! What the journal says of signatures is what happened.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::model::Limits;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::requests::{World, login, login_by};
use crate::harness::{TestStep, reason, wait_until};

type Signed = Result<Vec<u8>, Status>;

impl World {
    /// Every line about signing: the decision, the reason, and whether it is about a login.
    fn decided(&self) -> Vec<(String, String, bool)> {
        let text =
            |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let lines = self.broker.journaled("sign");
        let told = lines.iter().map(|line| {
            (text(line, "decision"), text(line, "reason"), line.get("login").is_some())
        });
        told.collect()
    }

    /// Creates a connection, for whose logins the broker works long, and returns such a login.
    fn create_slow(&self, name: &str) -> Vec<u8> {
        let key = self.new_key(name, "rsa:4096");
        self.create(name, &[("private_key", &key.private)], pb::Relation::User);
        let public_key = self.key(&format!("ssh/{name}")).unwrap().public_key;
        login_by("rsa-sha2-512", "git", &public_key)
    }

    /// Signs again and again, beside the test, until it is refused. Tells how often it has signed, and the refusal.
    fn sign_on(
        &self,
        step: &TestStep,
        reference: &str,
        data: &[u8],
    ) -> JoinHandle<(usize, Status)> {
        let (channel, data) = (step.channel.clone(), data.to_vec());
        let target = Self::target(reference);
        self.broker.spawn(async move {
            let mut signed = 0;
            loop {
                match sign(&channel, &target, &data).await {
                    Ok(_) => signed += 1,
                    Err(refusal) => return (signed, refusal),
                }
            }
        })
    }
}

async fn sign(channel: &Channel, target: &Option<pb::SigningTarget>, data: &[u8]) -> Signed {
    let request = pb::SignRequest { target: target.clone(), data: data.to_vec() };
    let answer = StepServiceClient::new(channel.clone()).sign(request).await?;
    Ok(answer.into_inner().signature)
}

/// The same lines, as a test writes them.
fn lines(expected: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    let owned = expected.iter().map(|(decision, reason, is_login)| {
        ((*decision).to_owned(), (*reason).to_owned(), *is_login)
    });
    owned.collect()
}

#[test]
fn a_login_with_another_key_is_a_refusal_in_the_journal() {
    let Some(world) = World::start() else { return };
    let other = login("git", &[&b"\0\0\0\x0bssh-ed25519\0\0\0\x20"[..], &[3; 32]].concat());
    // Nobody has asked for the public key yet, so it is read first: under a line that tells no login.
    assert_eq!(world.refusal("ssh/deploy", other.clone()), "SSH_KEY_MISMATCH");
    let mut expected = vec![("allow", "", false), ("refuse", "SSH_KEY_MISMATCH", true)];
    assert_eq!(world.decided(), lines(&expected));
    assert_eq!(world.refusal("ssh/deploy", other), "SSH_KEY_MISMATCH");
    expected.push(("refuse", "SSH_KEY_MISMATCH", true));
    assert_eq!(world.decided(), lines(&expected));
    // Another user's login opens no key at all.
    world.create(
        "other",
        &[("private_key", &world.key.private), ("user", "git")],
        pb::Relation::User,
    );
    let key = world.key("ssh/deploy").unwrap().public_key;
    assert_eq!(world.refusal("ssh/other", login("root", &key)), "SSH_USER_MISMATCH");
    expected.extend([("allow", "", false), ("refuse", "SSH_USER_MISMATCH", true)]);
    assert_eq!(world.decided(), lines(&expected));
    world.sign("ssh/deploy", login("git", &key)).unwrap();
    expected.push(("allow", "", true));
    assert_eq!(world.decided(), lines(&expected));
}

#[test]
fn a_key_that_does_not_sign_is_refused_with_a_line() {
    let Some(world) = World::start() else { return };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    world.create("encrypted", &[("private_key", encrypted)], pb::Relation::User);
    assert_eq!(reason(world.key("ssh/encrypted")), "SSH_KEY_UNUSABLE");
    assert_eq!(world.refusal("ssh/encrypted", super::a_login()), "SSH_KEY_UNUSABLE");
    let refused = |is_login| ("refuse", "SSH_KEY_UNUSABLE", is_login);
    assert_eq!(world.decided(), lines(&[("allow", "", false), refused(false), refused(true)]));
}

#[test]
fn a_changed_key_signs_its_own_logins_and_no_others() {
    let Some(world) = World::start() else { return };
    let old = world.key("ssh/deploy").unwrap().public_key;
    world.sign("ssh/deploy", login("git", &old)).unwrap();
    let second = world.new_key("second", "ecdsa:256");
    world.write("ssh/deploy", &[("private_key", &second.private)]).unwrap();
    assert_eq!(world.refusal("ssh/deploy", login("git", &old)), "SSH_KEY_MISMATCH");
    let key = world.key("ssh/deploy").unwrap();
    assert_eq!(key.version, 2);
    let new = login_by("ecdsa-sha2-nistp256", "git", &key.public_key);
    world.sign("ssh/deploy", new).unwrap();
}

#[test]
fn a_connection_disabled_while_it_signs_gives_no_signature() {
    let limits = Limits { own_decisions_per_minute: 100_000, ..Limits::default() };
    let Some(world) = World::start_with(limits) else { return };
    let data = world.create_slow("slow");
    let steps = ["a", "b", "c"].map(|step| world.broker.open("deploy", step));
    let allowed = || world.decided().iter().filter(|line| line.0 == "allow" && line.2).count();
    let mut signed = 0;
    // There is nearly always a signature under way, so the first try finds one.
    wait_until("a signature under way is withheld", || {
        let (before, running) =
            (allowed(), steps.each_ref().map(|step| world.sign_on(step, "ssh/slow", &data)));
        wait_until("all steps sign", || allowed() > before + steps.len());
        world.disable("ssh/slow", true);
        for one in running {
            let (times, refusal) = world.broker.block_on(one).unwrap();
            assert_eq!(reason(Err::<(), _>(refusal)), "CONNECTION_DISABLED");
            signed += times;
        }
        world.disable("ssh/slow", false);
        // More was allowed than was handed out, and each refusal has its line.
        allowed() > signed
    });
    let refused = world.decided().iter().filter(|line| line.1 == "CONNECTION_DISABLED").count();
    assert_eq!(refused % steps.len(), 0);
}

#[test]
fn logins_of_many_steps_take_turns_and_all_are_signed() {
    let limits = Limits { own_decisions_per_minute: 100_000, ..Limits::default() };
    let Some(world) = World::start_with(limits) else { return };
    let data = world.create_slow("slow");
    let steps = ["a", "b", "c", "d"].map(|step| world.broker.open("deploy", step));
    let begun: Vec<_> = (0..5)
        .flat_map(|_| &steps)
        .map(|step| {
            let (channel, data, target) =
                (step.channel.clone(), data.clone(), World::target("ssh/slow"));
            world.broker.spawn(async move { sign(&channel, &target, &data).await })
        })
        .collect();
    for one in begun {
        world.broker.block_on(one).unwrap().unwrap();
    }
    let expected = [&[("allow", "", false)][..], &[("allow", "", true); 20]].concat();
    assert_eq!(world.decided(), lines(&expected));
}

#[test]
fn no_login_is_signed_once_its_step_is_closed() {
    let limits = Limits { own_decisions_per_minute: 100_000, ..Limits::default() };
    let Some(world) = World::start_with(limits) else { return };
    let data = world.create_slow("slow");
    let step = world.broker.open("deploy", "a");
    let running = [(); 3].map(|()| world.sign_on(&step, "ssh/slow", &data));
    wait_until("the step signs", || world.decided().len() > 3);
    world.broker.close(&step);
    let signed = running.map(|one| world.broker.block_on(one).unwrap().0);
    let lines = world.broker.journal();
    let closed = lines.iter().position(|line| line["event"] == "closed").unwrap();
    let is_signing = |line: &&serde_json::Value| line["event"] == "sign";
    assert_eq!(lines[closed..].iter().filter(is_signing).count(), 0);
    let allowed = lines.iter().filter(is_signing).count() - 1;
    assert!(signed.iter().sum::<usize>() <= allowed, "{signed:?} of {allowed}");
}

#[test]
fn a_batch_of_no_change_keeps_nobody_from_signing() {
    let Some(world) = World::start() else { return };
    let key = world.key("ssh/deploy").unwrap().public_key;
    let heads = || world.broker.journaled("head").len();
    let before = heads();
    // A request is remembered although it changes nothing: a batch on which no decision depends.
    let (same, paths) = (pb::Connection::default(), ["disabled".to_owned()]);
    let id = "6f1c1c1e-0d0a-4b0e-9d0a-3f6f0a9d1c1e";
    world.update_once("ssh/deploy", same, &paths, id).unwrap();
    assert_eq!(heads(), before + 1);
    world.sign("ssh/deploy", login("git", &key)).unwrap();
    world.key("ssh/deploy").unwrap();
}
