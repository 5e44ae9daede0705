//! `forebay abort`, after a SIGKILL from the first swap of HEAD to the last: every file is as it
//! was, and the environment goes on.

use std::path::Path;

use serde_json::Value;

use crate::faulty_proxy::{Fault, Struck};
use crate::scene::{FOREIGN, Place, Scene};

/// What dies, and what becomes of it.
struct Round<'s> {
    base: &'s Path,
    target: &'s Path,
    at: Struck,
    fault: Fault,
    /// The generation that is left unfinished.
    unfinished: Option<u64>,
    /// The one that is live after an abort.
    live: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_unfinished_is_taken_back() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let requests = scene.requests_of_a_deploy().await;
    // After the retention tag: HEAD, the files, the listing that verifies them, HEAD.
    let is_tag = |what: &String| what.contains("/manifests/forebay-");
    let first_head = requests.iter().position(is_tag).unwrap() + 1;
    let last_head = requests.len() - 1;
    let (first_upload, last_upload) = (first_head + 1, last_head - 2);
    assert_eq!(last_upload - first_upload, 2, "{requests:?}");

    let (before, after) = (scene.before.path(), scene.after.path());
    let forward = |number, fault, unfinished, live| Round {
        base: before,
        target: after,
        at: Struck::Number(number),
        fault,
        unfinished,
        live,
    };
    let rounds = [
        forward(first_head, Fault::StallBefore, None, 1),
        forward(first_head, Fault::StallAfter, Some(2), 1),
        forward(first_upload, Fault::StallWithin, Some(2), 1),
        forward(last_upload, Fault::StallAfter, Some(2), 1),
        forward(last_head, Fault::StallBefore, Some(2), 1),
        forward(last_head, Fault::StallAfter, None, 2),
        // A workflow goes, and comes back.
        Round {
            base: after,
            target: before,
            at: Struck::First("DELETE "),
            ..forward(0, Fault::StallAfter, Some(2), 1)
        },
    ];
    for (number, round) in rounds.iter().enumerate() {
        let place = scene.place(&format!("taken-back-{number}")).await;
        take_back(&place, round).await;
    }
}

async fn take_back(place: &Place<'_>, round: &Round<'_>) {
    place.json(round.base, &["deploy"]).await;
    let before = place.dags().await;
    let deploy = place.command(round.target, &["deploy"]);
    let here = place.kill(deploy, round.at.clone(), round.fault).await;
    let left = place.dags().await;

    let aborted = place.once_free(round.target, "abort").await;
    assert_eq!(
        aborted["generation"],
        Value::from(round.unfinished),
        "{here}"
    );
    assert_eq!(aborted["live"], false, "{here}");
    let files = place.dags().await;
    let is_back = round.live == 1;
    // What was done already stays.
    let expected = if is_back { &before } else { &left };
    assert!(files == *expected, "{here}: {:?}", files.keys());
    assert_eq!(files == before, is_back, "{here}");
    place.assert_images_are_there(&files).await;
    let status = place.json(round.target, &["status"]).await;
    assert_eq!(status["state"], "committed", "{here}: {status}");
    assert_eq!(status["generation"], round.live, "{here}: {status}");
    assert_eq!(status["drift"].as_array().unwrap().len(), 0, "{here}");
    assert_eq!(status["foreign"], FOREIGN.len(), "{here}");

    // There is nothing more to be taken back, and what was meant can still be deployed.
    let written = place.writes().await;
    let again = place.json(round.target, &["abort"]).await;
    assert_eq!(again["generation"], Value::Null, "{here}");
    assert_eq!(place.writes().await, written, "{here}");
    let deployed = place.json(round.target, &["deploy"]).await;
    assert_eq!(deployed["changed"], is_back, "{here}: {deployed}");
    let then = place.dags().await;
    assert_ne!(
        then.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    place.assert_images_are_there(&then).await;
}
