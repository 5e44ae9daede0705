//! Rollbacks: a new generation of an old set, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;

use fakes::fake_registry::FakeRegistry;
use fakes::world::{self, Machine, Scope, Wish, World, image_digest, wish};
use forebay::environment::{Action, EnvironmentError};

async fn three_generations(world: &World, machine: &Machine) -> [Wish; 3] {
    let sets = [
        wish("1.0", "one", &[("daily", "a"), ("hourly", "b")]),
        wish("1.1", "two", &[("daily", "a2"), ("weekly", "c")]),
        wish("1.2", "three", &[("daily", "a3")]),
    ];
    for set in &sets {
        world.deploy(machine, set).await.unwrap();
    }
    world.calls.reset();
    sets
}

#[tokio::test]
async fn a_rollback_restores_the_previous_set_byte_for_byte() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [_, second, _] = three_generations(&world, &machine).await;
    let applied = world.rollback(&machine, None).await.unwrap();
    assert_eq!((applied.generation, applied.previous), (4, Some(3)));
    assert_eq!(world.dags(), second.files());

    let history = world.environment(&machine).history(None).await.unwrap();
    let record = &history[0];
    assert_eq!(record.action, Action::Rollback);
    assert_eq!(record.rollback_of, Some(2));
    assert_eq!(record.image, image_digest("two"));
    assert_eq!(record.version.as_str(), "1.1");
    let numbers: Vec<_> = history.iter().map(|record| record.generation).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
}

#[tokio::test]
async fn a_rollback_asks_the_registry_once_and_writes_nothing_there() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    three_generations(&world, &machine).await;
    world.rollback(&machine, None).await.unwrap();
    let log = world.calls.log();
    let asked: Vec<_> = log.iter().filter(|c| c.what.contains("manifest")).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].what, "HEAD manifest forebay-hello_dev-2");
    assert!(!log.iter().any(|call| call.what.contains("/objects/")));
}

