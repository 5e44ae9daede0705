//! Deploys that die, and those that come after them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fakes::fake_registry::FakeRegistry;
use fakes::faults::{Effect, Fault, Moment};
use fakes::world::{self, Machine, Scope, Wish, World, deploy, file_name, image_digest, key, wish};
use forebay::environment::{
    Applied, Direction, Environment, EnvironmentError, Options, Settled, State,
};

/// Longer than any lease in these tests.
const LONG: i64 = 3_600;

fn base() -> Wish {
    wish(
        "1.0",
        "one",
        &[("daily", "a"), ("hourly", "b"), ("old", "x")],
    )
}

/// Changes one workflow, keeps one, adds one, retires one.
fn target() -> Wish {
    wish(
        "1.1",
        "one",
        &[("daily", "a2"), ("hourly", "b"), ("new", "y")],
    )
}

/// The whole of `target()` with another image, so that everything is new.
fn target_image() -> Wish {
    wish(
        "2.0",
        "two",
        &[("daily", "a2"), ("hourly", "b"), ("new", "y")],
    )
}

/// What is in `dags/` is old, new, or between, and never less than what stays.
fn assert_between(world: &World, before: &Files, after: &Files) {
    for (key, bytes) in world.dags() {
        let known = [before.get(&key), after.get(&key)];
        assert!(
            known.contains(&Some(&bytes)),
            "{key} is neither old nor new"
        );
    }
    for (key, bytes) in before.iter().filter(|(key, _)| after.contains_key(*key)) {
        let live = world.dags();
        assert!(
            live.contains_key(key),
            "{key}, which stays, is gone: {bytes:?}"
        );
    }
}

type Files = BTreeMap<String, Bytes>;

/// Whether the change came to its end.
async fn killed(world: &World, run: impl Future<Output = Result<(), EnvironmentError>>) -> bool {
    tokio::select! {
        biased;
        () = world.calls.killed() => false,
        result = run => {
            result.unwrap();
            true
        }
    }
}

/// One change, to be killed anywhere.
struct Change<P, C, A> {
    /// Brings a world to where the change begins.
    prepare: P,
    /// The change that dies.
    change: C,
    /// What is done after its death, until it changes nothing.
    again: A,
    /// `dags/` before the change, whether begun or not.
    before: Files,
    /// The fewest calls that it makes.
    calls: usize,
}

/// Kills a change at every call: before it, in the middle of its body, and when the server
/// has applied it. Then looks, does it again and does it again, on the same machine or on
/// another one. See `docs/architecture.md` for what is promised.
async fn kill_at_every_call<P, C, A>(change: Change<P, C, A>)
where
    P: AsyncFn(&World, &Machine),
    C: AsyncFn(&World, &Machine) -> Result<(), EnvironmentError>,
    A: AsyncFn(&World, &Machine) -> Result<Applied, EnvironmentError>,
{
    let before = &change.before;
    let after = {
        let (world, anna) = (World::new(), Machine::new("anna"));
        (change.prepare)(&world, &anna).await;
        (change.again)(&world, &anna).await.unwrap();
        world.dags()
    };
    for moment in Moment::ALL {
        for at in 0.. {
            let here = format!("{moment:?} call {at}");
            let world = World::new();
            let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
            (change.prepare)(&world, &anna).await;
            world.calls.strike(at, moment, Fault::Die);
            let survived = killed(&world, (change.change)(&world, &anna)).await;
            world.calls.reset();
            if survived {
                assert!(at >= change.calls, "only {at} calls were struck");
                break;
            }
            let reader = if at % 2 == 0 { &anna } else { &ben };
            let status = world.environment(reader).status().await.unwrap();
            // What the change itself has done is no drift.
            assert!(status.drift.is_empty(), "{here}: {status:?}");
            assert_between(&world, before, &after);
            let live = world.dags();
            if status.state != State::Applying {
                assert!(live == *before || live == after, "{here}: {live:?}");
            }
            assert_nothing_is_missing(&world, reader, &here).await;
            if status.held {
                let error = (change.again)(&world, reader).await.unwrap_err();
                assert!(matches!(error, EnvironmentError::Held { .. }), "{error}");
            }

            world.bucket.advance(LONG);
            (change.again)(&world, reader).await.unwrap();
            assert_eq!(world.dags(), after, "{here}");
            assert_nothing_is_missing(&world, reader, &here).await;
            let record = &world.environment(reader).history(None).await.unwrap()[0];
            for needed in &record.images {
                let tagged = world.registry.tagged(&needed.retention_tag);
                assert_eq!(tagged, Some(needed.digest), "{here}");
            }

            world.calls.reset();
            let third = (change.again)(&world, reader).await.unwrap();
            assert!(!third.changed, "{here}");
            assert!(world.calls.writes().is_empty(), "{here}");
        }
    }
}

