//! A store that takes its time, and a pool without places: who does what on which thread, and who waits for whom.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

use model::storage::{AppendOptions, Appender};
use parking_lot::Condvar;
use tokio::time::timeout;

use super::*;

/// A store that notices on which thread it is used, and waits while its gate is closed.
#[derive(Clone)]
struct GatedStore {
    store: FakeStore,
    reactor: ThreadId,
    /// Times it was used on the reactor's thread.
    on_reactor: Arc<AtomicUsize>,
    /// Times it was used elsewhere.
    elsewhere: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    waiting: usize,
}

/// A test that fails must end, too.
const GATE_OPENS_AFTER: Duration = Duration::from_secs(5);

impl GatedStore {
    /// Must be called on the reactor's thread, which is the test's.
    fn new() -> Self {
        Self {
            store: FakeStore::default(),
            reactor: std::thread::current().id(),
            on_reactor: Arc::default(),
            elsewhere: Arc::default(),
            gate: Arc::default(),
        }
    }

    async fn world(&self, cpu: CpuPool) -> World {
        World::with(self.store.clone(), Arc::new(self.clone()), cpu).await
    }

    fn close(&self) {
        self.gate.state.lock().closed = true;
    }

    fn open(&self) {
        self.gate.state.lock().closed = false;
        self.gate.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.gate.state.lock().waiting
    }
}

impl Append for GatedStore {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        let here = std::thread::current().id();
        let counter = if here == self.reactor { &self.on_reactor } else { &self.elsewhere };
        counter.fetch_add(1, Ordering::SeqCst);
        let mut state = self.gate.state.lock();
        state.waiting += 1;
        while state.closed {
            if self.gate.changed.wait_for(&mut state, GATE_OPENS_AFTER).timed_out() {
                state.closed = false;
            }
        }
        state.waiting -= 1;
        self.store.appender(options)
    }
}

#[tokio::test]
async fn nothing_is_stored_on_the_reactor() {
    let gated = GatedStore::new();
    let world = gated.world(CpuPool::new(2)).await;
    world.server.set("/good", page("good 1\n"));
    world.server.set("/bad", page("bad\n"));
    let collector = format!(
        "{{job_name: c, {QUICK}, collector: counting, static_configs: [{{targets: ['b:1'], labels: {{instance: c}}}}]}}"
    );
    world.apply(&[&job("good", QUICK), &job("bad", QUICK), &collector]).await;
    world
        .until("all", || {
            world.store.values("good").len() >= 2
                && world.store.last("collections").as_deref() == Some("5")
                && world.target("bad").is_some_and(|target| target.last.health == TargetHealth::Down)
        })
        .await;
    world.apply(&[]).await;
    world.until("ended", || world.store.last("good").as_deref() == Some("S")).await;
    world.manager.stop().await;
    assert_eq!(gated.on_reactor.load(Ordering::SeqCst), 0);
    assert!(gated.elsewhere.load(Ordering::SeqCst) >= 10);
}

#[tokio::test]
async fn stopping_waits_for_what_is_being_stored_and_gives_up_what_waits_for_its_turn() {
    let gated = GatedStore::new();
    let cpu = CpuPool::new(1);
    let world = gated.world(cpu.clone()).await;
    world.server.set("/a", page("a 1\n"));
    world.server.set("/b", page("b 1\n"));
    gated.close();
    world.apply(&[&job("a", QUICK), &job("b", QUICK)]).await;
    world.until("one stores, one waits", || gated.waiting() == 1 && cpu.waiting() == 1).await;
    {
        let mut stop = pin!(world.manager.stop());
        assert!(timeout(Duration::from_millis(100), &mut stop).await.is_err(), "something is being stored");
        assert_eq!(cpu.waiting(), 0, "what waited for its turn has been given up");
        gated.open();
        stop.await;
    }
    let series = world.store.series();
    assert_eq!(series.len(), 1, "{series:?}");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(world.store.series(), series);
    assert_eq!(gated.elsewhere.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn stopping_waits_for_the_last_words_of_a_job_that_has_gone() {
    let gated = GatedStore::new();
    let world = gated.world(CpuPool::new(1)).await;
    world.server.set("/a", page("a 1\n"));
    world.apply(&[&job("a", QUICK)]).await;
    world.until("scraped", || world.store.last("a").is_some()).await;
    world.apply(&[]).await;
    gated.close();
    world.until("its series are being ended", || gated.waiting() == 1).await;
    {
        let mut stop = pin!(world.manager.stop());
        assert!(timeout(Duration::from_millis(50), &mut stop).await.is_err(), "something is being stored");
        gated.open();
        stop.await;
    }
    let samples = world.store.samples("a");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.store.samples("a"), samples, "nothing is written after stop");
}

#[tokio::test]
async fn a_reload_does_not_wait_for_a_place_on_the_pool() {
    let gated = GatedStore::new();
    let cpu = CpuPool::new(1);
    let world = gated.world(cpu.clone()).await;
    world.server.set("/a", page("a 1\n"));
    world.apply(&[&job("a", QUICK)]).await;
    world.until("scraped", || world.store.values("a").len() >= 2).await;
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let busy = cpu.clone();
    let busy =
        tokio::spawn(async move { busy.run(move || held.recv_timeout(GATE_OPENS_AFTER).is_err()).await });
    world.until("waits", || cpu.waiting() == 1).await;
    let before = world.store.values("a").len();
    timeout(Duration::from_secs(1), world.apply(&[&job("a", &format!("{QUICK}, sample_limit: 9"))]))
        .await
        .expect("the reload does not wait");
    assert_eq!(world.store.values("a").len(), before);
    drop(release);
    assert_eq!(busy.await.unwrap(), Ok(true));
    world.until("goes on", || world.store.values("a").len() > before + 1).await;
    assert!(world.store.values("a").iter().all(|value| value == "1"), "no marker over a reload");
    let added = world.store.values("scrape_series_added");
    assert!(added[0] == "1" && added[1..].iter().all(|added| added == "0"), "the state was kept: {added:?}");
    world.manager.stop().await;
}
