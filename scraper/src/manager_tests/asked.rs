//! What people ask about targets: failure logs, bodies, one probe.

use std::path::PathBuf;

use super::*;
use crate::body::NoBody;
use crate::failure_log::FailureLog;
use crate::probe::{Fate, ProbeOptions, probe};

/// Lines by file.
type Files = Arc<Mutex<HashMap<PathBuf, Vec<String>>>>;

struct Log(PathBuf, Files);

impl FailureLog for Log {
    fn write(&self, line: String) -> bool {
        self.1.lock().entry(self.0.clone()).or_default().push(line);
        true
    }
}

#[tokio::test]
async fn failed_scrapes_are_noted_where_the_configuration_says() {
    let files = Files::default();
    let opened = Arc::new(Mutex::new(Vec::new()));
    let logs = {
        let (files, opened) = (Arc::clone(&files), Arc::clone(&opened));
        FailureLogs::new(move |path, _| {
            if path.ends_with("forbidden.log") {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            opened.lock().push(path.to_owned());
            Ok(Arc::new(Log(path.to_owned(), Arc::clone(&files))))
        })
    };
    let world = World::with_logs(logs).await;
    world.server.set("/good", page("good 1\n"));
    world.server.set("/broken", page("this is no page\n"));
    let lines = |file: &str| files.lock().get(&Path::new(".").join(file)).map_or(0, Vec::len);
    let jobs = |file: &str| {
        [
            job("good", &format!("{QUICK}, scrape_failure_log_file: {file}")),
            job("broken", &format!("{QUICK}, scrape_failure_log_file: {file}")),
            job("gone", QUICK),
        ]
    };
    world.apply(&jobs("a.log").each_ref().map(String::as_str)).await;
    world.until("noted", || lines("a.log") >= 2).await;
    assert_eq!(opened.lock().len(), 1, "one file for both jobs");
    {
        let files = files.lock();
        let lines = &files[Path::new("./a.log")];
        assert!(lines.iter().all(|line| line.contains(r#""job_name":"broken""#)), "{lines:?}");
        assert!(lines[0].contains(&format!(r#""target":"http://{}/broken""#, world.server.address)));
        assert!(lines[0].contains(r#""msg":"strconv.ParseFloat: parsing \"is\""#), "{}", lines[0]);
    }
    // The same configuration again: jobs run on, and the file is opened anew.
    let scraped = world.store.values("good").len();
    world.apply(&jobs("a.log").each_ref().map(String::as_str)).await;
    assert_eq!(opened.lock().len(), 2);
    assert!(world.metric("prometheus_target_scrape_pool_reloads_total") == 0.0);
    world.until("the good one goes on", || world.store.values("good").len() > scraped).await;
    world.apply(&jobs("b.log").each_ref().map(String::as_str)).await;
    let noted = lines("a.log");
    world.until("noted elsewhere", || lines("b.log") >= 2).await;
    assert_eq!(lines("a.log"), noted);
    // A file that cannot be opened is a mistake of the configuration.
    let config = world.config(&job("good", &format!("{QUICK}, scrape_failure_log_file: forbidden.log")));
    let error = world.manager.prepare(vec![config]).unwrap_err().to_string();
    assert!(error.starts_with("scrape job \"good\": cannot open scrape_failure_log_file"), "{error}");
    world.manager.stop().await;
}

#[tokio::test]
async fn the_last_body_is_shown_to_who_asks() {
    let world = World::new().await;
    world.server.set("/plain", page("a 1\n"));
    world.server.set(
        "/cookie",
        answer("200 OK", "Content-Type: text/plain\r\nSet-Cookie: session=hunter2\r\n", b"b 1\n"),
    );
    world.server.set("/html", answer("200 OK", "Content-Type: text/html\r\n", b"<html>"));
    let jobs = ["plain", "cookie", "html", "gone"].map(|name| job(name, QUICK));
    world.apply(&jobs.each_ref().map(String::as_str)).await;
    let ask = async |name: &str| {
        let url = format!("http://{}/{name}", world.server.address);
        world.manager.body(name, &url, Instant::now() + Duration::from_secs(5)).await
    };
    let kept = ask("plain").await.unwrap();
    assert_eq!((kept.bytes.as_slice(), kept.size), (&b"a 1\n"[..], 4));
    assert_eq!(kept.content_type, "text/plain; version=0.0.4");
    world.server.set("/plain", page("a 2\n"));
    world.until("the new page", || world.store.last("a").as_deref() == Some("2")).await;
    assert_eq!(ask("plain").await.unwrap().bytes, b"a 2\n", "at once, since somebody asked lately");
    assert_eq!(ask("cookie").await, Err(NoBody::Credentials));
    assert_eq!(ask("html").await.unwrap().bytes, b"<html>", "what cannot be read can be looked at");
    assert_eq!(
        ask("gone").await,
        Err(NoBody::Failed("server returned HTTP status 404 Not Found".to_owned()))
    );
    assert_eq!(ask("nothing").await, Err(NoBody::Pool("nothing".to_owned())));
    let elsewhere = world.manager.body("plain", "http://x/", Instant::now()).await;
    assert!(matches!(elsewhere, Err(NoBody::Target(..))));
    world.manager.stop().await;
}

#[tokio::test]
async fn a_probe_tells_what_became_of_each_target() {
    let world = World::new().await;
    world
        .server
        .set("/metrics", page("# TYPE a counter\na 1\na{x=\"1\"} 1\ndrop_me 1\ndrop_me{y=\"1\"} 1\n"));
    world.server.set("/large", page(&(0..20).map(|i| format!("m{{i=\"{i}\"}} 1\n")).collect::<String>()));
    let config = world.config(
        "{job_name: j, sample_limit: 10, \
          static_configs: [{targets: ['$ADDR', '$ADDR', 'no/host', 'left:1'], labels: {env: t}}, \
            {targets: ['$ADDR'], labels: {__metrics_path__: /large, instance: large}}], \
          file_sd_configs: [{files: ['/nonexistent/*.yml']}], \
          relabel_configs: [{source_labels: [__address__], regex: 'left:.*', action: drop}, \
            {source_labels: [env], target_label: stage}], \
          metric_relabel_configs: [{source_labels: [__name__], regex: 'drop.*', action: drop}]}",
    );
    let options = ProbeOptions {
        target: None,
        discovery_wait: Duration::from_millis(100),
        scrapes_max: 10,
        user_agent: "Nilometer/test".to_owned(),
        clock: Arc::clone(&world.clock),
    };
    let found = probe(&config, &options).await.unwrap();
    assert_eq!(found.targets.len(), 5);
    let fates: Vec<&Fate> = found.targets.iter().map(|target| &target.fate).collect();
    let Fate::Kept { labels, scrape: Some(scrape), .. } = fates[0] else { panic!("{:?}", fates[0]) };
    assert_eq!((labels.value("stage"), scrape.error.as_deref()), ("t", None));
    assert_eq!((scrape.samples, scrape.kept, scrape.series, scrape.families), (4, 2, 2, 1));
    assert_eq!(scrape.format, Some("classic text"));
    assert_eq!(scrape.dropped, [("drop_me".to_owned(), 2)].into());
    assert_eq!(found.targets[0].steps[1].output.value("stage"), "t");
    assert!(matches!(fates[1], Fate::Duplicate { .. }));
    assert!(matches!(fates[2], Fate::Invalid(error) if error.contains("is not a valid hostname")));
    assert!(matches!(fates[3], Fate::Dropped) && !found.targets[3].steps[0].keep);
    let Fate::Kept { scrape: Some(scrape), .. } = fates[4] else { panic!("{:?}", fates[4]) };
    assert_eq!((scrape.error.as_deref(), scrape.samples), (Some("sample limit exceeded"), 20));
    let asked = world.server.asked("/metrics");
    assert_eq!(asked, 1, "once");
    let only = ProbeOptions { target: Some("large".to_owned()), ..options };
    let found = probe(&config, &only).await.unwrap();
    assert_eq!(world.server.asked("/metrics"), asked);
    assert!(matches!(&found.targets[4].fate, Fate::Kept { scrape: Some(_), .. }));
}

#[tokio::test]
async fn a_probe_reads_collectors_too() {
    let world = World::new().await;
    let config = world.config("{job_name: c, collector: counting, static_configs: [{targets: ['b:1']}]}");
    let options = ProbeOptions {
        target: None,
        discovery_wait: Duration::from_secs(5),
        scrapes_max: 1,
        user_agent: "Nilometer/test".to_owned(),
        clock: Arc::clone(&world.clock),
    };
    let found = probe(&config, &options).await.unwrap();
    let Fate::Kept { scrape: Some(scrape), url, .. } = &found.targets[0].fate else { panic!("{found:?}") };
    assert_eq!((scrape.error.as_deref(), url.as_str()), (None, "counting://b:1"));
    assert!(scrape.samples > 0 && scrape.format == Some("samples of a collector"));
}