#[tokio::test]
async fn one_rollback_after_another_leads_further_back() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [first, ..] = three_generations(&world, &machine).await;
    world.rollback(&machine, None).await.unwrap();
    world.rollback(&machine, None).await.unwrap();
    assert_eq!(world.dags(), first.files());
    let error = world.rollback(&machine, None).await.unwrap_err();
    match error {
        EnvironmentError::NoRollbackTarget { generation, usable } => {
            assert_eq!(generation, None);
            assert_eq!(usable, [4, 3, 2, 1]);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_generation_can_be_named() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [first, _, third] = three_generations(&world, &machine).await;
    world.rollback(&machine, Some(1)).await.unwrap();
    assert_eq!(world.dags(), first.files());
    // And forth again, if somebody says so.
    world.rollback(&machine, Some(3)).await.unwrap();
    assert_eq!(world.dags(), third.files());
    assert!(!world.rollback(&machine, Some(3)).await.unwrap().changed);
    match world.rollback(&machine, Some(99)).await.unwrap_err() {
        EnvironmentError::NoRollbackTarget { generation, .. } => {
            assert_eq!(generation, Some(99));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn any_machine_can_roll_back() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [_, second, _] = three_generations(&world, &machine).await;
    let other = Machine::new("a machine that has seen nothing");
    world.rollback(&other, None).await.unwrap();
    assert_eq!(world.dags(), second.files());
}

#[tokio::test]
async fn an_image_that_lost_its_tag_gets_a_new_one() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    three_generations(&world, &machine).await;
    world.registry.untag("forebay-hello_dev-2");
    world.rollback(&machine, None).await.unwrap();
    assert_eq!(
        world.registry.tagged("forebay-hello_dev-4"),
        Some(image_digest("two"))
    );
    let record = &world.environment(&machine).history(None).await.unwrap()[0];
    assert_eq!(record.images[0].retention_tag, "forebay-hello_dev-4");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_with_what_can() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [.., third] = three_generations(&world, &machine).await;
    world.registry.collect(&image_digest("two"));
    match world.rollback(&machine, None).await.unwrap_err() {
        EnvironmentError::RollbackUnavailable {
            generation,
            missing,
            usable,
        } => {
            assert_eq!(generation, 2);
            let image = format!("the image registry.test/hello@{}", image_digest("two"));
            assert_eq!(missing, [image]);
            assert_eq!(usable, [1]);
        }
        other => panic!("{other}"),
    }
    assert!(world.calls.writes().is_empty());
    assert_eq!(world.dags(), third.files());
}

#[tokio::test]
async fn bytes_that_the_bucket_lost_come_from_the_store_or_not_at_all() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [_, second, _] = three_generations(&world, &machine).await;
    for key in world.bucket.contents("forebay/v1/hello/objects/").keys() {
        world.bucket.remove(key);
    }
    let other = Machine::new("a machine that has seen nothing");
    match world.rollback(&other, None).await.unwrap_err() {
        EnvironmentError::RollbackUnavailable { missing, .. } => {
            let files = second.files();
            let expected: Vec<_> = files.keys().map(|key| format!("the file {key}")).collect();
            let mut missing = missing;
            missing.sort();
            assert_eq!(missing, expected);
        }
        other => panic!("{other}"),
    }
    world.rollback(&machine, None).await.unwrap();
    assert_eq!(world.dags(), second.files());
}

#[tokio::test]
async fn a_rollback_to_several_images_keeps_all_of_them() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", &[("daily", "a"), ("hourly", "b")]);
    world.deploy(&machine, &first).await.unwrap();
    let mixed = wish("1.1", "two", &[("daily", "a2")]).scope(Scope::TheseWorkflows);
    world.deploy(&machine, &mixed).await.unwrap();
    let files = world.dags();
    world
        .deploy(&machine, &wish("1.2", "three", &[("daily", "x")]))
        .await
        .unwrap();
    for tag in ["forebay-hello_dev-1", "forebay-hello_dev-2"] {
        world.registry.untag(tag);
    }
    world.rollback(&machine, None).await.unwrap();
    assert_eq!(world.dags(), files);
    let tagged =
        ["forebay-hello_dev-4", "forebay-hello_dev-4.1"].map(|tag| world.registry.tagged(tag));
    for name in ["one", "two"] {
        assert!(tagged.contains(&Some(image_digest(name))), "{name}");
    }
}

#[tokio::test]
async fn a_rollback_puts_the_versions_tag_back_where_files_name_their_image_by_it() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = |image| wish("1.0", image, &[("daily", "a")]).by_tag();
    world.deploy(&machine, &set("one")).await.unwrap();
    assert!(world.deploy(&machine, &set("two")).await.unwrap().changed);
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("two")));
    let other = Machine::new("a machine that has seen nothing");
    let applied = world.rollback(&other, None).await.unwrap();
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("one")));
    let history = world.environment(&machine).history(None).await.unwrap();
    let images = history.iter().map(|record| {
        let dag = record.dags.values().next().unwrap();
        assert_eq!(dag.image_tag.as_deref(), Some("1.0"));
        dag.image
    });
    let images: Vec<_> = images.collect();
    assert_eq!(images, ["one", "two", "one"].map(image_digest));
    assert_eq!(applied.rollback_of, Some(1));
    // And forth again.
    world.rollback(&machine, Some(2)).await.unwrap();
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("two")));
}

#[tokio::test]
async fn a_moved_tag_moves_what_the_files_run() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = |image| wish("1.0", image, &[("daily", "a")]).by_tag();
    world.deploy(&machine, &set("one")).await.unwrap();
    let image_alone = set("two").scope(Scope::ImageAlone);
    world.deploy(&machine, &image_alone).await.unwrap();
    let history = world.environment(&machine).history(None).await.unwrap();
    let dag = history[0].dags.values().next().unwrap();
    assert_eq!(dag.image, image_digest("two"));
    assert!(!world.deploy(&machine, &set("two")).await.unwrap().changed);
    world.rollback(&machine, None).await.unwrap();
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("one")));
}

