//! Certificates expire and are renewed, and nobody notices.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyhatch::daemon::{ReissueOptions, reissue_admin};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::operator_service_client::OperatorServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::identity::{Authority, ClientIdentity, Svid, connect, request_for};
use keyhatch::model::{Clock, Id, Limits, Timestamp, TrustDomain};
use keyhatch::seal::{KekSource, Unlock};
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{
    START, ServeProcess, TestBroker, authority_of, copy_binary, identity_in, keyhatch, keyhatch_in,
    reason, request, resolve_on, skipped, succeeded, wait_until,
};

const DAY: u64 = 24 * 3600;

/// The certificate that a door shows to new connections.
fn served(socket: &Path, identity: &ClientIdentity) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(connect(socket, identity)).map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    Ok(certificates[0].to_vec())
}

fn own_certificate(directory: &Path) -> Svid {
    Svid::parse_own(&std::fs::read_to_string(directory.join("tls.crt")).unwrap()).unwrap()
}

/// Puts a key and a certificate in place as an operator would, certificate first.
fn put(state: &Path, chain: &str, key: &str) {
    for (name, text) in [("tls.crt", chain), ("tls.key", key)] {
        let new = state.join("broker/new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, state.join("broker").join(name)).unwrap();
    }
}

#[test]
fn a_new_daemon_certificate_is_used_at_both_doors() {
    let broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    let operator = broker.operator();
    let (serial, now) = (Id::from_bytes([7; 16]), broker.clock.now());
    let life = Duration::from_secs(DAY);
    let new = broker.authority().issue_daemon("test", &[], serial, now, life).unwrap();
    put(&broker.config.state, &new.issued.chain_pem, &new.key_pem);

    let doors = [
        (broker.config.runtime.join("admin.sock"), broker.config.state.join("operators/admin")),
        (Path::new(&step.opened.directory).join("keyhatch.sock"), (&step.opened.directory).into()),
    ];
    for (socket, directory) in doors {
        let shown = || Svid::parse(&served(&socket, &identity_in(&directory)).unwrap(), &domain());
        wait_until("the new one is shown", || shown().unwrap().sha256 == new.issued.pinned.sha256);
    }
    broker.block_on(resolve_on(step.channel, request("aws/prod"))).unwrap();
    broker.list_connections(&operator).unwrap();
}

fn domain() -> TrustDomain {
    TrustDomain::parse(TrustDomain::DEFAULT).unwrap()
}

#[test]
fn a_bad_daemon_certificate_is_never_used_and_is_reloaded() {
    let directory = tempfile::tempdir().unwrap();
    let serving = ServeProcess::start(directory.path());
    let state = directory.path().join("state");
    let authority = authority_of(&state);
    let (now, life) = (Clock::system().now(), Duration::from_secs(DAY));
    let issue = |authority: &Authority, serial, now| {
        authority.issue_daemon("main", &[], Id::from_bytes([serial; 16]), now, life).unwrap()
    };
    let serials = [1, 2, 3].map(|serial| Id::from_bytes([serial; 16]));
    let stranger = Authority::create(domain(), serials, now).unwrap();
    let (good, other) = (issue(&authority, 1, now), issue(&authority, 2, now));
    let past = issue(&authority, 3, now.before(life * 2));
    let strange = issue(&stranger, 4, now);
    let identity = identity_in(&state.join("operators/admin"));
    let shown = || served(&directory.path().join("run/admin.sock"), &identity).unwrap();
    let before = shown();
    let refused = || serving.log().matches("the daemon keeps its certificate").count();
    let bad = [
        (other.issued.chain_pem.as_str(), good.key_pem.as_str()),
        (&past.issued.chain_pem, &past.key_pem),
        (&strange.issued.chain_pem, &strange.key_pem),
        ("nonsense", &good.key_pem),
        (&identity.chain_pem, &identity.key_pem),
        ("", ""),
    ];
    for (number, (chain, key)) in bad.into_iter().enumerate() {
        let count = refused();
        put(&state, chain, key);
        wait_until("it is refused", || refused() > count);
        assert_eq!(shown(), before, "{number}");
    }
    assert!(!serving.log().contains("PRIVATE"), "{}", serving.log());
    put(&state, &good.issued.chain_pem, &good.key_pem);
    rustix::process::kill_process(serving.pid(), rustix::process::Signal::HUP).unwrap();
    wait_until("the good one is shown", || shown() != before);
    assert_eq!(Svid::parse(&shown(), &domain()).unwrap().sha256, good.issued.pinned.sha256);
    assert!(serving.terminate());
}

#[test]
fn the_daemon_renews_and_repairs_its_own_certificate() {
    let mut broker = TestBroker::start();
    let directory = broker.config.state.join("broker");
    let first = own_certificate(&directory);
    let socket = broker.config.runtime.join("admin.sock");
    let identity = identity_in(&broker.config.state.join("operators/admin"));
    broker.advance(59 * DAY);
    served(&socket, &identity).unwrap();
    broker.advance(2 * DAY);
    wait_until("it is renewed", || own_certificate(&directory).sha256 != first.sha256);
    // By the client's clock the new certificate begins in two months, so this refusal shows that the new certificate is
    // in use.
    wait_until("it is shown", || {
        served(&socket, &identity).is_err_and(|error| error.contains("not valid yet"))
    });
    broker.stop();
    broker.clock = Clock::hand_set(Timestamp::from_millis(*START));
    std::fs::remove_file(directory.join("tls.key")).unwrap();
    broker.serve();
    let repaired = own_certificate(&directory);
    assert_eq!(
        Svid::parse(&served(&socket, &identity).unwrap(), &domain()).unwrap().sha256,
        repaired.sha256
    );
}

fn renew(broker: &TestBroker, channel: &Channel, key: &str) -> Result<String, Status> {
    let csr = request_for(key).unwrap().into_bytes();
    let mut client = SystemServiceClient::new(channel.clone());
    let request = pb::RenewCertificateRequest { csr };
    let renewed = broker.insist(|| broker.block_on(client.renew_certificate(request.clone())))?;
    Ok(renewed.into_inner().certificate_chain)
}

#[test]
fn only_the_newest_certificate_and_the_used_one_stay_valid() {
    let mut broker = TestBroker::start();
    for name in ["operators/admin", "executors/local"] {
        let directory = broker.config.state.join(name);
        let key = identity_in(&directory).key_pem;
        let socket = broker.config.runtime.join("admin.sock");
        let with = |chain_pem: String| {
            let identity = ClientIdentity { chain_pem, ..identity_in(&directory) };
            broker.connect(&socket, identity).unwrap()
        };
        let old = with(identity_in(&directory).chain_pem);
        let next = |channel: &Channel| {
            broker.advance(60);
            renew(&broker, channel, &key)
        };
        let second = with(next(&old).unwrap());
        assert_eq!(reason(renew(&broker, &old, &key)), "TOO_MANY_REQUESTS");
        // A client that could not keep a renewal continues with its certificate.
        for _ in 0..9 {
            next(&old).unwrap();
        }
        let newest = with(next(&old).unwrap());
        assert_eq!(reason(next(&second)), "SVID_INVALID", "{name}");
        // A request with another key is refused, so a borrowed identity cannot be kept.
        let (other, _) = keyhatch::identity::new_request().unwrap();
        broker.advance(60);
        assert_eq!(reason(renew(&broker, &newest, &other)), "CSR_INVALID");
        next(&newest).unwrap();
    }
    let renewals = broker.journal().into_iter().map(|line| line.to_string());
    let renewals: Vec<_> = renewals.filter(|line| line.contains("executor.renew")).collect();
    assert!(
        renewals.iter().all(|line| line.contains("presented=") && line.contains("certificate="))
    );
    broker.restart();
    // The certificate in the files is no longer valid, because the last renewal used the newest.
    assert!(broker.operator_refusal().contains("replaced"));
}

fn run(broker: &TestBroker, arguments: &[&str]) -> (String, String) {
    let output = keyhatch(arguments).env("KEYHATCH_STATE", &broker.config.state).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(output.stderr));
    (text(output.stdout), text(output.stderr))
}

