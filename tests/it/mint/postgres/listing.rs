//! What operators see of roles that are not gone.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::integration::Source;
use keyhatch::mint;

use super::steps::World;
use super::{Made, ask, egress, to_fields, with};
use crate::harness::{Postgres, block_on, keyhatch, succeeded, wait_until};

impl World {
    fn endings(&self) -> Vec<pb::Ending> {
        let mut client = SystemServiceClient::new(self.broker.operator());
        let listed = client.list_endings(pb::ListEndingsRequest::default());
        self.broker.block_on(listed).unwrap().into_inner().endings
    }

    fn shown(&self, words: &[&str]) -> String {
        let mut shown = keyhatch(words);
        shown.env("KEYHATCH_DIR", self.broker.config.state.join("operators/admin"));
        succeeded(&shown.output().unwrap())
    }
}

#[test]
fn a_role_that_stays_is_listed_until_it_is_cleaned_up() {
    let Some(mut world) = World::start() else { return };
    let step = world.broker.open("w", "s");
    succeeded(&world.psql(&step).args(["-c", "CREATE TABLE kept (x int)"]).output().unwrap());
    let closed = world.broker.close(&step);
    assert_eq!(closed.pending_endings, [], "nobody can use it");
    for _ in 0..2 {
        let [listed] = &*world.endings() else { panic!("{:?}", world.endings()) };
        let ending = listed.ending.as_ref().unwrap();
        assert_eq!(ending.state(), pb::EndingState::LeftDisabled);
        assert_eq!(vec![listed.handle.clone()], world.postgres.roles());
        assert_eq!(listed.step, "workflow:w/run:1/step:s");
        let shown = world.shown(&["ending", "list"]);
        assert!(shown.contains(&listed.handle) && shown.contains("1 in orders"), "{shown}");
        // The list is that of the journal.
        world.broker.restart();
    }
    let told = world.shown(&["run", "show", "1", "--workflow", "w", "-o", "json"]);
    assert!(told.contains("left_disabled"), "{told}");
    world.postgres.ask_in("orders", "DROP TABLE kept");
    wait_until("it is gone", || {
        world.broker.advance(3601);
        world.endings().is_empty()
    });
    assert!(world.postgres.roles().is_empty());
    let count = |event| world.broker.journaled(event).len();
    assert_eq!((count("ending"), count("left_disabled"), count("ended_upstream")), (1, 1, 1));
    assert!(world.shown(&["ending", "list"]).contains("no endings are pending"));
}

#[test]
fn a_role_is_found_behind_many_others() {
    let Some(postgres) = Postgres::start() else { return };
    // Their names come first, and their comments are no mint's.
    let others = "CREATE ROLE kh_00_%1$s; COMMENT ON ROLE kh_00_%1$s IS ''keyhatch: another''";
    postgres.ask(&format!(
        "DO $$ BEGIN FOR n IN 1..1001 LOOP EXECUTE format('{others}', n); END LOOP; END $$"
    ));
    let (fields, ask) = (with(&postgres, &[]), ask("build", 1));
    let made = Made::of(&fields, &ask);
    let (egress, fields) = (egress("127.0.0.1"), to_fields(&fields));
    let listed = block_on(mint::list(&egress, Source::Postgres, &fields));
    let listed = listed.unwrap_or_else(|failure| panic!("{failure:?}"));
    let listed: Vec<_> = listed.into_iter().map(|one| (one.mint, one.handle)).collect();
    assert_eq!(listed, [(ask.mint, made.user)]);
}

#[test]
fn the_lines_of_a_test_name_its_operator() {
    let Some(world) = World::start() else { return };
    let name = "connections/postgres/orders".to_owned();
    let request = pb::TestConnectionRequest { name, mint: true };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    let tested = world.broker.block_on(client.test_connection(request)).unwrap().into_inner();
    assert_eq!(tested.mint_failure, "");
    let tested = world.broker.journaled("tested").pop().unwrap();
    let operator = tested["principal"].as_str().unwrap().strip_prefix("operator:").unwrap();
    let expected = format!("workflow:connection-test/run:test/step:{operator}");
    for event in ["minting", "ending", "ended_upstream"] {
        let line = world.broker.journaled(event).pop().unwrap();
        assert_eq!(line["principal"], *expected, "{event}");
    }
}