#[tokio::test]
async fn an_image_in_another_repository_is_not_proven_here() {
    let (mut world, machine) = (World::new(), Machine::new("anna"));
    three_generations(&world, &machine).await;
    let calls = std::sync::Arc::clone(&world.calls);
    let moved = FakeRegistry::of("registry.test/new", calls);
    world.registry = std::sync::Arc::new(moved);
    match world.rollback(&machine, None).await.unwrap_err() {
        EnvironmentError::RollbackUnavailable { missing, .. } => {
            assert_eq!(missing.len(), 1);
            let option = "--docker-repository registry.test/hello";
            assert!(missing[0].contains(option), "{}", missing[0]);
            assert!(missing[0].contains("registry.test/new"), "{}", missing[0]);
        }
        other => panic!("{other}"),
    }
    assert!(world.calls.writes().is_empty());
}

#[tokio::test]
async fn a_rollback_holds_against_the_same_set_and_lets_a_new_one_pass() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let [_, second, third] = three_generations(&world, &machine).await;
    world.rollback(&machine, Some(1)).await.unwrap();
    world.calls.reset();
    let ci = Machine::new("a build server that knows of no rollback");
    for bad in [&second, &third] {
        match world.deploy(&ci, bad).await.unwrap_err() {
            EnvironmentError::RolledAway { generation, holder } => {
                assert_eq!((generation, holder.as_str()), (4, "anna"));
            }
            other => panic!("{other}"),
        }
    }
    // The same under another version's name is the same.
    let renamed = Wish {
        version: "1.3",
        ..third.clone()
    };
    assert!(world.deploy(&ci, &renamed).await.is_err());
    assert!(world.calls.writes().is_empty());

    let insisting = forebay::environment::Options {
        allow_older: true,
        ..ci.options()
    };
    let environment = world.environment_with(world::key("hello", "dev"), &ci, insisting);
    let live = environment.observe(None).await.unwrap();
    let plan = environment.plan(live, third.desired(), &|_, _| None).await;
    assert!(plan.unwrap().obstacles().is_empty());

    let mended = wish("1.3", "four", &[("daily", "a3")]);
    assert!(world.deploy(&ci, &mended).await.unwrap().changed);
    // That ends it: what is newer is for git to say.
    assert!(world.deploy(&ci, &third).await.unwrap().changed);
}

/// A DAG file as BigFlow writes it, in what matters here.
fn dag_text(workflow: &str, version: &str, start: &str, date: &str) -> String {
    format!(
        "# bigflow-workflow:  \t{workflow}\n# bigflow-startdate: \t{start}\n\ndag = DAG(\n    '{workflow}__v{version}__{}',\n    start_date=datetime.datetime({date}),\n    schedule_interval='@hourly',\n)\n",
        start.replace(['-', 'T', ':'], "_")
    )
}

fn of_files(wish: &Wish, date: &str) -> forebay::environment::Desired {
    let mut desired = wish.desired();
    let forebay::environment::DesiredDags::All(dags) = &mut desired.dags else {
        panic!("not all")
    };
    for dag in dags {
        let workflow = dag.workflow.as_str();
        dag.bytes = dag_text(workflow, wish.version, "2026-01-02T03:00:00", date).into_bytes();
        let name = format!("{workflow}__v{}__2026_01_02_03_00_00_dag.py", wish.version);
        dag.file_name = name.parse().unwrap();
    }
    desired
}

