//! What goes wrong between a deploy and its bucket or registry, one test each.
//!
//! | fault | where it is shown |
//! | --- | --- |
//! | 408, 429 with and without `Retry-After`, 500, 503 | here, at every request of a deploy; single calls in `bucket_gcs_faults` |
//! | reset before and after the write was applied (then 412) | here, at every request |
//! | answer cut short, answer that stands still | here, at every request |
//! | wrong checksum, to the server and from it | here; `bucket_gcs_faults` |
//! | token that expires in the middle | here |
//! | 403 | here, at every request |
//! | clock an hour off, both ways | here |
//! | object changed or deleted behind us | `environment_deploy` (between deploys), `environment_interrupted` (amid one) |
//! | odd keys: `//`, `.`, bytes that are no UTF-8 | here |
//! | records malformed, records of a newer version | `environment_records` |
//! | disk full | `interrupted_command_line`, for the whole program; `store/src/faults.rs` at every call of the store |
//! | empty DAG set | `environment_deploy` |
//! | two deploys at once | `environment_deploy`, 20 orders of their calls |
//! | older commit that finishes later | here; with the commits in order `environment_deploy` |
//! | image collected by the registry before a rollback | `environment_rollback` |
//! | the process dies at any call | `environment_interrupted` |

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/fakes.rs"]
mod fakes;
#[path = "support/http_faults.rs"]
mod http_faults;

use std::collections::BTreeMap;
use std::sync::Arc;

use fake_gcs_http::{FakeGcs, HttpFault};
use fakes::fake_registry::FakeRegistry;
use fakes::world::{self, Machine, Wish, World, deploy, file_name, key, wish};
use forebay::bucket::{BucketError, Endpoint, GcsBucket};
use forebay::clock::{Clock, SystemClock};
use forebay::environment::{Applied, Environment, EnvironmentError, State};
use forebay::progress::Silent;
use http_faults::{Tokens, impatient};
use jiff::{SignedDuration, Timestamp};

/// A bucket behind HTTP with one generation in it.
struct Scene {
    server: FakeGcs,
    registry: Arc<FakeRegistry>,
    machine: Machine,
    tokens: Arc<Tokens>,
}

fn base() -> Wish {
    wish(
        "1.0",
        "one",
        &[("daily", "a"), ("hourly", "b"), ("old", "x")],
    )
}

fn target() -> Wish {
    wish(
        "2.0",
        "two",
        &[("daily", "a2"), ("hourly", "b"), ("new", "y")],
    )
}

impl Scene {
    async fn new() -> Self {
        let scene = Self {
            server: FakeGcs::start().await,
            registry: Arc::new(FakeRegistry::new(Arc::default())),
            machine: Machine::new("anna"),
            tokens: Arc::default(),
        };
        deploy(&scene.environment(), &base()).await.unwrap();
        scene
    }

    fn environment(&self) -> Environment {
        let endpoint = Endpoint::service_at(&format!("http://{}", self.server.address)).unwrap();
        let tokens = Arc::clone(&self.tokens);
        let bucket = GcsBucket::new("bucket", endpoint, impatient(), Some(tokens));
        Environment::new(
            key("hello", "dev"),
            Arc::new(bucket),
            Arc::clone(&self.registry) as _,
            self.machine.store(),
            Arc::new(SystemClock),
            Arc::new(Silent),
            self.machine.options(),
        )
    }

    async fn deploy(&self) -> Result<Applied, EnvironmentError> {
        deploy(&self.environment(), &target()).await
    }

    fn dags(&self) -> BTreeMap<String, bytes::Bytes> {
        self.server.contents("dags/")
    }
}

/// How many requests the deploy of the target takes when nothing goes wrong.
async fn requests() -> usize {
    let scene = Scene::new().await;
    let before = scene.server.requests().len();
    scene.deploy().await.unwrap();
    assert_eq!(scene.dags(), target().files());
    scene.server.requests().len() - before
}

