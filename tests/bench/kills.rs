//! The events that are lost when a process that checks keys is killed without warning: 100 kills for each durability.

use std::time::Duration;

use keyward_tests::saas::Kills;

const KILLS: u64 = 100;

#[tokio::main]
async fn main() {
    let kills = Kills::start(env!("CARGO_BIN_EXE_saas")).await;
    for durability in ["after_answer", "before_answer"] {
        let of_kills = kills.measure(durability, KILLS).await;
        let lost = &of_kills.lost;
        println!(
            "{durability}: {KILLS} kills, {} requests answered, {} without an event, the earliest of them {:?} before the kill; {} twice",
            of_kills.answered,
            lost.len(),
            lost.iter().max().copied().unwrap_or(Duration::ZERO),
            of_kills.twice,
        );
    }
    kills.stop().await;
}
