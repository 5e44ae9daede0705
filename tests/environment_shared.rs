//! A bucket that others use too: whose objects are whose, and where ours lie.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;

use std::sync::{Arc, Mutex};

use fakes::faults::{Fault, Moment};
use fakes::world::{Machine, Scope, World, deploy, file_name, image_digest, key, wish};
use forebay::clock::SystemClock;
use forebay::environment::{DriftKind, Environment, EnvironmentError, Options};
use forebay::progress::{Event, Progress};

const TWO: &[(&str, &str)] = &[("daily", "a"), ("hourly", "b")];

fn of(workflow: &str, version: &str) -> String {
    format!("dags/{}", file_name(workflow, version))
}

fn restoring(world: &World, machine: &Machine) -> Environment {
    let options = Options {
        restore_drift: true,
        ..machine.options()
    };
    world.environment_with(key("hello", "dev"), machine, options)
}

fn in_folder(world: &World, machine: &Machine, prefix: &str) -> Environment {
    let options = Options {
        dags_prefix: prefix.parse().unwrap(),
        ..machine.options()
    };
    world.environment_with(key("hello", "dev"), machine, options)
}

#[tokio::test]
async fn who_owns_a_key_is_said_and_looked_up_only_then() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    // States that cannot be read name no owner, and are in nobody's way.
    world
        .bucket
        .put("forebay/v1/broken/dev/HEAD.json", b"{\"schema\":");
    world
        .bucket
        .put("forebay/v1/later/dev/HEAD.json", b"{\"schema\":99}");
    world.bucket.put("forebay/v1/HEAD.json", b"not even that");
    let hourly = wish("1.0", "two", &[("hourly", "b")]);
    let looked = |world: &World| {
        let log = world.calls.log();
        log.iter().any(|call| call.what == "list forebay/v1/")
    };
    assert!(!looked(&world));

    // Another environment, and another project; a file that is nobody's we know of.
    world.bucket.put(&of("weekly", "1.0"), b"by hand");
    let wanted = wish("1.0", "two", &[("hourly", "b"), ("weekly", "c")]);
    for (project, environment) in [("hello", "prod"), ("other", "dev")] {
        world.calls.reset();
        let other = key(project, environment);
        let other = world.environment_with(other, &machine, machine.options());
        let error = deploy(&other, &wanted).await.unwrap_err();
        let text = error.to_string();
        let EnvironmentError::ForeignKeys { keys, owners } = error else {
            panic!("{text}")
        };
        assert_eq!(keys, [of("hourly", "1.0"), of("weekly", "1.0")]);
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[&of("hourly", "1.0")], key("hello", "dev"));
        assert!(
            text.contains("(project hello, environment dev), dags/weekly"),
            "{text}"
        );
        assert!(looked(&world));
        assert!(world.calls.writes().is_empty());
    }
    // Once nobody owns them, they are still not ours.
    world
        .deploy(&machine, &wish("1.1", "one", &[("daily", "a")]))
        .await
        .unwrap();
    let other = world.environment_with(key("other", "dev"), &machine, machine.options());
    deploy(&other, &hourly).await.unwrap();
}

