//! Reloads when their callers go away or targets hang.

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_reload_whose_caller_goes_away_is_carried_out() {
    let world = World::new().await;
    let names = ["a", "b", "c"];
    for name in names {
        world.server.set(&format!("/{name}"), page(&format!("{name} 1\n")));
    }
    let jobs = |limit: u64| names.map(|name| job(name, &format!("{QUICK}, sample_limit: {limit}")));
    let apply = |limit: u64| {
        let configs = jobs(limit).iter().map(|job| world.config(job)).collect();
        world.manager.apply(world.manager.prepare(configs).unwrap())
    };
    apply(100).await;
    world.until("all", || names.iter().all(|name| world.store.last(name).is_some())).await;
    for round in 0..5_u64 {
        let limit = 101 + round;
        // It is polled at least once: then it has begun.
        let _ = timeout(Duration::from_micros(round * 300), apply(limit)).await;
        world
            .until("the new jobs run", || {
                let limit_of = |name| world.manager.job(name).map(|job| job.limits.samples);
                names.iter().all(|name| limit_of(name) == Some(limit))
            })
            .await;
        let before = names.map(|name| world.store.values(name).len());
        world
            .until("all go on", || {
                names.iter().zip(before).all(|(name, before)| world.store.values(name).len() > before + 1)
            })
            .await;
    }
    for name in names {
        assert!(world.store.values(name).iter().all(|value| value == "1"), "{name}: no marker over a reload");
    }
    world.manager.stop().await;
}

#[tokio::test]
async fn targets_that_hang_do_not_hold_up_a_reload() {
    let world = World::new().await;
    let names = ["a", "b", "c", "d"];
    let jobs = |limit: u64| {
        names
            .map(|name| job(name, &format!("scrape_interval: 2s, scrape_timeout: 2s, sample_limit: {limit}")))
    };
    for name in names {
        world.server.set(&format!("/{name}"), page(&format!("{name} 1\n")));
    }
    world.apply(&jobs(10).each_ref().map(String::as_str)).await;
    world.until("all", || names.iter().all(|name| world.store.last(name).is_some())).await;
    for name in names {
        world.server.set(&format!("/{name}"), Behaviour::Hang);
    }
    world.until("all hang", || names.iter().all(|name| world.server.asked(&format!("/{name}")) == 2)).await;
    for name in names {
        world.server.set(&format!("/{name}"), page(&format!("{name} 1\n")));
    }
    let started = Instant::now();
    world.apply(&jobs(11).each_ref().map(String::as_str)).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.until("all go on", || names.iter().all(|name| world.store.values(name).len() >= 2)).await;
    for name in names {
        assert_eq!(world.store.values(name)[..2], ["1", "1"], "the scrape that was given up ended no series");
        let instance = world.target(name).unwrap();
        assert_eq!(instance.last.health, TargetHealth::Up, "{}", instance.last.error);
    }
    world.manager.stop().await;
}