/// All that files and records name can be had: images, records, bytes.
async fn assert_nothing_is_missing(world: &World, machine: &Machine, here: &str) {
    for (key, bytes) in world.dags() {
        let text = std::str::from_utf8(&bytes).unwrap();
        let (_, image) = text.split_once("registry.test/hello@").unwrap();
        let (image, _) = image.split_once(' ').unwrap();
        let image = image.parse().unwrap();
        assert!(world.registry.has(&image), "{here}: {key} runs {image}");
    }
    let environment = world.environment(machine);
    let records = environment.history(None).await.unwrap();
    let objects = world.bucket.contents("forebay/v1/hello/objects/");
    for dag in records.iter().flat_map(|record| record.dags.values()) {
        let object = format!("forebay/v1/hello/objects/{}", dag.object);
        assert!(objects.contains_key(&object), "{here}: {object}");
    }
}

async fn a_base(world: &World, machine: &Machine) {
    world.deploy(machine, &base()).await.unwrap();
}

async fn kill_deploy(second: Wish) {
    kill_at_every_call(Change {
        prepare: a_base,
        change: async |world: &World, machine: &Machine| {
            world.deploy(machine, &second).await.map(|_| ())
        },
        again: async |world: &World, machine: &Machine| world.deploy(machine, &second).await,
        before: base().files(),
        calls: 10,
    })
    .await;
}

#[tokio::test]
async fn killed_anywhere_a_deploy_of_dags_converges() {
    kill_deploy(target()).await;
}

#[tokio::test]
async fn killed_anywhere_a_deploy_of_everything_converges() {
    kill_deploy(target_image()).await;
}

#[tokio::test]
async fn killed_anywhere_a_first_deploy_converges() {
    kill_at_every_call(Change {
        prepare: async |_: &World, _: &Machine| {},
        change: async |world: &World, machine: &Machine| {
            world.deploy(machine, &base()).await.map(|_| ())
        },
        again: async |world: &World, machine: &Machine| world.deploy(machine, &base()).await,
        before: Files::new(),
        calls: 10,
    })
    .await;
}

#[tokio::test]
async fn killed_anywhere_a_rollback_converges() {
    kill_at_every_call(Change {
        prepare: async |world: &World, machine: &Machine| {
            a_base(world, machine).await;
            world.deploy(machine, &target_image()).await.unwrap();
        },
        change: async |world: &World, machine: &Machine| {
            world.rollback(machine, Some(1)).await.map(|_| ())
        },
        again: async |world: &World, machine: &Machine| world.rollback(machine, Some(1)).await,
        before: target_image().files(),
        calls: 10,
    })
    .await;
}

async fn an_expired_deploy(world: &World, machine: &Machine) {
    leave_unfinished(world, machine).await;
    world.bucket.advance(LONG);
}

#[tokio::test]
async fn killed_anywhere_a_resume_can_be_resumed() {
    kill_at_every_call(Change {
        prepare: an_expired_deploy,
        change: async |world: &World, machine: &Machine| {
            world.environment(machine).resume().await.map(|_| ())
        },
        again: async |world: &World, machine: &Machine| {
            world.deploy(machine, &target_image()).await
        },
        before: base().files(),
        calls: 8,
    })
    .await;
}

/// Where the way back has begun, it is gone to its end; then comes the deploy.
#[tokio::test]
async fn killed_anywhere_an_abort_can_be_ended() {
    kill_at_every_call(Change {
        prepare: an_expired_deploy,
        change: async |world: &World, machine: &Machine| {
            world.environment(machine).abort().await.map(|_| ())
        },
        again: async |world: &World, machine: &Machine| {
            world.deploy(machine, &target_image()).await
        },
        before: base().files(),
        calls: 5,
    })
    .await;
}

