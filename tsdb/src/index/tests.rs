use super::*;
use model::matcher::{MatchOp, Matcher};
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

#[test]
fn a_series_that_left_is_not_found_and_its_words_are_freed() {
    let mut catalogue = Catalogue::default();
    let a = catalogue.add(&labels(&[("__name__", "m"), ("pod", "a")])).unwrap();
    let b = catalogue.add(&labels(&[("__name__", "m"), ("pod", "b")])).unwrap();
    assert_eq!(catalogue.find(&labels(&[("__name__", "m"), ("pod", "a")])), Some(a));
    catalogue.unlink(a);
    assert_eq!(catalogue.find(&labels(&[("__name__", "m"), ("pod", "a")])), None);
    assert_eq!(catalogue.labels(a).unwrap().get("pod"), Some("a"), "readers still see its labels");
    assert_eq!(catalogue.select(&[Matcher::equal("__name__", "m")]), [b]);
    assert_eq!(catalogue.label_values("pod").collect::<Vec<_>>(), ["b"]);
    let pairs = catalogue.words.live_pairs().count();
    catalogue.forget(a);
    assert_eq!(catalogue.words.live_pairs().count(), pairs - 1);
    assert_eq!(catalogue.labels(a), None);
    let c = catalogue.add(&labels(&[("__name__", "m"), ("pod", "a")])).unwrap();
    assert!(c > b, "ids are never given out twice");
    assert_eq!(catalogue.stats(10).by_metric, [("m".to_owned(), 2)]);
}

#[test]
fn order_of_labels_is_that_of_label_sets() {
    let mut catalogue = Catalogue::default();
    let sets = [
        labels(&[("b", "1")]),
        labels(&[("a", "2"), ("c", "1")]),
        labels(&[("a", "2")]),
        labels(&[("a", "10")]),
        labels(&[("a", "2"), ("b", "9")]),
    ];
    let mut ids: Vec<u32> = sets.iter().map(|set| catalogue.add(set).unwrap()).collect();
    catalogue.sort_by_labels(&mut ids);
    let got: Vec<Labels> = ids.iter().map(|id| catalogue.labels(*id).unwrap()).collect();
    let mut want = sets.to_vec();
    want.sort();
    assert_eq!(got, want);
}

/// Matchers of all kinds on labels a to d.
pub(crate) fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    let value = prop_oneof![
        Just(String::new()),
        "[xyz]{1,2}",
        Just(".*".to_owned()),
        Just(".+".to_owned()),
        Just("x.*".to_owned()),
        Just(".*y".to_owned()),
        Just(".*z.*".to_owned()),
        Just("x|y|".to_owned()),
        Just("x|zz".to_owned()),
        Just("x[yz]?".to_owned()),
    ];
    (op, "[abcd]", value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
}

proptest! {
    /// The plan finds what asking every matcher for every series finds.
    #[test]
    fn plans_agree_with_brute_force(
        sets in prop::collection::btree_set(prop::collection::btree_map("[abc]", "[xyz]{1,2}", 1..4), 1..60),
        matchers in prop::collection::vec(matcher(), 0..4),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut catalogue = Catalogue::default();
        let mut series = Vec::new();
        for set in &sets {
            let labels = Labels::from_pairs(set.iter().map(|(n, v)| (n.clone(), v.clone())));
            series.push((catalogue.add(&labels).unwrap(), labels));
        }
        for index in gone {
            let id = series.get(index.index(sets.len())).map(|entry| entry.0);
            if let Some(id) = id {
                catalogue.unlink(id);
                series.retain(|entry| entry.0 != id);
            }
        }
        let want: Vec<u32> =
            series.iter().filter(|(_, l)| Matcher::all_match(&matchers, l)).map(|(id, _)| *id).collect();
        prop_assert_eq!(catalogue.select(&matchers), want.clone());
        let mut names: Vec<&str> = series.iter().filter(|(id, _)| want.contains(id)).flat_map(|(_, l)| l.iter().map(|p| p.0)).collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(catalogue.label_names_of(&want), names);
        for (id, labels) in &series {
            prop_assert_eq!(catalogue.find(labels), Some(*id));
        }
    }
}