/// Where the owner cannot be looked up, what is in the way is said all the same.
#[tokio::test]
async fn a_look_up_of_owners_that_fails_hides_nothing() {
    let world = World::new();
    let machine = Machine::new("anna");
    world
        .deploy(&machine, &wish("1.0", "one", TWO))
        .await
        .unwrap();
    let wanted = wish("1.0", "two", &[("hourly", "b")]);
    let said = Arc::new(Heard::default());
    let other = Environment::new(
        key("other", "dev"),
        Arc::clone(&world.bucket) as _,
        Arc::clone(&world.registry) as _,
        machine.store(),
        Arc::new(SystemClock),
        Arc::clone(&said) as _,
        machine.options(),
    );
    // The listing of all states, the HEAD of the one that there is, its record.
    world.calls.reset();
    deploy(&other, &wanted).await.unwrap_err();
    assert_eq!(said.take(), [""; 0]);
    let calls: Vec<_> = world
        .calls
        .log()
        .into_iter()
        .map(|call| call.what)
        .collect();
    let begin = calls.iter().position(|what| what == "list forebay/v1/");
    let begin = begin.unwrap();
    assert_eq!(calls.len(), begin + 3, "{calls:?}");

    for (at, call) in calls.iter().enumerate().skip(begin) {
        world.calls.strike(at, Moment::Before, Fault::Fail);
        let error = deploy(&other, &wanted).await.unwrap_err();
        let EnvironmentError::ForeignKeys { keys, owners } = &error else {
            panic!("{}: {error}", call)
        };
        assert_eq!(keys, &[of("hourly", "1.0")], "{}", call);
        assert!(owners.is_empty(), "{}", call);
        let warnings = said.take();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let expected = "whose the keys are could not be looked up: ";
        assert!(warnings[0].starts_with(expected), "{warnings:?}");
        assert!(world.calls.writes().is_empty());
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Progress for Heard {
    fn report(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[tokio::test]
async fn what_somebody_wrote_anew_is_theirs_even_with_our_bytes() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    let daily = of("daily", "1.0");
    // Deleted by hand, and written by another project that builds the same file.
    world.bucket.remove(&daily);
    let other = world.environment_with(key("other", "dev"), &machine, machine.options());
    let theirs = wish("1.0", "one", &[("daily", "a")]);
    deploy(&other, &theirs).await.unwrap();

    // As long as it only stays, nothing is to be said.
    assert!(!world.deploy(&machine, &set).await.unwrap().changed);
    let status = world.environment(&machine).status().await.unwrap();
    assert!(status.drift.is_empty());
    // It is neither replaced nor deleted.
    world.calls.reset();
    for next in [
        wish("1.1", "two", TWO),
        wish("1.1", "one", &[("hourly", "b")]),
    ] {
        match world.deploy(&machine, &next).await {
            Err(EnvironmentError::Drift { objects }) => {
                assert_eq!(objects.len(), 1);
                assert_eq!(objects[0].key.as_str(), daily);
                assert_eq!(objects[0].change, DriftKind::Rewritten);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(world.calls.writes().is_empty());
    let insisting = restoring(&world, &machine);
    let less = wish("1.1", "one", &[("hourly", "b")]);
    assert_eq!(deploy(&insisting, &less).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn one_workflow_after_another_keeps_every_image_that_runs() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    world
        .deploy(
            &machine,
            &wish("1.0", "one", &[("a", "1"), ("b", "1"), ("c", "1")]),
        )
        .await
        .unwrap();
    for (version, image, workflow) in [("1.1", "two", "a"), ("1.2", "three", "b")] {
        let only = wish(version, image, &[(workflow, "2")]).scope(Scope::TheseWorkflows);
        let applied = world.deploy(&machine, &only).await.unwrap();
        assert_eq!((applied.uploaded, applied.deleted), (1, 1));
    }
    let history = world.environment(&machine).history(None).await.unwrap();
    let runs: Vec<_> = history[0]
        .dags
        .values()
        .map(|dag| (dag.workflow.as_str(), dag.image))
        .collect();
    assert_eq!(
        runs,
        [
            ("a", image_digest("two")),
            ("b", image_digest("three")),
            ("c", image_digest("one"))
        ]
    );
    assert_eq!(history[0].image, image_digest("three"));
    for image in &history[0].images {
        assert_eq!(
            world.registry.tagged(&image.retention_tag),
            Some(image.digest)
        );
    }
    assert_eq!(history[0].images.len(), 3);
    // The whole set again: only what still ran another image is written.
    let all = wish("1.2", "three", &[("a", "1"), ("b", "2"), ("c", "1")]);
    let applied = world.deploy(&machine, &all).await.unwrap();
    assert_eq!((applied.uploaded, applied.deleted), (2, 2));
    // And back to the mixture.
    world.rollback(&machine, None).await.unwrap();
    let dags = world.dags();
    assert!(dags.contains_key(&of("c", "1.0")), "{:?}", dags.keys());
}

#[tokio::test]
async fn a_folder_below_dags_can_be_the_environments() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let environment = in_folder(&world, &machine, "dags/team");
    let set = wish("1.0", "one", TWO);
    deploy(&environment, &set).await.unwrap();
    let names = |world: &World| world.dags().into_keys().collect::<Vec<_>>();
    let team =
        |workflow: &str, version: &str| format!("dags/team/{}", file_name(workflow, version));
    assert_eq!(names(&world), [team("daily", "1.0"), team("hourly", "1.0")]);
    // Only the folder is listed, and what is beside it is nobody's business.
    world.calls.reset();
    assert!(!deploy(&environment, &set).await.unwrap().changed);
    let log = world.calls.log();
    assert_eq!(log.len(), 3);
    assert!(log.iter().any(|call| call.what == "list dags/team/"));
    world.bucket.put("dags/team/other.py", b"not ours");
    assert_eq!(environment.status().await.unwrap().foreign, 1);
    world.bucket.remove("dags/team/other.py");

    // Another folder: everything moves there, although nothing else has changed.
    let moved = in_folder(&world, &machine, "dags/flow");
    let applied = deploy(&moved, &set).await.unwrap();
    assert_eq!((applied.uploaded, applied.deleted), (2, 2));
    let flow = |workflow: &str| format!("dags/flow/{}", file_name(workflow, "1.0"));
    assert_eq!(names(&world), [flow("daily"), flow("hourly")]);
    world.calls.reset();
    assert!(!deploy(&moved, &set).await.unwrap().changed);
    assert_eq!(world.calls.log().len(), 3);

    // Back to all of dags/: what is below it is still seen as ours.
    let all = world.environment(&machine);
    assert_eq!(all.status().await.unwrap().foreign, 2);
    deploy(&all, &set).await.unwrap();
    assert_eq!(world.dags(), set.files());

    // A rollback restores the very files, wherever they were.
    let back = moved.plan_rollback(moved.observe(None).await.unwrap(), Some(2));
    moved.apply(back.await.unwrap()).await.unwrap();
    assert_eq!(names(&world), [flow("daily"), flow("hourly")]);
    let back = moved.plan_rollback(moved.observe(None).await.unwrap(), Some(1));
    moved.apply(back.await.unwrap()).await.unwrap();
    assert_eq!(names(&world), [team("daily", "1.0"), team("hourly", "1.0")]);
    let status = moved.status().await.unwrap();
    assert!(status.drift.is_empty());
    // The next deploy brings them where they belong now.
    deploy(&moved, &set).await.unwrap();
    assert_eq!(names(&world), [flow("daily"), flow("hourly")]);
}