/// A failure that the program survives: it gives the environment free at once.
#[tokio::test]
async fn after_a_failure_anywhere_the_next_deploy_need_not_wait() {
    for moment in Moment::ALL {
        for at in 0.. {
            let world = World::new();
            let anna = Machine::new("anna");
            world.deploy(&anna, &base()).await.unwrap();
            world.calls.strike(at, moment, Fault::Fail);
            let failed = world.deploy(&anna, &target_image()).await;
            let log = world.calls.log();
            world.calls.reset();
            if log.len() <= at {
                failed.unwrap();
                break;
            }
            assert_between(&world, &base().files(), &target_image().files());
            let status = world.environment(&anna).status().await.unwrap();
            match &failed {
                // A failure of what is only a courtesy, or what was done already.
                Ok(_) => {}
                Err(EnvironmentError::Interrupted { generation, .. }) => {
                    assert_eq!(*generation, 2);
                    if status.held {
                        // Then we cannot know what is in HEAD, so we cannot give it free.
                        assert!(log[at].what.ends_with("HEAD.json"), "{}", log[at].what);
                        world.bucket.advance(LONG);
                    }
                }
                Err(_) => {
                    assert_eq!(status.state, State::Committed, "call {at}");
                    assert_eq!(world.dags(), base().files(), "call {at}");
                }
            }
            world.deploy(&anna, &target_image()).await.unwrap();
            assert_eq!(world.dags(), target_image().files());
        }
    }
}

/// A deploy of `target_image()` on top of `base()` that died amid `dags/`.
async fn leave_unfinished(world: &World, machine: &Machine) {
    world.deploy(machine, &base()).await.unwrap();
    // Count the calls of a whole run on a copy, then die at the second upload.
    let copy = World::new();
    let other = Machine::new("copy");
    copy.deploy(&other, &base()).await.unwrap();
    copy.calls.reset();
    copy.deploy(&other, &target_image()).await.unwrap();
    let log = copy.calls.log();
    let mut uploads = log
        .iter()
        .enumerate()
        .filter(|(_, call)| call.effect == Effect::Writes && call.what.starts_with("write dags/"));
    let (at, _) = uploads.nth(1).unwrap();
    world.calls.strike(at, Moment::After, Fault::Die);
    let deploy = async { world.deploy(machine, &target_image()).await.map(|_| ()) };
    assert!(!killed(world, deploy).await);
    world.calls.reset();
    let environment = world.environment(machine);
    assert_eq!(environment.status().await.unwrap().state, State::Applying);
}

#[tokio::test]
async fn a_resume_carries_on_and_an_abort_goes_back() {
    for (direction, expected) in [
        (Direction::Forward, target_image()),
        (Direction::Back, base()),
    ] {
        let world = World::new();
        let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
        leave_unfinished(&world, &anna).await;
        let environment = world.environment(&ben);
        let held = environment.resume().await.unwrap_err();
        assert!(matches!(held, EnvironmentError::Held { .. }), "{held}");
        world.bucket.advance(LONG);
        let settled = match direction {
            Direction::Forward => environment.resume().await,
            Direction::Back => environment.abort().await,
        };
        let generation = 2;
        assert_eq!(
            settled.unwrap(),
            Some(Settled {
                generation,
                direction
            })
        );
        assert_eq!(world.dags(), expected.files());
        assert_eq!(environment.resume().await.unwrap(), None);
        let status = environment.status().await.unwrap();
        assert_eq!(status.state, State::Committed);
        assert!(status.drift.is_empty());
    }
}

#[tokio::test]
async fn an_abort_of_the_first_deploy_leaves_nothing() {
    let world = World::new();
    let anna = Machine::new("anna");
    let set = base();
    for at in 0.. {
        world.calls.strike(at, Moment::After, Fault::Die);
        let deploy = async { world.deploy(&anna, &set).await.map(|_| ()) };
        assert!(!killed(&world, deploy).await);
        world.calls.reset();
        if !world.dags().is_empty() {
            break;
        }
        world.bucket.advance(LONG);
        if let Some(settled) = world.environment(&anna).abort().await.unwrap() {
            assert_eq!(settled.direction, Direction::Back);
        }
    }
    world.bucket.advance(LONG);
    world.environment(&anna).abort().await.unwrap();
    assert!(world.dags().is_empty());
    let status = world.environment(&anna).status().await.unwrap();
    assert_eq!(status.state, State::Empty);
    // The numbers of the dead are passed over.
    let applied = world.deploy(&anna, &set).await.unwrap();
    assert!(applied.generation > 1);
    assert_eq!(world.dags(), set.files());
}

