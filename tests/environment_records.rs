//! Records: what they look like, and what is done with those that are not ours,
//! not whole, or of a program of tomorrow.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;
#[path = "support/schema.rs"]
mod schema;

use fakes::faults::{Fault, Moment};
use fakes::world::{self, Machine, World, wish};
use forebay::environment::EnvironmentError;
use forebay_store::ObjectDigest;
use serde_json::{Value, json};

const HEAD: &str = "forebay/v1/hello/dev/HEAD.json";
const FIRST: &str = "forebay/v1/hello/dev/generations/00000001.json";
const TWO: &[(&str, &str)] = &[("daily", "a"), ("hourly", "b")];

fn json_at(world: &World, key: &str) -> Value {
    serde_json::from_slice(&world.bucket.contents(key)[key]).unwrap()
}

fn put_json(world: &World, key: &str, value: &Value) {
    world.bucket.put(key, &serde_json::to_vec(value).unwrap());
}

/// Puts a record in the place of generation 1, and a HEAD that names it.
fn forge(world: &World, record: &Value) {
    let bytes = serde_json::to_vec(record).unwrap();
    world.bucket.put(FIRST, &bytes);
    let mut head = json_at(world, HEAD);
    head["live"]["record"] = json!(ObjectDigest::of(&bytes));
    head["live"]["state"] = json!(ObjectDigest::of(b"another"));
    put_json(world, HEAD, &head);
}

#[tokio::test]
async fn what_is_written_follows_the_schemas() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO).commit("0123456789abcdef");
    world.deploy(&machine, &first).await.unwrap();
    let second = wish("1.1", "two", &[("daily", "a2")]);
    world.deploy(&machine, &second).await.unwrap();
    world.rollback(&machine, None).await.unwrap();
    let records = world.bucket.contents("forebay/v1/hello/dev/generations/");
    assert_eq!(records.len(), 3);
    for (key, bytes) in records {
        let record = serde_json::from_slice(&bytes).unwrap();
        let violations = schema::violations("generation.schema.json", &record);
        assert!(violations.is_empty(), "{key}: {violations:?}");
    }
    let committed = json_at(&world, HEAD);
    let violations = schema::violations("head.schema.json", &committed);
    assert!(violations.is_empty(), "{violations:?}");

    // While a deploy is being applied, too: the last write of all is HEAD's.
    world.calls.reset();
    let third = wish("1.1", "three", &[("daily", "a2")]);
    world.deploy(&machine, &third).await.unwrap();
    let last = world.calls.log().len() - 1;
    world.rollback(&machine, None).await.unwrap();
    let third = wish("1.1", "four", &[("daily", "a2")]);
    world.calls.strike(last, Moment::Before, Fault::Die);
    tokio::select! {
        biased;
        () = world.calls.killed() => {}
        _ = world.deploy(&machine, &third) => panic!("it was not killed"),
    }
    let applying = json_at(&world, HEAD);
    assert!(applying.get("applying").is_some());
    let violations = schema::violations("head.schema.json", &applying);
    assert!(violations.is_empty(), "{violations:?}");
    // The checker itself finds something.
    assert!(!schema::violations("generation.schema.json", &applying).is_empty());
}

