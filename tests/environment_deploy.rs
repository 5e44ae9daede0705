//! Deploys: what is written, in which order, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;

use fakes::world::{
    self, Machine, Scope, Wish, World, deploy, deploy_if, file_name, image_digest, key, wish,
};
use forebay::environment::{Action, DriftKind, EnvironmentError, Options, State};

const TWO: &[(&str, &str)] = &[("daily", "a"), ("hourly", "b")];

#[tokio::test]
async fn the_first_deploy_writes_in_the_stated_order() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    let applied = world.deploy(&machine, &first).await.unwrap();
    assert_eq!((applied.generation, applied.previous), (1, None));
    assert_eq!((applied.uploaded, applied.deleted), (2, 0));
    assert_eq!(world.dags(), first.files());
    assert_eq!(
        world.registry.tagged("forebay-hello_dev-1"),
        Some(image_digest("one"))
    );
    assert_eq!(world.registry.tagged("1.0"), Some(image_digest("one")));

    let kinds: Vec<&str> = [
        "PUT blob",
        "PUT manifest 1.0",
        "write forebay/v1/hello/objects/",
        "write forebay/v1/hello/dev/generations/00000001.json",
        "PUT manifest forebay-hello_dev-1",
        "write forebay/v1/hello/dev/HEAD.json",
        "write dags/",
        "write forebay/v1/hello/dev/HEAD.json",
    ]
    .into();
    let mut writes = world.calls.writes();
    writes.dedup_by_key(|write| kinds.iter().position(|kind| write.starts_with(kind)));
    for (write, kind) in writes.iter().zip(&kinds) {
        assert!(write.starts_with(kind), "{write} instead of {kind}");
    }
    assert_eq!(writes.len(), kinds.len());
    // Nothing is called a success that was not listed again.
    let log = world.calls.log();
    assert_eq!(log[log.len() - 2].what, "list dags/");
}

#[tokio::test]
async fn an_unchanged_deploy_is_three_requests_and_no_write() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = world.deploy(&machine, &wish("1.0", "one", TWO)).await;
    let generation = first.unwrap().generation;
    // Another version, so other file names: the identities are the same.
    let again = wish("1.1", "one", TWO);
    for machine in [machine, Machine::new("a machine that has seen nothing")] {
        world.calls.reset();
        let applied = world.deploy(&machine, &again).await.unwrap();
        assert!(!applied.changed);
        assert_eq!(applied.generation, generation);
        let mut asked: Vec<_> = world
            .calls
            .log()
            .into_iter()
            .map(|call| call.what)
            .collect();
        asked.sort();
        let image = format!("HEAD manifest {}", image_digest("one"));
        assert_eq!(
            asked,
            [
                image.as_str(),
                "list dags/",
                "read forebay/v1/hello/dev/HEAD.json"
            ]
        );
        assert!(world.calls.writes().is_empty());
    }
}

#[tokio::test]
async fn only_what_changed_is_written() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    world.deploy(&machine, &first).await.unwrap();
    world.calls.reset();

    let second = wish("1.1", "one", &[("daily", "changed"), ("hourly", "b")]);
    let applied = world.deploy(&machine, &second).await.unwrap();
    assert_eq!((applied.uploaded, applied.deleted), (1, 1));
    let dags = world.dags();
    let kept = format!("dags/{}", file_name("hourly", "1.0"));
    let new = format!("dags/{}", file_name("daily", "1.1"));
    assert_eq!(dags.keys().collect::<Vec<_>>(), [&new, &kept]);
    assert_eq!(dags[&kept], first.files()[&kept]);
    assert_eq!(dags[&new], second.files()[&new]);

    // One object, one file, three writes of records; the image only gets its new name.
    let writes = world.calls.writes();
    assert_eq!(writes.iter().filter(|w| w.contains("/objects/")).count(), 1);
    assert_eq!(writes.iter().filter(|w| w.contains("dags/")).count(), 2);
    assert_eq!(writes.iter().filter(|w| w.contains("/dev/")).count(), 3);
    assert_eq!(writes.iter().filter(|w| w.contains("blob")).count(), 0);
    let deleted = writes.iter().position(|w| w.starts_with("delete")).unwrap();
    assert_eq!(deleted, writes.len() - 2, "deletes come last, before HEAD");
}

