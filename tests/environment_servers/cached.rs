//! What was left unfinished is ended by a machine that has nothing, where the bucket has lost the
//! bytes of DAG files and a cache has them.

use std::path::Path;

use tokio::process::Command;

use crate::faulty_proxy::{Fault, Struck};
use crate::scene::{Files, Place, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bucket_has_lost_comes_from_a_cache() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    // What a rollback asks for: the generation's record, HEAD, the two files that are replaced.
    let place = scene.place("probed").await;
    two_generations(&place, cache.path()).await;
    scene.requests.heal();
    place.json(scene.before.path(), &["rollback"]).await;
    let requests = scene.requests.requests();
    let numbers = requests.iter().enumerate();
    let writes = numbers.filter(|(_, what)| what.starts_with("POST "));
    let writes: Vec<_> = writes.map(|(number, _)| number).collect();
    let [_, head, _, last_upload, _] = writes[..] else {
        panic!("{requests:?}")
    };

    for (command, at) in [("resume", head), ("abort", last_upload)] {
        let place = scene.place(command).await;
        let [first, second] = two_generations(&place, cache.path()).await;
        let rollback = place.command(scene.before.path(), &["rollback"]);
        let here = place
            .kill(rollback, Struck::Number(at), Fault::StallAfter)
            .await;
        let left = place.dags().await;
        place.lose_objects().await;

        let store = tempfile::tempdir().unwrap();
        let on_an_empty_machine = || {
            let mut run = place.command(scene.before.path(), &[command]);
            run.env("FOREBAY_STORE", store.path());
            run
        };
        // Without a cache it is refused before anything changes.
        let refused = place.refused(on_an_empty_machine).await;
        assert_eq!(refused.status, 7, "{here}: {}", refused.stderr);
        assert!(refused.stderr.contains("is lost"), "{}", refused.stderr);
        assert!(place.dags().await == left, "{here}");

        let ended = place
            .repeated(|| with_cache(on_an_empty_machine(), cache.path()))
            .await;
        assert_eq!(ended["generation"], 3, "{here}");
        assert_eq!(ended["live"], command == "resume", "{here}");
        let expected = if command == "resume" { first } else { second };
        let files = place.dags().await;
        assert!(files == expected, "{here}: {:?}", files.keys());
        place.assert_images_are_there(&files).await;
    }
}

fn with_cache(mut command: Command, cache: &Path) -> Command {
    command
        .env("FOREBAY_CACHE", format!("file://{}", cache.display()))
        .env("FOREBAY_CACHE_UNSIGNED", "1");
    command
}

/// Two deploys, which are brought to the cache. Gives the files of each.
async fn two_generations(place: &Place<'_>, cache: &Path) -> [Files; 2] {
    let mut files = Vec::new();
    for project in [&place.scene.before, &place.scene.after] {
        let deploy = ["deploy", "--start-time", "2026-01-31", "--cache-write"];
        let deploy = || with_cache(place.command(project.path(), &deploy), cache);
        place.repeated(deploy).await;
        files.push(place.dags().await);
    }
    files.try_into().unwrap()
}