/// A command of an executor.
const OPEN_STEP: [&str; 8] =
    ["step", "open", "--workflow", "deploy", "--run", "1", "--step", "build"];

#[test]
fn the_cli_renews_only_certificates_that_are_due() {
    let then =
        Clock::hand_set(Timestamp::from_millis(*START).before(Duration::from_secs(61 * DAY)));
    let broker = TestBroker::start_at(then, Limits::default());
    broker.advance(61 * DAY);
    for (name, command) in
        [("operators/admin", &["connection", "list"][..]), ("executors/local", &OPEN_STEP)]
    {
        let directory = broker.config.state.join(name);
        let first = own_certificate(&directory);
        run(&broker, command);
        let second = own_certificate(&directory);
        assert_ne!(first.sha256, second.sha256, "{name}");
        run(&broker, command);
        assert_eq!(own_certificate(&directory).sha256, second.sha256, "{name}");
        let mode = std::fs::metadata(directory.join("tls.crt")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 4);
    }
    let before = own_certificate(&broker.config.state.join("operators/admin")).not_after;
    broker.advance(60);
    let (told, _) = run(&broker, &["operator", "renew"]);
    assert!(told.starts_with("operator admin: certificate until "), "{told}");
    assert!(own_certificate(&broker.config.state.join("operators/admin")).not_after >= before);
    let (told, _) = run(&broker, &["executor", "renew", "-o", "json"]);
    assert!(told.contains("\"executor local\""), "{told}");
}

