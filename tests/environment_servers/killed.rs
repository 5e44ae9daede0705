//! Killed at every request that writes, before it was done, after it, or in the middle of its
//! body, in turns. `environment_interrupted` does all of them over strict fakes.

use std::collections::BTreeMap;

use crate::faulty_proxy::{Fault, Struck};
use crate::scene::{FOREIGN, Place, Scene};

/// Which requests of a deploy are struck: all that write, and the first of those that read.
fn sample(requests: &[String]) -> Vec<usize> {
    let reads = |request: &String| request.starts_with("GET ") || request.starts_with("HEAD ");
    let first_read = requests.iter().position(reads);
    let numbers = requests.iter().enumerate();
    let writes = numbers.filter(|(_, request)| !reads(request));
    first_read
        .into_iter()
        .chain(writes.map(|(number, _)| number))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_the_program_leaves_what_the_next_deploy_mends() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let requests = scene.requests_of_a_deploy().await;
    let faults = [Fault::StallBefore, Fault::StallAfter, Fault::StallWithin];
    let mut states = BTreeMap::<String, usize>::new();
    for (turn, at) in sample(&requests).into_iter().enumerate() {
        let fault = faults[turn % faults.len()];
        let place = scene.place(&format!("killed-{at}")).await;
        let state = kill(&place, at, fault).await;
        *states.entry(state).or_default() += 1;
    }
    // Before HEAD was swapped, while it was, and after it.
    let often = |state: &str| states.get(state).is_some_and(|times| *times > 3);
    assert!(often("committed") && often("applying"), "{states:?}");
}

/// Gives the state that the dead program has left.
async fn kill(place: &Place<'_>, at: usize, fault: Fault) -> String {
    let Scene {
        requests, after, ..
    } = place.scene;
    place.deploy_base().await;
    let before = place.dags().await;
    assert_eq!(before.len(), 2);
    let deploy = place.command(after.path(), &["deploy"]);
    let here = place.kill(deploy, Struck::Number(at), fault).await;

    let live = place.dags().await;
    place.assert_images_are_there(&live).await;
    let status = place.json(after.path(), &["status"]).await;
    assert_eq!(
        status["drift"].as_array().unwrap().len(),
        0,
        "{here}: {status}"
    );
    assert_eq!(status["foreign"], FOREIGN.len(), "{here}: {status}");
    let state = status["state"].as_str().unwrap().to_owned();

    let deployed = place.once_free(after.path(), "deploy").await;
    let then = place.dags().await;
    assert_ne!(then, before, "{here}");
    for (key, bytes) in &live {
        let known = [before.get(key), then.get(key)];
        assert!(known.contains(&Some(bytes)), "{here}: {key} is neither");
    }
    if state != "applying" {
        assert!(live == before || live == then, "{here}: {live:?}");
    }
    place.assert_images_are_there(&then).await;
    assert!(deployed["image"].is_string(), "{here}: {deployed}");

    let written = place.writes().await;
    requests.heal();
    let third = place.json(after.path(), &["deploy"]).await;
    assert_eq!(third["changed"], false, "{here}");
    for request in requests.requests() {
        let reads = request.starts_with("GET ") || request.starts_with("HEAD ");
        assert!(reads, "{here}: {request}");
    }
    assert_eq!(place.writes().await, written, "{here}");
    state
}
