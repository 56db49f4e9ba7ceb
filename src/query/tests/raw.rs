//! The series of the whole cluster as they are stored, for those who speak to other systems.

mod nodes;

use koios_chunk::SeriesChunks;
use koios_model::Matcher;
use koios_query::scope::Form;
use koios_query::{FragmentLimits, Lens, Want};
use koios_store::Dress;
use nodes::{Cluster, Head, OWN_LABEL, made, want};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_stay_apart_and_copies_are_left_out() {
    // Heads of two nodes still have what is in the blocks of the first hour, and one has the third hour.
    let head = |hours: &[i64]| Head {
        series: hours.iter().flat_map(|h| (0..5).map(|n| made(n, *h))).collect(),
        ..Head::default()
    };
    let heads = vec![head(&[0]), head(&[0, 2])];
    let c = Cluster::start(2, 5, FragmentLimits::default(), heads).await;
    let mut answers: Vec<Vec<SeriesChunks>> = Vec::new();
    for i in 0..3 {
        let (a, view) = (c.coordinator(i), c.view(c.nodes[i].name));
        let (series, gaps) = a.raw(&view, &want(3), Form::Chunks).await.unwrap();
        assert_eq!(gaps, []);
        answers.push(series);
    }
    let [one, two, three] = &answers[..] else { unreachable!("three nodes") };
    assert!(one == two && two == three, "the same on every node");
    let keys: Vec<_> = one.iter().map(|s| (s.labels.clone(), s.slot)).collect();
    assert!(keys.len() == 10 && keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    for s in one {
        let hours = if s.slot.0 == 0 { 3 } else { 2 };
        let samples: usize = s.chunks.iter().filter_map(|c| c.sample_count()).sum();
        assert_eq!(samples, hours * 60, "{} {}", s.labels, s.slot);
    }

    // In full dress what the heads have says whose it is, and can be asked for by that.
    let (a, view) = (c.coordinator(0), c.view("a"));
    let by_label = |dress| {
        let matchers = [want(3).matchers, vec![Matcher::equal(OWN_LABEL.0, OWN_LABEL.1)]].concat();
        Want { matchers, dress, ..want(3) }
    };
    let (full, _) = a.raw(&view, &by_label(Dress::Full), Form::Chunks).await.unwrap();
    assert!(
        full.len() == 5 && full.iter().all(|s| s.labels.get(OWN_LABEL.0) == Some(OWN_LABEL.1)),
        "{full:?}"
    );
    assert!(a.raw(&view, &by_label(Dress::Home), Form::Chunks).await.unwrap().0.is_empty());
    let values = a.words(&view, &by_label(Dress::Full), OWN_LABEL.0).await.unwrap().0;
    assert_eq!(values, [OWN_LABEL.1]);
    assert!(a.words(&view, &by_label(Dress::Full), "").await.unwrap().0.contains(&OWN_LABEL.0.to_owned()));
    let (labels, _) = a.raw(&view, &want(3), Form::Labels).await.unwrap();
    assert!(labels.len() == 10 && labels.iter().all(|s| s.chunks.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn our_own_slots_can_be_shown_apart() {
    let c = Cluster::start(2, 5, FragmentLimits::default(), Vec::new()).await;
    let a = c.coordinator(0);
    let (together, _) = c.all(&a, 0, &want(2)).await;
    let lens = Lens { apart: true, ..Lens::default() };
    let (apart, _) = c.all(&a, 0, &Want { lens, ..want(2) }).await;
    assert_eq!((together.len(), apart.len()), (5, 10));
    for (labels, samples) in together {
        let of = |slot: u8| labels.replace('}', &format!(", replica=\"{slot}\"}}"));
        for slot in [0, 1] {
            assert!(apart.contains(&(of(slot), samples.clone())), "{} of {apart:?}", of(slot));
        }
    }
}