#[test]
fn a_timer_renews_what_is_due_and_leaves_the_rest() {
    let then =
        Clock::hand_set(Timestamp::from_millis(*START).before(Duration::from_secs(61 * DAY)));
    let broker = TestBroker::start_at(then, Limits::default());
    let directories = ["operators/admin", "executors/local"].map(|at| broker.config.state.join(at));
    let certificates = || directories.each_ref().map(|directory| own_certificate(directory).sha256);
    broker.advance(61 * DAY);
    let first = certificates();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // Root renews the identities of other users.
        for directory in &directories {
            let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
            files
                .chain([directory.clone()])
                .for_each(|path| chown(path, Some(7), Some(7)).unwrap());
        }
    } else {
        skipped("identities of another user", "needs root");
    }
    let (told, _) = run(&broker, &["renew", "--if-due"]);
    for who in ["operator admin: certificate until ", "executor local: certificate until "] {
        assert!(told.contains(who), "{told}");
    }
    let second = certificates();
    assert!(first[0] != second[0] && first[1] != second[1]);
    for directory in directories.iter().filter(|_| is_root) {
        for file in std::fs::read_dir(directory).unwrap() {
            assert_eq!(MetadataExt::uid(&file.unwrap().metadata().unwrap()), 7);
        }
    }
    broker.advance(60);
    run(&broker, &["renew", "--if-due"]);
    assert_eq!(certificates(), second);
    run(&broker, &["renew", directories[1].to_str().unwrap()]);
    assert_eq!(certificates()[0], second[0]);
    assert_ne!(certificates()[1], second[1]);
}

#[test]
fn many_commands_at_once_renew_a_certificate_once() {
    let then =
        Clock::hand_set(Timestamp::from_millis(*START).before(Duration::from_secs(61 * DAY)));
    let broker = TestBroker::start_at(then, Limits::default());
    broker.advance(61 * DAY);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let broker = &broker;
            scope.spawn(move || {
                let [command @ .., _] = OPEN_STEP;
                run(broker, &[&command[..], &[&format!("build-{number}")]].concat())
            });
        }
    });
    let renewed = broker.journaled("intent");
    let count = |line: &serde_json::Value| line.to_string().matches("executor.renew").count();
    assert_eq!(renewed.iter().map(count).sum::<usize>(), 1);
}

/// The test needs root, which can become another user.
#[test]
fn a_group_member_is_told_that_it_cannot_keep_a_renewal() {
    const NOBODY: u32 = 65_534;
    let then =
        Clock::hand_set(Timestamp::from_millis(*START).before(Duration::from_secs(61 * DAY)));
    let mut broker = TestBroker::start_at(then, Limits::default());
    broker.stop();
    let is_root = rustix::process::geteuid().is_root();
    let group = if is_root { NOBODY } else { rustix::process::getegid().as_raw() };
    broker.config.admin_group = Some(group);
    broker.serve();
    broker.advance(61 * DAY);
    let socket = broker.config.runtime.join("admin.sock");
    let made = std::fs::metadata(&socket).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o660);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&made), group);
    if !is_root {
        skipped("another user in the admin group", "needs root");
        return;
    }
    let own = broker.scratch().join("own");
    std::fs::create_dir(&own).unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key", "env"] {
        std::fs::copy(broker.config.state.join("operators/admin").join(name), own.join(name))
            .unwrap();
        std::fs::set_permissions(own.join(name), PermissionsExt::from_mode(0o444)).unwrap();
    }
    let binary = broker.scratch().join("keyhatch");
    copy_binary(&binary);
    for path in [broker.scratch(), &own, &binary] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let as_other = |gid: u32| {
        let mut command = std::process::Command::new(&binary);
        command.args(["connection", "list"]).env_clear().env("KEYHATCH_DIR", &own);
        command.uid(NOBODY).gid(gid).output().unwrap()
    };
    let member = as_other(NOBODY);
    let told = String::from_utf8(member.stderr).unwrap();
    assert!(member.status.success(), "{told}");
    assert!(told.contains("could not be renewed") && told.contains("another user"), "{told}");
    assert!(!as_other(NOBODY - 1).status.success());
}

