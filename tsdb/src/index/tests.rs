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