#[tokio::test]
async fn a_workflow_that_is_gone_is_retired() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    world
        .deploy(&machine, &wish("1.0", "one", TWO))
        .await
        .unwrap();
    let less = wish("1.0", "one", &[("daily", "a")]);
    let environment = world.environment(&machine);
    let live = environment.observe(None).await.unwrap();
    let plan = environment.plan(live, less.desired(), &|_, _| None).await;
    let plan = plan.unwrap();
    assert_eq!(plan.summary.retired, ["hourly".parse().unwrap()]);
    assert_eq!(plan.summary.reused, ["daily".parse().unwrap()]);
    assert_eq!(plan.summary.foreign, 2);
    environment.apply(plan).await.unwrap();
    assert_eq!(world.dags(), less.files());
}

#[tokio::test]
async fn an_empty_set_is_refused() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    world
        .deploy(&machine, &wish("1.0", "one", TWO))
        .await
        .unwrap();
    let error = world.deploy(&machine, &wish("1.1", "two", &[])).await;
    assert!(
        matches!(error, Err(EnvironmentError::EmptySet)),
        "{error:?}"
    );
    assert_eq!(world.dags().len(), 2);
}

#[tokio::test]
async fn an_image_alone_leaves_each_dag_its_image() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    world.deploy(&machine, &first).await.unwrap();
    let second = wish("1.1", "two", TWO).scope(Scope::ImageAlone);
    world.deploy(&machine, &second).await.unwrap();
    assert_eq!(world.dags(), first.files());

    let history = world.environment(&machine).history(None).await.unwrap();
    let record = &history[0];
    assert_eq!(record.action, Action::DeployImage);
    assert_eq!(record.image, image_digest("two"));
    assert!(
        record
            .dags
            .values()
            .all(|dag| dag.image == image_digest("one"))
    );
    let mut tags: Vec<_> = record
        .images
        .iter()
        .map(|i| i.retention_tag.as_str())
        .collect();
    tags.sort();
    assert_eq!(tags, ["forebay-hello_dev-1", "forebay-hello_dev-2"]);
}

#[tokio::test]
async fn dags_alone_need_their_image_in_the_registry() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let dags = wish("1.0", "one", TWO).scope(Scope::DagsAlone);
    let error = world.deploy(&machine, &dags).await.unwrap_err();
    assert!(
        matches!(error, EnvironmentError::ImageMissing { .. }),
        "{error}"
    );
    assert!(world.calls.writes().is_empty());

    let image = wish("1.0", "one", &[]).scope(Scope::ImageAlone);
    world.deploy(&machine, &image).await.unwrap();
    world.deploy(&machine, &dags).await.unwrap();
    assert_eq!(world.dags(), dags.files());
    let history = world.environment(&machine).history(None).await.unwrap();
    assert_eq!(history[0].action, Action::DeployDags);
}

#[tokio::test]
async fn one_workflow_alone_leaves_the_others() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    world.deploy(&machine, &first).await.unwrap();
    let second = wish("1.1", "two", &[("daily", "new")]).scope(Scope::TheseWorkflows);
    world.deploy(&machine, &second).await.unwrap();

    let mut expected = second.files();
    let kept = format!("dags/{}", file_name("hourly", "1.0"));
    expected.insert(kept.clone(), first.files()[&kept].clone());
    assert_eq!(world.dags(), expected);
    let record = &world.environment(&machine).history(None).await.unwrap()[0];
    assert_eq!(record.images.len(), 2);
}

#[tokio::test]
async fn an_image_that_the_registry_lost_is_pushed_again() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    world.registry.collect(&image_digest("one"));
    let applied = world.deploy(&machine, &set).await.unwrap();
    assert!(applied.changed);
    assert!(world.registry.has(&image_digest("one")));
    assert_eq!(
        world.registry.tagged("forebay-hello_dev-2"),
        Some(image_digest("one"))
    );
    assert_eq!(applied.uploaded + applied.deleted, 0);
}