fn reissue_options(broker: &TestBroker, kek_file: Option<PathBuf>) -> ReissueOptions {
    ReissueOptions {
        state: broker.config.state.clone(),
        shared_parents: Vec::new(),
        unlock: Unlock { source: kek_file.map(KekSource::File), passphrase: None },
        runtime: broker.config.runtime.clone(),
        clock: broker.clock.clone(),
    }
}

#[test]
fn the_kek_lets_an_administrator_back_in() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:deploy"]);
    let step = broker.open("deploy", "build");
    broker.resolve(&step, "aws/prod").unwrap();
    let directory = broker.config.state.join("operators/admin");
    let old = identity_in(&directory);
    // A thief is now the only administrator.
    let thief = broker.enroll("thief", pb::Role::Administrator);
    let request =
        pb::DeleteOperatorRequest { name: "operators/admin".to_owned(), ..Default::default() };
    broker.block_on(OperatorServiceClient::new(thief).delete_operator(request)).unwrap();
    assert!(broker.operator_refusal().contains("removed"));

    let while_serving = reissue_admin(&reissue_options(&broker, None)).err().unwrap();
    assert!(while_serving.to_string().contains("stop it first"), "{while_serving}");
    broker.stop();
    let wrong = broker.scratch().join("wrong");
    std::fs::write(&wrong, [7; 32]).unwrap();
    std::fs::set_permissions(&wrong, PermissionsExt::from_mode(0o400)).unwrap();
    assert!(reissue_admin(&reissue_options(&broker, Some(wrong))).is_err());
    let env = std::fs::read(directory.join("env")).unwrap();
    let reissued = reissue_admin(&reissue_options(&broker, None)).unwrap();
    assert!(reissued.executor.is_none());
    assert_eq!(std::fs::read(directory.join("env")).unwrap(), env);
    broker.serve();
    broker.list_connections(&broker.operator()).unwrap();
    let refused = broker.connect(&broker.config.runtime.join("admin.sock"), old).unwrap_err();
    assert!(refused.contains("replaced"), "{refused}");
    broker.resolve(&step, "aws/prod").unwrap();
    assert!(broker.journal().iter().any(|line| line.to_string().contains("operator.create")));
    // The same with the identity's files lost.
    broker.stop();
    std::fs::remove_dir_all(broker.config.state.join("operators")).unwrap();
    std::fs::remove_dir_all(broker.config.state.join("executors")).unwrap();
    let reissued = reissue_admin(&reissue_options(&broker, None)).unwrap();
    assert_eq!(reissued.executor, Some(broker.config.state.join("executors/local")));
    broker.serve();
    broker.list_connections(&broker.operator()).unwrap();
    broker.open("deploy", "test");
    assert!(broker.journal().iter().any(|line| line.to_string().contains("operator.reissue")));
}

#[test]
fn an_operator_may_move_the_first_identity_off_the_host() {
    let mut broker = TestBroker::start();
    let (from, to) = (broker.config.state.join("operators"), broker.scratch().join("elsewhere"));
    std::fs::rename(from, &to).unwrap();
    broker.restart();
    let socket = broker.config.runtime.join("admin.sock");
    let moved = broker.connect(&socket, identity_in(&to.join("admin"))).unwrap();
    broker.list_connections(&moved).unwrap();
}

#[test]
fn a_clock_that_is_wrong_is_named_as_what_it_is() {
    let now = Clock::system().now();
    let year = Duration::from_secs(365 * 86_400);
    for (then, reason) in [
        (now.after(Duration::from_secs(3600)), "CERTIFICATE_NOT_YET_VALID"),
        (now.before(3 * year), "CERTIFICATE_EXPIRED"),
    ] {
        let broker = TestBroker::start_at(Clock::hand_set(then), Limits::default());
        let ran = keyhatch_in(broker.scratch(), &["connection", "list"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(stderr.contains(reason) && stderr.contains("clock"), "{stderr}");
        assert!(ran.status.code() == Some(1) && !stderr.contains("keyhatch serve"), "{stderr}");
    }
    // A few minutes of difference are allowed, also right after init.
    let then = Clock::hand_set(now.after(Duration::from_secs(240)));
    let broker = TestBroker::start_at(then, Limits::default());
    succeeded(&keyhatch_in(broker.scratch(), &["connection", "list"]).output().unwrap());
}
