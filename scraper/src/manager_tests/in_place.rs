//! Small pages are read on the runtime of scrapes, others in the pool.

use std::io::Write;

use super::*;

fn gzipped(text: &str) -> Behaviour {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Behaviour::Raw([head.into_bytes(), body].concat())
}

/// What is small on the wire, and was small the last time, may be large: then it is for the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_longer_than_it_looks_waits_for_the_pool() {
    let cpu = CpuPool::new(1);
    let world = World::in_place(cpu.clone()).await;
    world.server.set("/page", gzipped("small 1\n"));
    world.apply(&[&job("page", QUICK)]).await;
    world.until("scraped by the pool, then in place", || world.store.values("small").len() >= 3).await;
    // Somebody has the only place of the pool.
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let busy = tokio::spawn(async move { cpu.run(move || held.recv().is_ok()).await });
    let before = world.store.values("small").len();
    world.until("small pages go on", || world.store.values("small").len() >= before + 3).await;
    let long = format!("large 1\n{}", "# nothing\n".repeat(100_000));
    world.server.set("/page", gzipped(&long));
    let asked = world.server.asked("/page");
    world.until("asked for", || world.server.asked("/page") > asked).await;
    assert!(world.store.values("large").is_empty(), "the pool is busy");
    drop(release);
    busy.await.unwrap().unwrap();
    world.until("stored by the pool", || !world.store.values("large").is_empty()).await;
    world.server.set("/page", gzipped("small 1\n"));
    let before = world.store.values("small").len();
    world.until("small again", || world.store.values("small").len() > before).await;
}