/// What happens to a catalogue.
#[derive(Clone, Debug)]
enum Step {
    /// A series comes: of this target, with this metric and so many labels of its own.
    Add(u8, u8, usize),
    Unlink(prop::sample::Index),
    Forget,
    /// A series comes back under a far id, as when a log is replayed out of order.
    Insert(u8, u8, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let own = prop_oneof![8 => 0usize..4, 1 => 10usize..90];
    prop_oneof![
        6 => (0u8..5, 0u8..20, own).prop_map(|(target, metric, own)| Step::Add(target, metric, own)),
        3 => any::<prop::sample::Index>().prop_map(Step::Unlink),
        1 => Just(Step::Forget),
        1 => (0u8..5, 0u8..20, 1u32..700).prop_map(|(target, metric, skip)| Step::Insert(target, metric, skip)),
    ]
}

fn of_target(target: u8, metric: u8, own: usize) -> Labels {
    let mut pairs = vec![
        ("__name__".to_owned(), format!("metric{metric}")),
        ("instance".to_owned(), format!("host{target}")),
        ("job".to_owned(), format!("job{}", target % 2)),
        ("zone".to_owned(), "z".to_owned()),
    ];
    pairs.extend((0..own).map(|label| (format!("label{label}"), format!("{}", label * usize::from(metric)))));
    Labels::from_pairs(pairs)
}

proptest! {
    /// Templates, pages, tables and numbers that are used again do not show.
    #[test]
    fn series_come_and_go_as_in_a_plain_map(steps in prop::collection::vec(step(), 1..250)) {
        let mut catalogue = Catalogue::default();
        let mut live: std::collections::BTreeMap<u32, Labels> = std::collections::BTreeMap::new();
        let mut unlinked: Vec<(u32, Labels)> = Vec::new();
        for step in steps {
            match step {
                Step::Add(target, metric, own) => {
                    let labels = of_target(target, metric, own);
                    let known = live.iter().find(|(_, other)| **other == labels).map(|(id, _)| *id);
                    prop_assert_eq!(catalogue.find(&labels), known);
                    if known.is_none() {
                        live.insert(catalogue.add(&labels).unwrap(), labels);
                    }
                }
                Step::Insert(target, metric, skip) => {
                    let labels = of_target(target, metric, 1);
                    if catalogue.find(&labels).is_none() {
                        let id = catalogue.next_id() + skip;
                        catalogue.insert(id, &labels);
                        live.insert(id, labels);
                    }
                }
                Step::Unlink(which) if !live.is_empty() => {
                    let id = *which.get(&live.keys().copied().collect::<Vec<_>>());
                    catalogue.unlink(id);
                    unlinked.extend(live.remove(&id).map(|labels| (id, labels)));
                }
                Step::Unlink(_) => {}
                Step::Forget => {
                    for (id, labels) in unlinked.drain(..) {
                        prop_assert_eq!(catalogue.labels(id), Some(labels));
                        catalogue.forget(id);
                        prop_assert_eq!(catalogue.labels(id), None);
                    }
                }
            }
        }
        prop_assert_eq!(catalogue.len(), live.len() as u64);
        for (id, labels) in &live {
            prop_assert_eq!(catalogue.labels(*id), Some(labels.clone()));
            prop_assert_eq!(catalogue.find(labels), Some(*id));
        }
        let mut ids: Vec<u32> = live.keys().copied().collect();
        prop_assert_eq!(catalogue.select(&[]), ids.clone());
        let host = Matcher::equal("instance", "host3");
        let want: Vec<u32> = live.iter().filter(|(_, labels)| host.matches_labels(labels)).map(|(id, _)| *id).collect();
        prop_assert_eq!(catalogue.select(&[host]), want);
        let mut values: Vec<&str> = live.values().filter_map(|labels| labels.get("label1")).collect();
        values.sort_unstable();
        values.dedup();
        prop_assert_eq!(catalogue.label_values("label1").collect::<Vec<_>>(), values);
        catalogue.sort_by_labels(&mut ids);
        for pair in ids.windows(2) {
            prop_assert!(live[&pair[0]] < live[&pair[1]]);
            prop_assert_eq!(catalogue.compare(pair[0], pair[1]), Ordering::Less);
            prop_assert_eq!(catalogue.compare(pair[1], pair[0]), Ordering::Greater);
        }
        // All leave: nothing stays but names.
        for id in live.keys() {
            catalogue.unlink(*id);
            catalogue.forget(*id);
        }
        unlinked.iter().for_each(|(id, _)| catalogue.forget(*id));
        prop_assert_eq!(catalogue.len(), 0);
        prop_assert_eq!(catalogue.words.live_pairs().count(), 0);
        prop_assert_eq!(catalogue.templates.len(), 0);
        prop_assert_eq!(catalogue.label_names(), [""; 0]);
    }
}
