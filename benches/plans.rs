//! What comparing costs where 1,000 DAG files are live: a plan in which nothing or ten files
//! change, and the difference between two generations. Bucket and registry are in memory, so that
//! all of it is ours.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/fakes.rs"]
mod fakes;

use divan::{Bencher, black_box};
use fakes::world::{Machine, Wish, World, image_digest, wish};
use tokio::runtime::Runtime;

const FILES: usize = 1_000;

fn main() {
    divan::main();
}

/// The files of which so many have changed.
fn files(changed: usize) -> Wish {
    let dags: Vec<(&'static str, &'static str)> = (0..FILES)
        .map(|number| {
            let content = if number < changed { "other" } else { "one" };
            (&*format!("workflow_{number:04}").leak(), content)
        })
        .collect();
    wish("1.0", "one", &dags)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[divan::bench(args = [0, 10])]
fn plan_a_deploy(bencher: Bencher<'_, '_>, changed: usize) {
    let (world, machine, runtime) = (World::new(), Machine::new("anna"), runtime());
    runtime.block_on(world.deploy(&machine, &files(0))).unwrap();
    let environment = world.environment(&machine);
    let wish = files(changed);
    let digest = image_digest(wish.image);
    bencher.bench_local(|| {
        runtime.block_on(async {
            let live = environment.observe(Some(&digest)).await.unwrap();
            let plan = environment.plan(live, wish.desired(), &|_, _| None).await;
            black_box(plan.unwrap())
        })
    });
}

#[divan::bench]
fn difference_of_ten_files(bencher: Bencher<'_, '_>) {
    let (world, machine, runtime) = (World::new(), Machine::new("anna"), runtime());
    for changed in [0, 10] {
        runtime
            .block_on(world.deploy(&machine, &files(changed)))
            .unwrap();
    }
    let environment = world.environment(&machine);
    bencher.bench_local(|| {
        let difference = runtime.block_on(environment.difference(None, None));
        black_box(difference.unwrap())
    });
}