#[tokio::test]
async fn drift_stops_a_deploy_until_it_may_be_mended() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    let daily = format!("dags/{}", file_name("daily", "1.0"));
    let hourly = format!("dags/{}", file_name("hourly", "1.0"));
    world.bucket.put(&daily, b"edited by hand");
    world.bucket.remove(&hourly);

    for wish in [&set, &wish("1.1", "two", TWO)] {
        world.calls.reset();
        match world.deploy(&machine, wish).await {
            Err(EnvironmentError::Drift { objects }) => {
                let drifted: Vec<_> = objects
                    .iter()
                    .map(|drifted| (drifted.key.as_str(), drifted.change))
                    .collect();
                assert_eq!(
                    drifted,
                    [
                        (daily.as_str(), DriftKind::Changed),
                        (hourly.as_str(), DriftKind::Gone)
                    ]
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(world.calls.writes().is_empty());
    }
    let status = world.environment(&machine).status().await.unwrap();
    assert_eq!(status.drift.len(), 2);

    let mending = Options {
        restore_drift: true,
        ..machine.options()
    };
    let environment = world.environment_with(key("hello", "dev"), &machine, mending);
    let applied = deploy(&environment, &set).await.unwrap();
    assert_eq!(applied.uploaded, 2);
    assert_eq!(world.dags(), set.files());
    assert!(!world.deploy(&machine, &set).await.unwrap().changed);
}

#[tokio::test]
async fn a_key_that_is_not_ours_is_refused_before_anything_is_written() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    world.calls.reset();

    // Another project whose files would have the same names, even with the same bytes.
    let other = world.environment_with(key("other", "dev"), &machine, machine.options());
    match deploy(&other, &set).await {
        Err(EnvironmentError::ForeignKeys { keys, .. }) => {
            assert_eq!(keys, set.files().into_keys().collect::<Vec<_>>());
        }
        other => panic!("{other:?}"),
    }
    assert!(world.calls.writes().is_empty());
}

#[tokio::test]
async fn two_projects_share_a_bucket() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let ours = wish("1.0", "one", &[("ours", "a")]);
    let theirs = wish("1.0", "two", &[("theirs", "a")]);
    world.deploy(&machine, &ours).await.unwrap();
    let other = world.environment_with(key("other", "dev"), &machine, machine.options());
    deploy(&other, &theirs).await.unwrap();
    world
        .deploy(&machine, &wish("1.1", "one", &[("ours", "b")]))
        .await
        .unwrap();
    let dags = world.dags();
    assert_eq!(dags.len(), 2);
    assert!(theirs.files().keys().all(|key| dags.contains_key(key)));
    assert!(!deploy(&other, &theirs).await.unwrap().changed);
}

