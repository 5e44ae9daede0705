//! What is told of generations; how they come back, and go.

use serde_json::Value;

use crate::faulty_proxy::{Fault, Struck};
use crate::forebay_support::Finished;
use crate::scene::{Files, Place, Scene};

/// What a test reads from a document.
fn numbers(value: &Value) -> Vec<u64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_u64().unwrap()).collect()
}

fn names(value: &Value) -> Vec<&str> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_are_told_brought_back_unlocked_and_pruned() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let place = scene.place("told").await;
    let project = scene.after.path();
    let deploy = ["deploy", "--start-time", "2026-01-31"];
    place.json(scene.before.path(), &deploy).await;
    let first = place.dags().await;
    place.json(project, &deploy).await;
    let second = place.dags().await;

    let difference = place.json(project, &["diff"]).await;
    assert_eq!(
        (
            &difference["from"]["generation"],
            &difference["to"]["generation"]
        ),
        (&1.into(), &2.into())
    );
    assert_eq!(
        difference["dags"].as_array().unwrap().len(),
        3,
        "{difference}"
    );
    let files = difference["contents"]["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{difference}");
    assert_eq!(files[0]["name"], "flow/extra.py");

    // Exactly, and then as if it were deployed now.
    let back = place.json(project, &["rollback"]).await;
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(place.dags().await, first);
    let anew = place.json(project, &["rollback", "2", "--from-now"]).await;
    assert_eq!(names(&anew["added"]), ["extra"], "{anew}");
    let restarted = place.dags().await;
    assert_eq!(restarted.len(), second.len());
    let extra = |files: &Files| {
        let mut keys = files.keys().filter(|key| key.contains("extra"));
        keys.next().unwrap().clone()
    };
    assert_ne!(extra(&restarted), extra(&second));
    for (key, bytes) in &second {
        let stays = *key != extra(&second);
        assert_eq!(restarted.get(key) == Some(bytes), stays, "{key}");
    }
    place.assert_images_are_there(&restarted).await;

    unlock(&place).await;

    // All but what is live goes; this registry deletes no tags.
    let status = place.json(project, &["status"]).await;
    let live = status["generation"].as_u64().unwrap();
    let gc = ["gc", "--environment", "--keep", "1", "--grace", "0"];
    let would = place
        .json(project, &[&gc[..], &["--dry-run"]].concat())
        .await;
    let before = place.writes().await;
    let done = place.json(project, &gc).await;
    assert_eq!(numbers(&done["kept"]), [live]);
    assert_eq!(
        numbers(&done["generations"]),
        numbers(&would["generations"])
    );
    assert!(!names(&done["tags_left"]).is_empty(), "{done}");
    let after = place.writes().await;
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let (records, objects): (Vec<_>, Vec<_>) = gone.partition(|key| key.contains("/generations/"));
    assert_eq!(records.len(), numbers(&done["generations"]).len());
    assert_eq!(objects.len() as u64, done["objects"].as_u64().unwrap());
    assert!(
        objects.iter().all(|key| key.contains("/objects/")),
        "{objects:?}"
    );
    assert!(!records.is_empty() && !objects.is_empty());
    // What is live has all that it needs, and whoever has nothing of his own finds no way back.
    let status = place.json(project, &["status"]).await;
    for object in status["dags"].as_object().unwrap().values() {
        let key = format!("forebay/v1/flow/objects/{}", object.as_str().unwrap());
        assert!(after.contains_key(&key), "{key}");
    }
    let empty = tempfile::tempdir().unwrap();
    let mut command = place.command(project, &["rollback"]);
    let output = command.env("FOREBAY_STORE", empty.path()).output().await;
    assert_eq!(Finished::from(output.unwrap()).status, 8);
    assert_eq!(place.dags().await, first);
}

/// A deploy dies with a long lease: others wait, until somebody who knows ends its hold.
async fn unlock(place: &Place<'_>) {
    let project = place.scene.before.path();
    // It was rolled away.
    let mut command = place.command(
        project,
        &["deploy", "--start-time", "2026-01-31", "--allow-older"],
    );
    command.env("FOREBAY_LEASE_SECONDS", "3600");
    // Deletes come when everything is uploaded.
    place
        .kill(command, Struck::First("DELETE "), Fault::StallAfter)
        .await;

    let status = place.json(project, &["status"]).await;
    assert_eq!(status["state"], "applying", "{status}");
    assert_eq!(status["applying"]["held"], true);
    let generation = status["applying"]["generation"].as_u64().unwrap();
    let refused = place.run(project, &["deploy"]).await;
    assert_eq!(refused.status, 5, "{}", refused.stderr);
    let number = generation.to_string();
    assert!(
        refused.stderr.contains(&format!("forebay unlock {number}")),
        "{}",
        refused.stderr
    );
    let other = (generation - 1).to_string();
    assert_eq!(place.run(project, &["unlock", &other]).await.status, 6);
    let unlocked = place.json(project, &["unlock", &number]).await;
    assert_eq!(unlocked["lease"], "ended");
    assert_eq!(unlocked["holder"], status["applying"]["holder"]);
    let resumed = place.json(project, &["resume"]).await;
    assert_eq!(
        (&resumed["generation"], &resumed["live"]),
        (&generation.into(), &true.into())
    );
    let status = place.json(project, &["status"]).await;
    assert_eq!(status["state"], "committed");
    assert_eq!(status["drift"].as_array().unwrap().len(), 0);
}