#[tokio::test]
async fn what_cannot_be_carried_on_is_taken_back() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    leave_unfinished(&world, &anna).await;
    world.bucket.advance(LONG);
    world.registry.collect(&image_digest("two"));

    let environment = world.environment(&ben);
    let error = environment.resume().await.unwrap_err();
    assert!(
        matches!(error, EnvironmentError::Interrupted { .. }),
        "{error}"
    );

    let live = environment.observe(None).await.unwrap();
    let (_, settled) = environment.settle(live).await.unwrap();
    assert_eq!(settled.unwrap().direction, Direction::Back);
    assert_eq!(world.dags(), base().files());
}

#[tokio::test]
async fn what_somebody_wrote_amid_a_dead_deploy_stays() {
    let world = World::new();
    let anna = Machine::new("anna");
    leave_unfinished(&world, &anna).await;
    world.bucket.advance(LONG);
    let (mine, _) = target_image().files().into_iter().last().unwrap();
    world.bucket.remove(&mine);
    world.bucket.put(&mine, b"somebody's own");

    let environment = world.environment(&anna);
    let live = environment.observe(None).await.unwrap();
    let (_, settled) = environment.settle(live).await.unwrap();
    assert_eq!(settled.unwrap().direction, Direction::Back);
    let mut expected = base().files();
    expected.insert(mine, "somebody's own".into());
    assert_eq!(world.dags(), expected);
}

#[tokio::test]
async fn what_is_not_there_in_the_end_is_no_success() {
    let world = World::new();
    let anna = Machine::new("anna");
    world.deploy(&anna, &base()).await.unwrap();
    // Amid the upload somebody edits a file that stays.
    let hourly = format!("dags/{}", file_name("hourly", "1.0"));
    let daily = format!("write dags/{}", file_name("daily", "1.1"));
    world.bucket.sabotage(&daily, &hourly, b"edited");
    match world.deploy(&anna, &target()).await.unwrap_err() {
        EnvironmentError::Interrupted { generation, source } => {
            assert_eq!(generation, 2);
            match *source {
                EnvironmentError::NotVerified { keys } => assert_eq!(keys, [hourly]),
                other => panic!("{other}"),
            }
        }
        other => panic!("{other}"),
    }
    // It is ours, and changed: nobody writes over it unless told to.
    let error = world.deploy(&anna, &target()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("since the last deploy"), "{source}");
    let mending = Options {
        restore_drift: true,
        ..anna.options()
    };
    let mending = world.environment_with(key("hello", "dev"), &anna, mending);
    deploy(&mending, &target()).await.unwrap();
    assert!(!world.deploy(&anna, &target()).await.unwrap().changed);
    assert_eq!(world.dags().len(), 3);
}

#[tokio::test]
async fn a_key_that_is_taken_amid_the_upload_is_left_to_who_took_it() {
    let world = World::new();
    let anna = Machine::new("anna");
    world.deploy(&anna, &base()).await.unwrap();
    let new = format!("dags/{}", file_name("new", "2.0"));
    world
        .bucket
        .sabotage("write forebay/v1/hello/dev/HEAD.json", &new, b"theirs");
    let error = world.deploy(&anna, &target_image()).await.unwrap_err();
    assert!(
        matches!(error, EnvironmentError::Interrupted { .. }),
        "{error}"
    );
    // The next deploy goes back first, and then finds the key taken.
    let error = world.deploy(&anna, &target_image()).await.unwrap_err();
    match error {
        EnvironmentError::ForeignKeys { keys, .. } => assert_eq!(keys, std::slice::from_ref(&new)),
        other => panic!("{other}"),
    }
    let mut expected = base().files();
    expected.insert(new, "theirs".into());
    assert_eq!(world.dags(), expected);
}

fn slow_environment(world: &World, machine: &Machine, lease: u64) -> Environment {
    let options = Options {
        lease: Duration::from_secs(lease),
        ..machine.options()
    };
    world.environment_with(key("hello", "dev"), machine, options)
}

