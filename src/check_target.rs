//! `nilometer check target`: one discovery and one scrape, and what came of them. Exit code 1 when a target is wrong or down.
#![expect(clippy::print_stdout, reason = "the result of a check is its output")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use model::Labels;
use model::relabel::{RelabelAction, RelabelConfig, RelabelStep};
use scraper::ScrapeConfig;
use scraper::probe::{Fate, Probe, ProbeOptions, ProbedScrape, ProbedTarget, changed_labels, probe};

use crate::check::request;
use crate::cli::CheckArgs;
use crate::clock::SystemClock;
use crate::config::load;

/// Most targets of a job that are scraped.
const SCRAPES_MAX: usize = 50;
/// Most dropped metric names that are listed.
const NAMES_SHOWN_MAX: usize = 20;

/// What is to be looked at.
pub(crate) struct Wanted<'a> {
    /// Only this job.
    pub job: Option<&'a str>,
    /// Only targets with this address, instance or URL are scraped.
    pub target: Option<String>,
    /// How long discovery may take.
    pub discovery_wait: Duration,
}

/// `check target FILE`
pub(crate) fn run(file: &Path, wanted: Wanted<'_>, args: &CheckArgs) -> ExitCode {
    let config = match load(&request(file, true, args)) {
        Ok(config) => config,
        Err(errors) => {
            println!("{}: FAILED", file.display());
            for error in errors {
                println!("  {error}");
            }
            return ExitCode::FAILURE;
        }
    };
    let jobs: Vec<&ScrapeConfig> = config
        .scrape_configs
        .iter()
        .filter(|job| wanted.job.is_none_or(|name| name == job.job_name))
        .collect();
    if jobs.is_empty() {
        println!("{}: no such scrape job", wanted.job.unwrap_or("(none configured)"));
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = ProbeOptions {
        target: wanted.target,
        discovery_wait: wanted.discovery_wait,
        scrapes_max: SCRAPES_MAX,
        user_agent: format!("Nilometer/{}", env!("CARGO_PKG_VERSION")),
        clock: Arc::new(SystemClock),
    };
    let mut good = true;
    let mut scraped = 0;
    for job in jobs {
        match runtime.block_on(probe(job, &options)) {
            Ok(probe) => {
                print!("{}", report(job, &probe, options.target.as_deref()));
                good &= is_good(&probe);
                scraped += probe.targets.iter().filter(|target| scrape_of(target).is_some()).count();
            }
            Err(error) => {
                println!("job {:?}: {error}", job.job_name);
                good = false;
            }
        }
    }
    if let (Some(target), 0) = (&options.target, scraped) {
        println!("no target that is kept has the address, instance or URL {target:?}");
        good = false;
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scrape_of(target: &ProbedTarget) -> Option<&ProbedScrape> {
    match &target.fate {
        Fate::Kept { scrape, .. } => scrape.as_deref(),
        _ => None,
    }
}

fn is_good(probe: &Probe) -> bool {
    probe.silent.is_empty()
        && probe.troubles.is_empty()
        && probe.targets.iter().all(|target| match &target.fate {
            Fate::Invalid(_) => false,
            Fate::Kept { scrape: Some(scrape), .. } => scrape.error.is_none(),
            _ => true,
        })
}

/// Whether a target is to be shown: one that was scraped, or was found at the address.
fn is_meant(target: &ProbedTarget, wanted: Option<&str>) -> bool {
    let url = match &target.fate {
        Fate::Kept { url, .. } | Fate::Duplicate { url } => url.as_str(),
        _ => "",
    };
    wanted.is_none_or(|wanted| {
        scrape_of(target).is_some() || target.discovered.value("__address__") == wanted || url == wanted
    })
}

/// All there is to say about a job.
fn report(job: &ScrapeConfig, probe: &Probe, wanted: Option<&str>) -> String {
    let count = |fits: fn(&Fate) -> bool| probe.targets.iter().filter(|target| fits(&target.fate)).count();
    let kept = count(|fate| matches!(fate, Fate::Kept { .. }));
    let mut out = format!(
        "job {:?}: {} found, {kept} kept, {} dropped, {} the same as others, {} invalid\n",
        job.job_name,
        probe.targets.len(),
        count(|fate| matches!(fate, Fate::Dropped)),
        count(|fate| matches!(fate, Fate::Duplicate { .. })),
        count(|fate| matches!(fate, Fate::Invalid(_))),
    );
    for kind in &probe.silent {
        line(&mut out, 1, &format!("{kind} discovery has said nothing yet"));
    }
    for trouble in &probe.troubles {
        line(&mut out, 1, &format!("{} discovery: {}", trouble.kind, trouble.error));
    }
    let limit = job.limits.targets;
    if limit > 0 && kept as u64 > limit {
        line(&mut out, 1, &format!("target_limit {limit} is exceeded: a server would let all scrapes fail"));
    }
    for target in probe.targets.iter().filter(|target| is_meant(target, wanted)) {
        write_target(&mut out, job, target);
    }
    out
}

fn write_target(out: &mut String, job: &ScrapeConfig, target: &ProbedTarget) {
    let (verdict, what) = match &target.fate {
        Fate::Dropped => ("dropped", target.discovered.value("__address__").to_owned()),
        Fate::Invalid(error) => ("invalid", error.clone()),
        Fate::Duplicate { url } => ("the same as another", url.clone()),
        Fate::Kept { url, .. } => ("kept", url.clone()),
    };
    line(out, 1, &format!("{verdict}: {what}"));
    line(out, 2, &format!("found:  {} (group {})", target.discovered, target.source));
    write_steps(out, &target.discovered, &job.relabel_configs, &target.steps);
    if let Fate::Kept { labels, scrape, .. } = &target.fate {
        line(out, 2, &format!("labels: {labels}"));
        match scrape {
            Some(scrape) => write_scrape(out, job, scrape),
            None => line(out, 2, "not scraped: not asked for, or enough others were"),
        }
    }
}

/// What each rule changed.
fn write_steps(out: &mut String, discovered: &Labels, rules: &[RelabelConfig], steps: &[RelabelStep]) {
    let mut before = discovered;
    for (index, (rule, step)) in rules.iter().zip(steps).enumerate() {
        let effect = if step.keep {
            let changes: Vec<String> = changed_labels(before, &step.output)
                .iter()
                .map(|(name, _, after)| change(name, after))
                .collect();
            if changes.is_empty() { "changes nothing".to_owned() } else { changes.join(", ") }
        } else {
            "drops the target".to_owned()
        };
        line(out, 2, &format!("rule {}: {}: {effect}", index + 1, rule_text(rule)));
        before = &step.output;
    }
}

fn change(name: &str, after: &Option<String>) -> String {
    match after {
        Some(value) => format!("{name}={value:?}"),
        None => format!("{name} goes"),
    }
}

/// A rule in one line.
fn rule_text(rule: &RelabelConfig) -> String {
    use RelabelAction as A;
    let sources = format!("[{}]", rule.source_labels.join(", "));
    let regex = rule.regex.pattern();
    let action = rule.action;
    match action {
        A::Replace => {
            format!(
                "replace {} by {:?} where {sources} matches {regex:?}",
                rule.target_label, rule.replacement
            )
        }
        A::Keep | A::Drop => format!("{action} where {sources} matches {regex:?}"),
        A::KeepEqual | A::DropEqual => format!("{action} where {sources} equals {}", rule.target_label),
        A::HashMod => format!("hashmod {} of {sources} into {}", rule.modulus, rule.target_label),
        A::LabelMap => format!("labelmap {regex:?} to {:?}", rule.replacement),
        A::LabelDrop | A::LabelKeep => format!("{action} {regex:?}"),
        A::Lowercase | A::Uppercase => format!("{action} {sources} into {}", rule.target_label),
    }
}

fn write_scrape(out: &mut String, job: &ScrapeConfig, scrape: &ProbedScrape) {
    match &scrape.error {
        None => line(out, 2, &format!("up, in {} ms", scrape.took.as_millis())),
        Some(error) => line(out, 2, &format!("DOWN, after {} ms: {error}", scrape.took.as_millis())),
    }
    for warning in &scrape.warnings {
        line(out, 2, &format!("incomplete: {warning}"));
    }
    if scrape.bytes > 0 || scrape.format.is_some() {
        let mut text = format!("page:   {} bytes", scrape.bytes);
        if let Some(bytes) = scrape.compressed_bytes {
            text.push_str(&format!(" ({bytes} compressed)"));
        }
        text.push_str(&format!(", {}", scrape.format.unwrap_or("of a format nobody can tell")));
        if !scrape.content_type.is_empty() {
            text.push_str(&format!(" ({})", scrape.content_type));
        }
        line(out, 2, &text);
    }
    if scrape.format.is_some() {
        let mut text = format!(
            "holds:  {} samples of {} families; metric relabelling leaves {}, of {} series",
            scrape.samples, scrape.families, scrape.kept, scrape.series
        );
        for (count, what) in [(scrape.duplicates, "twice"), (scrape.out_of_bounds, "too far in the future")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        line(out, 2, &text);
        if job.limits.samples > 0 {
            line(out, 2, &format!("limit:  sample_limit {}", job.limits.samples));
        }
    }
    if !scrape.dropped.is_empty() {
        let mut names: Vec<String> = scrape
            .dropped
            .iter()
            .take(NAMES_SHOWN_MAX)
            .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{name} ({count})") })
            .collect();
        if scrape.dropped.len() > NAMES_SHOWN_MAX {
            names.push(format!("and {} more", scrape.dropped.len() - NAMES_SHOWN_MAX));
        }
        line(out, 2, &format!("drops:  {}", names.join(", ")));
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:width$}{text}", "", width = depth * 2).expect("writing to a string cannot fail");
}
