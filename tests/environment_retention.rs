//! Retention: what nobody needs goes; what somebody needs stays, whoever it is. And leases
//! that are ended by hand.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;

use std::sync::Arc;
use std::time::Duration;

use fakes::faults::{Fault, Moment};
use fakes::world::{Machine, World, deploy, image_digest, key, wish};
use forebay::environment::{EnvironmentError, Retention, State};

const DAY: Duration = Duration::from_secs(86_400);
const OBJECTS: &str = "forebay/v1/hello/objects/";
const RECORDS: &str = "forebay/v1/hello/dev/generations/";

fn keep(keep: usize) -> Retention {
    Retention { keep, grace: DAY }
}

/// Four generations: three deploys, and a rollback to the second.
async fn four_generations(world: &World, machine: &Machine) {
    for (version, image, content) in [("1", "one", "a"), ("2", "two", "b"), ("3", "three", "c")] {
        let set = wish(version, image, &[("daily", content)]);
        world.deploy(machine, &set).await.unwrap();
    }
    world.rollback(machine, None).await.unwrap();
    world.bucket.advance(2 * 86_400);
    world.calls.reset();
}

#[tokio::test]
async fn what_was_deployed_last_stays() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    four_generations(&world, &machine).await;
    let live = world.dags();
    let environment = world.environment(&machine);

    // The live rollback, and the generation that it restored: deployed later than the third.
    let prunable = environment.prunable(&keep(2)).await.unwrap();
    assert_eq!(prunable.kept, [4, 2]);
    assert_eq!(prunable.records, [1]);
    assert_eq!(
        prunable.tags,
        ["forebay-hello_dev-1", "forebay-hello_dev-3"]
    );
    assert_eq!(prunable.objects, 2);
    assert!(world.calls.writes().is_empty(), "looking writes nothing");

    assert!(environment.prune(prunable).await.unwrap().is_empty());
    assert_eq!(world.dags(), live);
    assert_eq!(world.bucket.contents(RECORDS).len(), 3);
    assert_eq!(world.bucket.contents(OBJECTS).len(), 1);
    let tagged = |number| {
        world
            .registry
            .tagged(&format!("forebay-hello_dev-{number}"))
    };
    assert_eq!((tagged(1), tagged(3)), (None, None));
    assert_eq!(tagged(2), Some(image_digest("two")));
    // The version's tags are the user's.
    assert_eq!(world.registry.tagged("1"), Some(image_digest("one")));

    // The history ends there, on a machine that has never seen more; and all goes on.
    let other = Machine::new("a machine that has seen nothing");
    let there = world.environment(&other);
    let history = there.history(None).await.unwrap();
    let numbers: Vec<_> = history.iter().map(|record| record.generation).collect();
    assert_eq!(numbers, [4, 3, 2]);
    assert!(there.prunable(&keep(2)).await.unwrap().is_empty());
    match world.rollback(&other, Some(1)).await.unwrap_err() {
        EnvironmentError::NoRollbackTarget { usable, .. } => assert_eq!(usable, [2]),
        other => panic!("{other}"),
    }
    let next = wish("4", "four", &[("daily", "d")]);
    world.deploy(&other, &next).await.unwrap();
    assert_eq!(world.dags(), next.files());
}

#[tokio::test]
async fn a_lost_record_is_not_the_end_of_the_history() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    four_generations(&world, &machine).await;
    world.bucket.remove(&format!("{RECORDS}00000002.json"));
    let other = Machine::new("a machine that has seen nothing");
    let history = world.environment(&other).history(None).await;
    assert!(
        matches!(history, Err(EnvironmentError::LostObject { .. })),
        "{history:?}"
    );
}

#[tokio::test]
async fn what_another_environment_needs_stays() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let production = world.environment_with(key("hello", "prod"), &machine, {
        let mut options = machine.options();
        options.dags_prefix = "dags/prod/".parse().unwrap();
        options
    });
    deploy(&production, &wish("1", "one", &[("daily", "a")]))
        .await
        .unwrap();
    four_generations(&world, &machine).await;
    let environment = world.environment(&machine);
    let prunable = environment.prunable(&keep(1)).await.unwrap();
    assert_eq!(prunable.kept, [4]);
    // The first set's file is the same in both.
    assert_eq!(prunable.objects, 1);
    environment.prune(prunable).await.unwrap();
    assert_eq!(world.bucket.contents(OBJECTS).len(), 2);
}

#[tokio::test]
async fn what_is_young_or_needed_again_stays() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    four_generations(&world, &machine).await;
    let environment = world.environment(&machine);
    let patient = Retention {
        grace: 3 * DAY,
        ..keep(2)
    };
    assert_eq!(environment.prunable(&patient).await.unwrap().objects, 0);

    // Between the look and the deletes somebody deploys what was about to go.
    let prunable = environment.prunable(&keep(2)).await.unwrap();
    let again = wish("3", "three", &[("daily", "c")]);
    let insisting = forebay::environment::Options {
        allow_older: true,
        ..machine.options()
    };
    let insisting = world.environment_with(key("hello", "dev"), &machine, insisting);
    deploy(&insisting, &again).await.unwrap();
    let late = environment.prune(prunable).await.unwrap_err();
    assert!(matches!(late, EnvironmentError::Lost { .. }), "{late}");
    let object = again.files().into_values().next().unwrap();
    assert!(
        world
            .bucket
            .contents(OBJECTS)
            .values()
            .any(|bytes| *bytes == object)
    );
}