/// A fault that passes, at every request in turn: nobody notices.
async fn passes(fault: HttpFault) {
    for at in 0..requests().await {
        let scene = Scene::new().await;
        scene.server.fault(at, fault);
        let applied = scene.deploy().await;
        assert!(applied.is_ok(), "{fault:?} at {at}: {applied:?}");
        assert_eq!(scene.dags(), target().files(), "{fault:?} at {at}");
        assert!(scene.server.has_struck(), "{fault:?} at {at}");
        let status = scene.environment().status().await.unwrap();
        assert_eq!(status.state, State::Committed);
    }
}

/// A fault that stays until somebody mends it, at every request in turn: the deploy fails, what
/// is live can be told, and the next deploy mends all.
async fn fails(fault: HttpFault, expected: impl Fn(&EnvironmentError) -> bool) {
    for at in 0..requests().await {
        let scene = Scene::new().await;
        scene.server.fault(at, fault);
        let failed = scene.deploy().await;
        assert!(scene.server.has_struck(), "{fault:?} at {at}");
        match failed {
            Err(EnvironmentError::Interrupted { source, .. }) => {
                assert!(expected(&source), "{fault:?} at {at}: {source}");
            }
            Err(error) => {
                assert!(expected(&error), "{fault:?} at {at}: {error}");
                assert_eq!(scene.dags(), base().files(), "{fault:?} at {at}");
            }
            // It struck where somebody else's success is as good.
            Ok(_) => assert_eq!(scene.dags(), target().files()),
        }
        let status = scene.environment().status().await.unwrap();
        assert!(status.drift.is_empty(), "{fault:?} at {at}: {status:?}");
        // The server's clock stands still: a lease that could not be given back never ends.
        scene.server.pass_an_hour();
        scene.deploy().await.unwrap();
        assert_eq!(scene.dags(), target().files(), "{fault:?} at {at}");
        let last = scene.server.requests().len();
        assert!(!scene.deploy().await.unwrap().changed);
        let writes = scene.server.requests().split_off(last);
        assert!(writes.iter().all(|request| request.starts_with("GET ")));
    }
}

#[tokio::test]
async fn a_408_passes() {
    passes(HttpFault::Status(408)).await;
}

#[tokio::test]
async fn a_429_with_a_wish_passes() {
    passes(HttpFault::Status(429)).await;
}

#[tokio::test]
async fn a_429_without_a_wish_passes() {
    passes(HttpFault::StatusAlone(429)).await;
}

#[tokio::test]
async fn a_500_passes() {
    passes(HttpFault::StatusAlone(500)).await;
}

#[tokio::test]
async fn a_503_passes() {
    passes(HttpFault::StatusAlone(503)).await;
}

#[tokio::test]
async fn a_connection_that_breaks_before_anything_was_done_passes() {
    passes(HttpFault::ResetBefore).await;
}