#[tokio::test]
async fn an_older_commit_does_not_overwrite_a_newer_one() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    // Commits are named so that the alphabet is their order.
    let is_ancestor = |older: &str, newer: &str| Some(older <= newer);
    let environment = world.environment(&machine);
    let older = wish("1.0", "one", TWO).commit("a");
    let newer = wish("1.1", "two", TWO).commit("b");
    deploy_if(&environment, &newer, &is_ancestor).await.unwrap();
    world.calls.reset();
    match deploy_if(&environment, &older, &is_ancestor).await {
        Err(EnvironmentError::OlderCommit { live, ours, .. }) => {
            assert_eq!((live.as_str(), ours.as_str()), ("b", "a"));
        }
        other => panic!("{other:?}"),
    }
    assert!(world.calls.writes().is_empty());

    let insisting = Options {
        allow_older: true,
        ..machine.options()
    };
    let insisting = world.environment_with(key("hello", "dev"), &machine, insisting);
    deploy_if(&insisting, &older, &is_ancestor).await.unwrap();
    // Back to the newer one, by rollback: it is as new as it was.
    world.rollback(&machine, None).await.unwrap();
    match deploy_if(&environment, &older, &is_ancestor).await {
        Err(EnvironmentError::OlderCommit { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_clone_that_is_older_than_the_live_commit_is_told_by_the_record() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let knows_nothing = |_: &str, _: &str| None;
    let environment = world.environment(&machine);
    let newer = wish("1.1", "two", TWO).commit("b");
    let live = environment.observe(None).await.unwrap();
    let mut plan = environment
        .plan(live, newer.desired(), &knows_nothing)
        .await
        .unwrap();
    plan.note(vec!["a".to_owned()], None);
    environment.apply(plan).await.unwrap();

    let slow = Machine::new("a slow one");
    let other = world.environment(&slow);
    match deploy_if(&other, &wish("1.0", "one", TWO).commit("a"), &knows_nothing).await {
        Err(EnvironmentError::OlderCommit { generation, .. }) => assert_eq!(generation, 1),
        other => panic!("{other:?}"),
    }
    // Of a commit that is on neither side nobody can tell.
    let side = wish("1.0", "one", TWO).commit("c");
    assert!(
        deploy_if(&other, &side, &knows_nothing)
            .await
            .unwrap()
            .changed
    );
}

#[tokio::test]
async fn what_was_deployed_before_it_was_committed_is_recorded_anew_once() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let environment = world.environment(&machine);
    let dirty = |wish: &Wish| {
        let mut desired = wish.desired();
        desired.git.as_mut().unwrap().dirty = true;
        desired
    };
    let deploy_desired = async |desired| {
        let live = environment.observe(None).await.unwrap();
        let plan = environment.plan(live, desired, &|_, _| None).await;
        environment.apply(plan.unwrap()).await.unwrap()
    };
    let set = wish("1.0", "one", TWO).commit("a");
    assert!(deploy_desired(dirty(&set)).await.changed);
    assert!(!deploy_desired(dirty(&set)).await.changed);

    let committed = wish("1.0", "one", TWO).commit("b");
    world.calls.reset();
    let applied = deploy_desired(committed.desired()).await;
    assert!(applied.changed);
    assert_eq!((applied.uploaded, applied.deleted), (0, 0));
    // The record, and HEAD twice.
    assert_eq!(world.calls.writes().len(), 3, "{:?}", world.calls.writes());
    let history = environment.history(None).await.unwrap();
    let commits = history.iter().map(|record| record.git.clone().unwrap());
    let commits: Vec<_> = commits.map(|git| (git.commit, git.dirty)).collect();
    assert_eq!(commits, [("b".to_owned(), false), ("a".to_owned(), true)]);
    // Now nothing is to be recorded, neither here nor where nothing is known.
    assert!(!deploy_desired(committed.desired()).await.changed);
    assert!(!deploy_desired(dirty(&committed)).await.changed);
    let other = Machine::new("a machine that has seen nothing");
    assert!(!world.deploy(&other, &committed).await.unwrap().changed);
}

#[tokio::test]
async fn of_two_deploys_exactly_one_wins() {
    let mut winners = std::collections::BTreeSet::new();
    for round in 0..20 {
        let world = World::new();
        let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
        let base = wish("1.0", "one", TWO);
        // By neither of them: who knows what is live is quicker.
        world.deploy(&Machine::new("clara"), &base).await.unwrap();
        let of_anna = wish("1.1", "two", &[("daily", "of anna"), ("new", "x")]);
        let of_ben = wish("1.2", "three", &[("daily", "of ben"), ("hourly", "b")]);
        world.calls.shuffle(round);
        let anna_deploys = world.deploy(&anna, &of_anna);
        let ben_deploys = world.deploy(&ben, &of_ben);
        let (first, second) = if round % 2 == 0 {
            tokio::join!(anna_deploys, ben_deploys)
        } else {
            let (of_ben, of_anna) = tokio::join!(ben_deploys, anna_deploys);
            (of_anna, of_ben)
        };
        let (winner, name, loser) = match (first, second) {
            (Ok(_), Err(loser)) => (of_anna, "anna", loser),
            (Err(loser), Ok(_)) => (of_ben, "ben", loser),
            other => panic!("{other:?}"),
        };
        winners.insert(name);
        match loser {
            EnvironmentError::Lost { winner, .. } => assert_eq!(winner, name),
            EnvironmentError::Held { holder, .. } => assert_eq!(holder, name),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.dags(), winner.files());
        let status = world.environment(&ben).status().await.unwrap();
        assert_eq!(status.state, State::Committed);
        assert!(status.drift.is_empty());
    }
    // Else the rounds were all the same.
    assert_eq!(winners.len(), 2);
}

#[tokio::test]
async fn status_tells_what_is_live() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let environment = world.environment(&machine);
    let status = environment.status().await.unwrap();
    assert_eq!(status.state, State::Empty);
    assert!(status.live.is_none());

    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    let status = environment.status().await.unwrap();
    assert_eq!(status.state, State::Committed);
    assert_eq!(status.foreign, 2);
    let record = status.live.unwrap();
    assert_eq!(record.generation, 1);
    assert_eq!(record.created_by, "anna");
    assert_eq!(record.dags.len(), 2);
}