#[tokio::test(start_paused = true)]
async fn a_long_apply_renews_its_lease() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    let many: Vec<(&'static str, &'static str)> =
        (0..500).map(|n| (&*format!("w{n}").leak(), "x")).collect();
    world.calls.slow_uploads(25);
    let of_anna = slow_environment(&world, &anna, 60);
    let of_ben = slow_environment(&world, &ben, 60);
    let set = wish("1.0", "one", &many);
    let watching = async {
        let mut held = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let status = of_ben.status().await.unwrap();
            match status.state {
                State::Applying => {
                    assert!(status.held, "the lease ran out");
                    held += 1;
                }
                State::Committed => return held,
                State::Empty => {}
            }
        }
    };
    let (applied, held) = tokio::join!(deploy(&of_anna, &set), watching);
    applied.unwrap();
    // Far longer than one lease: 500 files, 100 at a time, 25 seconds each.
    assert!(held > 10, "{held}");
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_the_lease_stops() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    world.deploy(&anna, &base()).await.unwrap();
    world.calls.slow_uploads(50);
    let of_anna = slow_environment(&world, &anna, 60);
    let of_ben = slow_environment(&world, &ben, 60);
    let taking_over = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if of_ben.status().await.unwrap().state == State::Applying {
                break;
            }
        }
        // The server's clock jumps, or anna's machine slept: her lease is over.
        world.bucket.advance(LONG);
        of_ben.abort().await
    };
    let target = target_image();
    let (anna_result, settled) = tokio::join!(deploy(&of_anna, &target), taking_over);
    assert_eq!(settled.unwrap().unwrap().direction, Direction::Back);
    match anna_result.unwrap_err() {
        EnvironmentError::Lost { winner, .. } => assert_eq!(winner, "ben"),
        other => panic!("{other}"),
    }
    let status = of_ben.status().await.unwrap();
    assert_eq!(status.state, State::Committed);
    assert_eq!(status.live.unwrap().generation, 1);
}

#[tokio::test]
async fn a_set_is_never_less_than_what_stays() {
    // Dying at every call of a deploy that changes one of many: the rest is there all the time.
    for at in 0.. {
        let world = World::new();
        let anna = Machine::new("anna");
        world.deploy(&anna, &base()).await.unwrap();
        let only = wish("1.1", "two", &[("daily", "z")]).scope(Scope::TheseWorkflows);
        world.calls.strike(at, Moment::After, Fault::Die);
        let deploy = async { world.deploy(&anna, &only).await.map(|_| ()) };
        let survived = killed(&world, deploy).await;
        let dags = world.dags();
        let workflows = ["daily", "hourly", "old"];
        for workflow in workflows {
            let prefix = format!("dags/{workflow}__");
            assert!(dags.keys().any(|key| key.starts_with(&prefix)), "{at}");
        }
        if survived {
            break;
        }
    }
}

#[tokio::test]
async fn a_deploy_that_is_taken_back_takes_its_tag_back() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    let set = |image, content| wish("1.0", image, &[("daily", content)]).by_tag();
    world.deploy(&anna, &set("one", "a")).await.unwrap();
    let daily = format!("write dags/{}", file_name("daily", "1.0"));
    let key = daily.strip_prefix("write ").unwrap();
    world.bucket.sabotage(&daily, key, b"edited");
    let deployed = world.deploy(&anna, &set("two", "b")).await;
    assert!(matches!(
        deployed,
        Err(EnvironmentError::Interrupted { .. })
    ));
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("two")));

    let error = world.environment(&ben).abort().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("since the last deploy"), "{source}");
    let mending = Options {
        restore_drift: true,
        ..ben.options()
    };
    let mending = world.environment_with(world::key("hello", "dev"), &ben, mending);
    mending.abort().await.unwrap().unwrap();
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("one")));
    assert_eq!(world.dags(), set("one", "a").files());
}

#[tokio::test]
async fn a_change_is_not_carried_on_with_images_of_another_repository() {
    let mut world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    leave_unfinished(&world, &anna).await;
    world.bucket.advance(LONG);
    let calls = std::sync::Arc::clone(&world.calls);
    let moved = FakeRegistry::of("registry.test/new", calls);
    world.registry = std::sync::Arc::new(moved);
    let error = world.environment(&ben).resume().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("--docker-repository registry.test/hello"),
        "{source}"
    );
}

#[tokio::test]
async fn a_deploy_amid_our_look_is_no_drift() {
    let world = World::new();
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    let set = |image| wish("1.0", image, &[("daily", image)]);
    world.deploy(&anna, &set("one")).await.unwrap();
    let before = world.bucket.contents("");
    world.deploy(&ben, &set("two")).await.unwrap();
    let after = world.bucket.contents("");
    for (key, bytes) in before {
        world.bucket.put(&key, &bytes);
    }
    // HEAD is read before Ben's deploy, the listing after it.
    let head = "read forebay/v1/hello/dev/HEAD.json";
    world.bucket.sabotage_all(head, after);
    match world.deploy(&anna, &set("three")).await.unwrap_err() {
        EnvironmentError::Lost { winner, .. } => assert_eq!(winner, "ben"),
        other => panic!("{other}"),
    }
}