#[tokio::test]
async fn a_newer_format_is_for_looking_at_only() {
    for (key, readable) in [(HEAD, true), (FIRST, true), (FIRST, false)] {
        let (world, machine) = (World::new(), Machine::new("anna"));
        world
            .deploy(&machine, &wish("1.0", "one", TWO))
            .await
            .unwrap();
        let mut value = json_at(&world, key);
        value["schema"] = json!(2);
        value["novelty"] = json!("something that this program does not know");
        if !readable {
            value["image"] = json!("something that this program cannot read");
        }
        if key == FIRST {
            forge(&world, &value);
        } else {
            put_json(&world, key, &value);
        }
        world.calls.reset();
        let other = Machine::new("a machine that has seen nothing");
        let environment = world.environment(&other);
        let next = wish("1.1", "two", TWO);
        let mut errors = vec![
            world.deploy(&other, &next).await.unwrap_err(),
            world.rollback(&other, Some(1)).await.unwrap_err(),
        ];
        match environment.status().await {
            Ok(status) if readable => assert_eq!(status.live.unwrap().generation, 1),
            status => errors.push(status.unwrap_err()),
        }
        if key == HEAD {
            errors.push(environment.unlock(1).await.unwrap_err());
            errors.push(environment.prunable(&retention()).await.unwrap_err());
        }
        for error in errors {
            let newer = matches!(
                error,
                EnvironmentError::Newer {
                    found: 2,
                    known: 1,
                    ..
                }
            );
            assert!(newer, "{key}: {error}");
        }
        assert!(world.calls.writes().is_empty());
    }
}

fn retention() -> forebay::environment::Retention {
    forebay::environment::Retention {
        keep: 1,
        grace: std::time::Duration::ZERO,
    }
}

#[tokio::test]
async fn malformed_heads_are_named_and_nothing_is_written() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    let whole = json_at(&world, HEAD);
    let mut of_another = whole.clone();
    of_another["project"] = json!("another");
    let mut wrong_digest = whole.clone();
    wrong_digest["live"]["record"] = json!(ObjectDigest::of(b"another"));
    wrong_digest["live"]["state"] = json!(ObjectDigest::of(b"another"));
    let texts = [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        br#"{"schema":1}"#.to_vec(),
        serde_json::to_vec(&of_another).unwrap(),
        serde_json::to_vec(&wrong_digest).unwrap(),
    ];
    for text in texts {
        world.bucket.put(HEAD, &text);
        world.calls.reset();
        let error = world.deploy(&machine, &wish("1.1", "two", TWO)).await;
        match error.unwrap_err() {
            EnvironmentError::Malformed { key, .. } => assert!(key.contains("/dev/"), "{key}"),
            other => panic!("{other}"),
        }
        assert!(world.calls.writes().is_empty());
    }
    assert_eq!(world.dags(), set.files());
}

#[tokio::test]
async fn a_hostile_record_leads_nowhere_outside_the_dags() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    world.bucket.put("plugins/precious.py", b"precious");
    let whole = json_at(&world, FIRST);
    for key in [
        "plugins/precious.py",
        "dags/airflow_monitoring.py",
        "dags/../plugins/precious.py",
        "dags",
        "/dags/a.py",
    ] {
        let mut record = whole.clone();
        let dag = record["dags"].as_object().unwrap().values().next().unwrap();
        record["dags"][key] = dag.clone();
        forge(&world, &record);
        world.calls.reset();
        let other = Machine::new("a machine that has seen nothing");
        let next = wish("1.1", "two", &[("new", "x")]);
        let error = world.deploy(&other, &next).await.unwrap_err();
        assert!(
            matches!(error, EnvironmentError::Malformed { .. }),
            "{key}: {error}"
        );
        assert!(world.calls.writes().is_empty());
    }
    assert_eq!(world.dags(), set.files());
}

#[tokio::test]
async fn a_record_that_is_gone_is_named() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    world
        .deploy(&machine, &wish("1.0", "one", TWO))
        .await
        .unwrap();
    world.bucket.remove(FIRST);
    let next = wish("1.1", "two", TWO);
    let other = Machine::new("a machine that has seen nothing");
    match world.deploy(&other, &next).await.unwrap_err() {
        EnvironmentError::LostObject { what } => assert_eq!(what, FIRST),
        other => panic!("{other}"),
    }
    // The machine that wrote it goes on.
    world.deploy(&machine, &next).await.unwrap();
}