#[tokio::test]
async fn two_projects_in_one_repository_leave_each_other_their_tags() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    for (project, image, workflow) in [("hello", "one", "daily"), ("bye", "two", "hourly")] {
        let key = world::key(project, "dev");
        let environment = world.environment_with(key, &machine, machine.options());
        let set = wish("1.0", image, &[(workflow, "a")]);
        world::deploy(&environment, &set).await.unwrap();
    }
    for (tag, image) in [("forebay-hello_dev-1", "one"), ("forebay-bye_dev-1", "two")] {
        assert_eq!(world.registry.tagged(tag), Some(image_digest(image)));
    }
}

#[tokio::test]
async fn an_image_that_some_dags_still_ran_is_proven_before_all_do() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    world.deploy(&machine, &first).await.unwrap();
    let other = wish("1.0", "two", &[("daily", "x")]).scope(Scope::TheseWorkflows);
    world.deploy(&machine, &other).await.unwrap();
    // The record knows the first image, and the registry has lost it.
    world.registry.collect(&image_digest("one"));
    world.deploy(&machine, &first).await.unwrap();
    assert!(world.registry.has(&image_digest("one")));
}

#[tokio::test]
async fn a_plan_that_may_not_be_applied_is_shown_all_the_same() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO).commit("b");
    world.deploy(&machine, &first).await.unwrap();
    let changed = first.files().into_keys().next().unwrap();
    world.bucket.put(&changed, "changed by hand".as_bytes());
    world.calls.reset();

    let next = wish("1.1", "two", &[("daily", "a2"), ("weekly", "c")]).commit("a");
    let environment = world.environment(&machine);
    let live = environment
        .observe(Some(&image_digest("two")))
        .await
        .unwrap();
    let is_ancestor = |older: &str, newer: &str| Some(older <= newer);
    let plan = environment.plan(live, next.desired(), &is_ancestor).await;
    let plan = plan.unwrap();
    let summary = &plan.summary;
    let ids = |ids: &[forebay::project::WorkflowId]| {
        ids.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(ids(&summary.changed), "daily");
    assert_eq!(ids(&summary.added), "weekly");
    assert_eq!(ids(&summary.retired), "hourly");
    let bytes: usize = next.files().values().map(|bytes| bytes.len()).sum();
    assert_eq!((summary.uploads, summary.upload_bytes), (2, bytes as u64));
    assert_eq!(summary.deletes, 2);
    assert!(
        matches!(
            plan.obstacles(),
            [
                EnvironmentError::Drift { .. },
                EnvironmentError::OlderCommit { .. }
            ]
        ),
        "{:?}",
        plan.obstacles()
    );
    let forecast = environment.forecast(&plan).await.unwrap().unwrap();
    assert_eq!((forecast.layers_sent, forecast.layers_present), (1, 0));
    let blobs = bytes_of_image("two");
    assert_eq!(forecast.bytes(), blobs);
    // What the plan saw of the live image need not be fetched for the forecast.
    let calls = world.calls.log();
    let fetched = calls
        .iter()
        .filter(|call| call.what.starts_with("GET manifest"));
    assert_eq!(fetched.count(), 1, "{calls:?}");
    assert!(world.calls.writes().is_empty());
    match environment.apply(plan).await {
        Err(EnvironmentError::Drift { objects }) => assert_eq!(objects.len(), 1),
        other => panic!("{other:?}"),
    }
    assert!(world.calls.writes().is_empty());
}

fn bytes_of_image(name: &str) -> u64 {
    let blobs = world::image(name).blobs;
    blobs.iter().map(|blob| blob.descriptor().size).sum()
}