#[tokio::test]
async fn killed_anywhere_it_is_found_again() {
    let (counted, machine) = (World::new(), Machine::new("anna"));
    four_generations(&counted, &machine).await;
    let environment = counted.environment(&machine);
    let prunable = environment.prunable(&keep(1)).await.unwrap();
    counted.calls.reset();
    environment.prune(prunable).await.unwrap();
    let calls = counted.calls.log().len();
    let pruned = counted.bucket.contents("forebay/v1/hello/objects/");

    for number in 0..calls {
        let (world, machine) = (World::new(), Machine::new("anna"));
        four_generations(&world, &machine).await;
        let live = world.dags();
        let environment = world.environment(&machine);
        let prunable = environment.prunable(&keep(1)).await.unwrap();
        world.calls.reset();
        world.calls.strike(number, Moment::After, Fault::Die);
        tokio::select! {
            biased;
            () = world.calls.killed() => {}
            _ = environment.prune(prunable) => panic!("call {number} was not reached"),
        }
        world.calls.reset();
        world.bucket.advance(120);
        let other = Machine::new("another");
        let environment = world.environment(&other);
        environment.resume().await.unwrap();
        assert_eq!(world.dags(), live);
        let prunable = environment.prunable(&keep(1)).await.unwrap();
        environment.prune(prunable).await.unwrap();
        assert_eq!(world.bucket.contents(OBJECTS), pruned, "call {number}");
        assert!(world.registry.tagged("forebay-hello_dev-1").is_none());
        assert!(world.registry.tagged("forebay-hello_dev-3").is_none());
    }
}

#[tokio::test]
async fn told_to_stop_it_gives_the_environment_free_and_the_next_run_goes_on() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    four_generations(&world, &machine).await;
    let live = world.dags();
    let options = machine.options();
    let interruption = Arc::clone(&options.interruption);
    let environment = world.environment_with(key("hello", "dev"), &machine, options);
    let prunable = environment.prunable(&keep(1)).await.unwrap();
    assert_eq!(prunable.records, [1, 2, 3]);
    let deletes = |what: &str| {
        let log = world.calls.log();
        log.iter().filter(|call| call.what.contains(what)).count()
    };
    let first_record = format!("delete {RECORDS}");
    let wish = async {
        while deletes(&first_record) == 0 {
            tokio::task::yield_now().await;
        }
        interruption.raise();
    };
    let (stopped, ()) = tokio::join!(biased; environment.prune(prunable.clone()), wish);
    match stopped.unwrap_err() {
        EnvironmentError::PruningStopped { done, total } => {
            assert_eq!((done, total), (total - 2, prunable.tags.len() + 2 + 3));
        }
        other => panic!("{other}"),
    }
    // Only what was on its way.
    assert_eq!(deletes(&first_record), 1);
    assert_eq!(world.dags(), live);
    // Nobody has to wait, and nothing was left unfinished.
    let environment = world.environment(&machine);
    assert_eq!(environment.status().await.unwrap().state, State::Committed);
    let rest = environment.prunable(&keep(1)).await.unwrap();
    assert_eq!(rest.records, [2, 3]);
    environment.prune(rest).await.unwrap();
    let left: Vec<_> = world.bucket.contents(RECORDS).into_keys().collect();
    assert_eq!(left, [format!("{RECORDS}00000004.json")]);
}

#[tokio::test]
async fn a_lease_is_ended_by_the_number_that_it_names_and_by_no_other() {
    use forebay::environment::Unlocked;

    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1", "one", &[("daily", "a")]);
    world.deploy(&machine, &first).await.unwrap();
    let other = Machine::new("ben");
    let environment = world.environment(&other);
    assert_eq!(environment.unlock(1).await.unwrap(), Unlocked::Free);

    // Killed while it writes to dags/.
    let second = wish("2", "two", &[("daily", "b")]);
    world.calls.reset();
    let counted = World::new();
    counted.deploy(&machine, &first).await.unwrap();
    counted.calls.reset();
    counted.deploy(&machine, &second).await.unwrap();
    let log = counted.calls.log();
    let upload = log
        .iter()
        .position(|call| call.what.starts_with("write dags/"));
    world
        .calls
        .strike(upload.unwrap(), Moment::After, Fault::Die);
    tokio::select! {
        biased;
        () = world.calls.killed() => {}
        _ = world.deploy(&machine, &second) => panic!("it was not killed"),
    }
    world.calls.reset();
    let held = world.deploy(&other, &second).await.unwrap_err();
    assert!(matches!(held, EnvironmentError::Held { generation: 2, .. }));

    match environment.unlock(1).await.unwrap_err() {
        EnvironmentError::OtherLock { held, holder, .. } => {
            assert_eq!((held, holder.as_str()), (2, "anna"));
        }
        wrong => panic!("{wrong}"),
    }
    assert!(world.calls.writes().is_empty());
    let holder = "anna".to_owned();
    let ended = environment.unlock(2).await.unwrap();
    assert_eq!(
        ended,
        Unlocked::Ended {
            holder: holder.clone()
        }
    );
    let expired = environment.unlock(2).await.unwrap();
    assert_eq!(expired, Unlocked::Expired { holder });
    world.deploy(&other, &second).await.unwrap();
    assert_eq!(world.dags(), second.files());
}