#[tokio::test]
async fn numbers_that_no_key_has_are_refused() {
    for number in [0, 100_000_000, u64::MAX] {
        let (world, machine) = (World::new(), Machine::new("anna"));
        let first = wish("1.0", "one", TWO);
        world.deploy(&machine, &first).await.unwrap();
        let mut head = json_at(&world, HEAD);
        head["live"]["generation"] = json!(number);
        put_json(&world, HEAD, &head);
        world.calls.reset();
        let next = wish("1.1", "two", TWO);
        let error = world.deploy(&machine, &next).await.unwrap_err();
        assert!(
            matches!(error, EnvironmentError::Malformed { .. }),
            "{error}"
        );
        assert!(world.calls.writes().is_empty());
    }
}

#[tokio::test]
async fn after_the_last_number_there_is_none() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let last = "forebay/v1/hello/dev/generations/99999999.json";
    for key in [FIRST, last] {
        world.bucket.put(key, b"taken");
    }
    let set = wish("1.0", "one", TWO);
    let error = world.deploy(&machine, &set).await.unwrap_err();
    assert!(
        matches!(error, EnvironmentError::NumbersTaken { last: 99_999_999 }),
        "{error}"
    );
}

#[tokio::test]
async fn texts_that_steer_a_terminal_are_refused() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", TWO);
    world.deploy(&machine, &set).await.unwrap();
    let next = wish("1.1", "two", TWO);
    let whole = json_at(&world, HEAD);
    let mut head = whole.clone();
    head["written_by"] = json!("\u{1b}]0;title\u{7}");
    put_json(&world, HEAD, &head);
    let of_head = world.deploy(&machine, &next).await.unwrap_err();
    put_json(&world, HEAD, &whole);
    let mut record = json_at(&world, FIRST);
    record["created_by"] = json!("anna\u{9b}2J");
    forge(&world, &record);
    let of_record = world.deploy(&machine, &next).await.unwrap_err();
    for error in [of_head, of_record] {
        assert!(
            matches!(error, EnvironmentError::Malformed { .. }),
            "{error}"
        );
        assert!(!error.to_string().chars().any(char::is_control));
    }
}

#[tokio::test]
async fn what_we_are_called_can_be_read_again() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let options = forebay::environment::Options::new("anna\u{1b}[31m@\nci");
    let environment = world.environment_with(world::key("hello", "dev"), &machine, options);
    let set = wish("1.0", "one", TWO);
    world::deploy(&environment, &set).await.unwrap();
    let history = environment.history(None).await.unwrap();
    assert_eq!(history[0].created_by, "anna [31m@ ci");
}

/// A newer program of the same format may add what this one does not know.
#[tokio::test]
async fn a_record_is_named_by_the_bytes_that_it_has() {
    let (world, machine) = (World::new(), Machine::new("anna"));
    let first = wish("1.0", "one", TWO);
    world.deploy(&machine, &first).await.unwrap();
    let before = json_at(&world, HEAD);
    let second = wish("1.1", "two", TWO);
    world.deploy(&machine, &second).await.unwrap();
    let key = "forebay/v1/hello/dev/generations/00000002.json";
    let mut record = json_at(&world, key);
    record["of_tomorrow"] = json!({"more": true});
    let bytes = serde_json::to_vec(&record).unwrap();
    world.bucket.put(key, &bytes);
    let digest = ObjectDigest::of(&bytes);
    let mut head = before;
    head["applying"] = json!({
        "generation": 2, "record": digest, "direction": "forward", "holder": "ben", "lease_seconds": 0,
    });
    put_json(&world, HEAD, &head);

    let other = Machine::new("a machine that has seen nothing");
    world.environment(&other).resume().await.unwrap().unwrap();
    let head = json_at(&world, HEAD);
    assert_eq!(head["live"]["record"], json!(digest));
    // It is found again, on that machine and on another.
    for machine in [&other, &Machine::new("another")] {
        world.environment(machine).history(None).await.unwrap();
        let again = world.deploy(machine, &second).await.unwrap();
        assert!(!again.changed);
    }
}