#[tokio::test]
async fn dags_that_come_back_catch_up_or_get_a_new_start() {
    use forebay::environment::RollbackStart;

    let (world, machine) = (World::new(), Machine::new("anna"));
    let environment = world.environment(&machine);
    let deploy = async |wish: &Wish, date: &str| {
        let live = environment.observe(None).await.unwrap();
        let desired = of_files(wish, date);
        let plan = environment.plan(live, desired, &|_, _| None).await;
        environment.apply(plan.unwrap()).await.unwrap()
    };
    // Both rules of BigFlow's: the midnight before the last, and some hours before.
    deploy(
        &wish("1", "one", &[("daily", "a"), ("kept", "k")]),
        "2026, 1, 1, 0, 0",
    )
    .await;
    deploy(
        &wish("2", "two", &[("daily", "b"), ("kept", "k")]),
        "2026, 1, 2, 1, 0",
    )
    .await;
    let files = world.dags();

    // Exactly: the very files, and what Airflow will make of them.
    let back = async |start| {
        let live = environment.observe(None).await.unwrap();
        environment.plan_rollback_with(live, Some(1), start).await
    };
    let plan = back(RollbackStart::Exact).await.unwrap();
    let returning = &plan.summary.returning;
    assert_eq!(returning.len(), 2);
    assert_eq!(returning[0].workflow.as_str(), "daily");
    assert_eq!(
        returning[0].dag_id.as_deref(),
        Some("daily__v1__2026_01_02_03_00_00")
    );
    assert_eq!(returning[0].schedule.as_deref(), Some("'@hourly'"));
    assert!(returning[0].runs.is_some_and(|runs| runs <= 1));

    // With a new start: other ids, other dates, and the same workflows.
    let at = "2026-05-06T07:00:00".parse().unwrap();
    let plan = back(RollbackStart::At(at)).await.unwrap();
    assert!(plan.summary.returning.is_empty());
    let applied = environment.apply(plan).await.unwrap();
    assert_eq!(applied.rollback_of, Some(1));
    let text = dag_text("daily", "1", "2026-05-06T07:00:00", "2026, 5, 5, 0, 0");
    let dags = world.dags();
    let key = "dags/daily__v1__2026_05_06_07_00_00_dag.py";
    assert_eq!(dags[key], text.as_bytes());
    assert_eq!(dags.len(), 2);
    let history = environment.history(None).await.unwrap();
    assert_eq!(history[0].state(), history[2].state());

    // The second rule; and any machine can go on from there.
    let other = Machine::new("a machine that has seen nothing");
    let there = world.environment(&other);
    let live = there.observe(None).await.unwrap();
    let start = RollbackStart::At(at);
    let plan = there
        .plan_rollback_with(live, Some(2), start)
        .await
        .unwrap();
    there.apply(plan).await.unwrap();
    let text = dag_text("daily", "2", "2026-05-06T07:00:00", "2026, 5, 6, 5, 0");
    let key = "dags/daily__v2__2026_05_06_07_00_00_dag.py";
    assert_eq!(world.dags()[key], text.as_bytes());
    world.rollback(&machine, Some(2)).await.unwrap();
    assert_eq!(world.dags(), files);
}

#[tokio::test]
async fn a_start_that_only_the_projects_code_can_tell_is_unavailable_anew() {
    use forebay::environment::RollbackStart;

    let (world, machine) = (World::new(), Machine::new("anna"));
    let environment = world.environment(&machine);
    for (version, date) in [("1", "2020, 1, 1, 0, 0"), ("2", "2026, 1, 1, 0, 0")] {
        let live = environment.observe(None).await.unwrap();
        let desired = of_files(&wish(version, "one", &[("daily", version)]), date);
        let plan = environment.plan(live, desired, &|_, _| None).await;
        environment.apply(plan.unwrap()).await.unwrap();
    }
    world.calls.reset();
    let live = environment.observe(None).await.unwrap();
    let start = RollbackStart::At("2026-05-06T07:00:00".parse().unwrap());
    match environment.plan_rollback_with(live, None, start).await {
        Err(EnvironmentError::RollbackUnavailable {
            missing, usable, ..
        }) => {
            assert!(
                missing[0].starts_with("a new start for daily"),
                "{missing:?}"
            );
            assert_eq!(usable, [1]);
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was planned"),
    }
    assert!(world.calls.writes().is_empty());
}