/// The repetition of a write is answered 412; it was our own.
#[tokio::test]
async fn a_connection_that_breaks_after_all_was_done_passes() {
    passes(HttpFault::ResetAfter).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_short_passes() {
    passes(HttpFault::Truncate).await;
}

#[tokio::test]
async fn an_answer_that_stands_still_passes() {
    passes(HttpFault::StallWithin).await;
}

/// The service compares the checksum that came along, and takes nothing else.
#[tokio::test]
async fn bytes_that_were_damaged_on_the_way_are_never_stored() {
    fails(HttpFault::Flip, |error| {
        let mut error: &dyn std::error::Error = error;
        loop {
            if let Some(BucketError::Unexpected { status: 400, .. }) = error.downcast_ref() {
                return true;
            }
            match error.source() {
                Some(source) => error = source,
                None => return error.to_string().contains("answered 400"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_403_ends_the_deploy_and_names_who_may_not_what() {
    fails(HttpFault::Status(403), |error| {
        let text = error.to_string();
        text.starts_with("tester may not storage.objects.") && text.ends_with(" in gs://bucket")
    })
    .await;
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    for at in 0..requests().await {
        let scene = Scene::new().await;
        scene.server.expect_token("token-0");
        scene.server.expect_token_after(at, "token-1");
        scene.deploy().await.unwrap();
        assert_eq!(scene.dags(), target().files());
        assert!(scene.tokens.forgotten() >= 1);
    }
}

/// This machine's clock, wrongly set.
struct Skewed(SignedDuration);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.0
    }
}

/// A lease is judged by the server's clock alone.
#[tokio::test]
async fn clocks_that_are_an_hour_off_hold_and_free_the_environment_all_the_same() {
    for hours in [-1, 1] {
        let world = World::new();
        let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
        let environment = |machine: &Machine, hours| {
            Environment::new(
                key("hello", "dev"),
                Arc::clone(&world.bucket) as _,
                Arc::clone(&world.registry) as _,
                machine.store(),
                Arc::new(Skewed(SignedDuration::from_hours(hours))),
                Arc::new(Silent),
                machine.options(),
            )
        };
        deploy(&environment(&anna, hours), &base()).await.unwrap();
        // Anna's deploy dies amid its uploads.
        let daily = format!("write dags/{}", file_name("daily", "2.0"));
        world.calls.die_at(&daily);
        let anna = environment(&anna, hours);
        let wanted = target();
        tokio::select! {
            biased;
            () = world.calls.killed() => {}
            applied = deploy(&anna, &wanted) => panic!("{applied:?}"),
        }
        world.calls.reset();
        let ben = environment(&ben, -hours);
        world.bucket.advance(59);
        let held = deploy(&ben, &target()).await.unwrap_err();
        assert!(matches!(held, EnvironmentError::Held { .. }), "{held}");
        world.bucket.advance(1);
        deploy(&ben, &target()).await.unwrap();
        assert_eq!(world.dags(), target().files());
    }
}

#[tokio::test]
async fn odd_keys_of_others_are_left_alone() {
    let scene = Scene::new().await;
    let odd = [
        "dags//a.py",
        "dags/.",
        "dags/../up.py",
        "dags/folder/",
        "dags/daily.py/__init__.py",
        // What a client makes of bytes that are no UTF-8.
        "dags/\u{fffd}%FF.py",
        "dags/\u{1}control\n.py",
        "dags/ blank ",
    ];
    for key in odd {
        scene.server.put(key, b"theirs");
    }
    scene.deploy().await.unwrap();
    let status = scene.environment().status().await.unwrap();
    assert_eq!(status.foreign, odd.len());
    let mut dags = scene.dags();
    for key in odd {
        assert_eq!(dags.remove(key).as_deref(), Some(&b"theirs"[..]), "{key:?}");
    }
    assert_eq!(dags, target().files());
}

/// Two pipelines run at once, and that of the older commit comes to its end last.
#[tokio::test]
async fn an_older_commit_that_finishes_later_does_not_win() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    world.deploy(&anna, &base()).await.unwrap();
    let older = wish("1.1", "older", &[("daily", "older")]).commit("1111");
    let newer = wish("1.2", "newer", &[("daily", "newer")]).commit("2222");
    let slow = world.environment(&anna);
    let live = slow.observe(None).await.unwrap();
    let is_ancestor = |one: &str, other: &str| Some((one, other) == ("1111", "2222"));
    let plan = slow
        .plan(live, older.desired(), &is_ancestor)
        .await
        .unwrap();
    world.deploy(&ben, &newer).await.unwrap();

    match slow.apply(plan).await.unwrap_err() {
        EnvironmentError::Lost { winner, .. } => assert_eq!(winner, "ben"),
        other => panic!("{other}"),
    }
    assert_eq!(world.dags(), newer.files());
    // Asked again, it sees that it is older.
    let error = world::deploy_if(&slow, &older, &is_ancestor)
        .await
        .unwrap_err();
    assert!(
        matches!(error, EnvironmentError::OlderCommit { .. }),
        "{error}"
    );
    assert_eq!(world.dags(), newer.files());
}
