//! Scenarios over several scrapes of one target.

use super::*;
use koios_model::format::float_f;
use koios_model::is_stale;

const JOB: &str = "scrape_configs:\n- job_name: j\n";

fn state(job_lines: &str) -> ScrapeLoopState {
    let body: String = job_lines.lines().map(|l| format!("  {l}\n")).collect();
    let config = koios_config::parse(&format!("{JOB}{body}"), "t.yml").unwrap_or_else(|e| panic!("{e}"));
    let target = Labels::from_pairs([("instance", "i"), ("job", "j")]);
    ScrapeLoopState::new(target, IngestSettings::of(&config.scrape_configs[0]))
}

/// Scrapes `text` at `t`; returns the samples without the report series, and the report.
fn scrape(s: &mut ScrapeLoopState, t: i64, text: &str) -> (Vec<String>, ScrapeReport) {
    let mut out = Vec::new();
    let report = s.ingest(t, Ok(BodyView { bytes: text.as_bytes(), format: Format::Text }), 0.5, &mut out);
    (show(s, &out, false), report)
}

fn show(s: &ScrapeLoopState, out: &[OutSample], reports: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for o in out {
        let labels = s.labels_of(o.series);
        let name = labels.metric_name();
        if !reports && (name == "up" || name.starts_with("scrape_")) {
            continue;
        }
        let labels = labels.without(&["job", "instance"]).to_string();
        let v = if is_stale(o.v) { "stale".to_owned() } else { float_f(o.v) };
        lines.push(format!("{labels} {v} @{}", o.t));
    }
    lines
}

#[test]
fn report_series_carry_target_labels() {
    let mut s = state("extra_scrape_metrics: true\nsample_limit: 7\nscrape_interval: 10s");
    let mut out = Vec::new();
    s.ingest(1000, Ok(BodyView { bytes: b"a 1\nb 2\n", format: Format::Text }), 0.25, &mut out);
    let all: Vec<String> =
        out[2..].iter().map(|o| format!("{} {}", s.labels_of(o.series), float_f(o.v))).collect();
    let l = "{instance=\"i\", job=\"j\"}";
    let want = [
        format!("up{l} 1"),
        format!("scrape_duration_seconds{l} 0.25"),
        format!("scrape_samples_scraped{l} 2"),
        format!("scrape_samples_post_metric_relabeling{l} 2"),
        format!("scrape_series_added{l} 2"),
        format!("scrape_timeout_seconds{l} 10"),
        format!("scrape_sample_limit{l} 7"),
        format!("scrape_body_size_bytes{l} 8"),
    ];
    assert_eq!(all, want);
}

#[test]
fn vanished_series_end_once() {
    let mut s = state("");
    assert_eq!(scrape(&mut s, 1, "a 1\nb 2\n").0, ["a 1 @1", "b 2 @1"]);
    assert_eq!(scrape(&mut s, 2, "b 3\n").0, ["b 3 @2", "a stale @2"]);
    assert_eq!(scrape(&mut s, 3, "b 4\n").0, ["b 4 @3"]);
    let (samples, report) = scrape(&mut s, 4, "a 5\nb 5\n");
    assert_eq!(samples, ["a 5 @4", "b 5 @4"]);
    assert_eq!((report.series_added, report.stale), (1, 0));
}

#[test]
fn failed_scrape_rolls_back_and_ends_everything() {
    let mut s = state("");
    scrape(&mut s, 1, "a 1\nb 2\n");
    let (samples, report) = scrape(&mut s, 2, "a 1\nc 7\nnot a metric\n");
    assert_eq!(samples, ["a stale @2", "b stale @2"]);
    assert_eq!(report.error.as_deref(), Some("line 3, column 5: \"a\" is not a number"));
    assert_eq!((report.up, report.scraped, report.post_relabel, report.series_added), (false, 2, 2, 1));
    // Failing again ends nothing twice; recovery brings the series back, and `c` was never there.
    let failed = Failed { cause: "connection refused".into(), too_big: false };
    let mut out = Vec::new();
    let report = s.ingest(3, Err(failed), 0.0, &mut out);
    assert_eq!(show(&s, &out, true)[0], "up 0 @3");
    assert_eq!((out.len(), report.scraped, report.stale), (5, 0, 0));
    assert_eq!(scrape(&mut s, 4, "a 1\nb 2\n").0, ["a 1 @4", "b 2 @4"]);
    assert_eq!(scrape(&mut s, 5, "a 1\nb 2\n").1.series_added, 0);
}

#[test]
fn body_size_of_failures() {
    let mut s = state("extra_scrape_metrics: true");
    for (too_big, want) in [(true, "scrape_body_size_bytes -1 @1"), (false, "scrape_body_size_bytes 0 @1")] {
        let mut out = Vec::new();
        s.ingest(1, Err(Failed { cause: "x".into(), too_big }), 0.0, &mut out);
        assert_eq!(show(&s, &out, true).last().unwrap(), want);
    }
}

#[test]
fn order_does_not_matter() {
    let mut s = state("");
    scrape(&mut s, 1, "a 1\nb 2\nc 3\nd 4\n");
    assert_eq!(
        scrape(&mut s, 2, "d 1\na 2\nnew 9\nb 3\nc 4\n").0,
        ["d 1 @2", "a 2 @2", "new 9 @2", "b 3 @2", "c 4 @2"]
    );
    let (samples, report) = scrape(&mut s, 3, "c 1\nb 1\na 1\n");
    assert_eq!(samples, ["c 1 @3", "b 1 @3", "a 1 @3", "d stale @3", "new stale @3"]);
    assert_eq!(report.series_added, 0);
}

#[test]
fn explicit_timestamps() {
    let mut s = state("");
    assert_eq!(scrape(&mut s, 10, "a 1 5\nb 1\n").0, ["a 1 @5", "b 1 @10"]);
    assert_eq!(scrape(&mut s, 20, "").0, ["b stale @20"]);
    let mut s = state("track_timestamps_staleness: true");
    scrape(&mut s, 10, "a 1 5\nb 1\n");
    assert_eq!(scrape(&mut s, 20, "").0, ["a stale @20", "b stale @20"]);
    let mut s = state("honor_timestamps: false");
    assert_eq!(scrape(&mut s, 10, "a 1 5\n").0, ["a 1 @10"]);
    assert_eq!(scrape(&mut s, 20, "").0, ["a stale @20"]);
    // The same series at two times is data, at the same time a duplicate.
    let mut s = state("");
    assert_eq!(scrape(&mut s, 10, "a 1 5\na 2 6\n").0, ["a 1 @5", "a 2 @6"]);
    let (samples, report) = scrape(&mut s, 20, "a 1\na 2\n");
    assert_eq!((samples, report.duplicates), (vec!["a 1 @20".to_owned()], 1));
}

#[test]
fn two_rows_of_one_series() {
    let mut s = state("metric_relabel_configs: [{regex: x, action: labeldrop}]");
    let (samples, report) = scrape(&mut s, 1, "a{x=\"1\"} 1\na{x=\"2\"} 2\n");
    assert_eq!((samples, report.duplicates), (vec!["a 1 @1".to_owned()], 1));
    // One of the two rows going away does not end the series.
    assert_eq!(scrape(&mut s, 2, "a{x=\"2\"} 2\n").0, ["a 2 @2"]);
}

#[test]
fn label_conflicts() {
    let body = "a{job=\"x\",exported_job=\"y\",instance=\"z\"} 1\n";
    let mut s = state("");
    let mut out = Vec::new();
    s.ingest(1, Ok(BodyView { bytes: body.as_bytes(), format: Format::Text }), 0.0, &mut out);
    assert_eq!(
        s.labels_of(out[0].series).to_string(),
        "a{exported_exported_job=\"x\", exported_instance=\"z\", exported_job=\"y\", instance=\"i\", job=\"j\"}"
    );
    let mut s = state("honor_labels: true");
    out.clear();
    s.ingest(1, Ok(BodyView { bytes: b"a{job=\"x\"} 1\n", format: Format::Text }), 0.0, &mut out);
    assert_eq!(s.labels_of(out[0].series).to_string(), "a{instance=\"i\", job=\"x\"}");
}

#[test]
fn limits_fail_the_scrape_and_say_why() {
    for (job, body, cause, post) in [
        ("sample_limit: 2", "a 1\nb 1\nc 1\nd 1\n", "sample limit exceeded", 4),
        (
            "label_limit: 3",
            "a{x=\"1\"} 1\n",
            "label_limit exceeded (metric: a, number of labels: 4, limit: 3)",
            0,
        ),
        (
            "label_name_length_limit: 8",
            "a{toolonglong=\"1\"} 1\n",
            "label_name_length_limit exceeded (metric: a, label name: toolonglong, length: 11, limit: 8)",
            0,
        ),
        (
            "label_value_length_limit: 3",
            "a{x=\"1234\"} 1\n",
            "label_value_length_limit exceeded (metric: a, label name: \"x\", value: \"1234\", length: 4, limit: 3)",
            0,
        ),
        (
            "metric_relabel_configs: [{target_label: __name__, replacement: ''}]",
            "a 1\n",
            "missing metric name (__name__ label)",
            0,
        ),
        (
            "metric_name_validation_scheme: legacy",
            "{\"a.b\"} 1\n",
            "invalid metric name or label names: {__name__=\"a.b\", instance=\"i\", job=\"j\"}",
            0,
        ),
        ("", "a{x=\"1\",x=\"2\"} 1\n", "label name \"x\" is not unique: invalid sample", 0),
    ] {
        let mut s = state(job);
        let (samples, report) = scrape(&mut s, 1, body);
        assert_eq!(
            (samples.len(), report.error.as_deref(), report.post_relabel),
            (0, Some(cause), post),
            "{job}"
        );
    }
    let mut s = state(
        "sample_limit: 2\nmetric_relabel_configs: [{source_labels: [__name__], regex: b, action: drop}]",
    );
    let (samples, report) = scrape(&mut s, 1, "a 1\nb 1\nc 1\n");
    assert_eq!((samples.len(), report.up, report.scraped, report.post_relabel), (2, true, 3, 2));
}

#[test]
fn the_cache_does_not_grow_by_refused_samples() {
    let mut s = state("sample_limit: 10");
    for round in 0..50 {
        let body: String = (0..500).map(|i| format!("a{{x=\"{round}-{i}\"}} 1\n")).collect();
        let (_, report) = scrape(&mut s, round, &body);
        assert_eq!((report.scraped, report.post_relabel), (500, 500));
    }
    assert!(s.cached() <= 1100, "{} rows", s.cached());
    // Churn in successful scrapes leaves nothing behind either.
    let mut s = state("");
    for round in 0..20 {
        let body: String = (0..100).map(|i| format!("a{{x=\"{round}-{i}\"}} 1\n")).collect();
        scrape(&mut s, round, &body);
    }
    assert!(s.cached() <= 200, "{} rows", s.cached());
}

#[test]
fn references_survive_and_labels_stay_valid_for_stale_markers() {
    let mut s = state("");
    let mut out = Vec::new();
    s.ingest(1, Ok(BodyView { bytes: b"a 1\nb 1\n", format: Format::Text }), 0.0, &mut out);
    for (i, o) in out.iter().enumerate() {
        assert_eq!(s.reference(o.series), None);
        s.set_reference(o.series, 100 + i as u64);
    }
    out.clear();
    s.ingest(2, Ok(BodyView { bytes: b"b 1\n", format: Format::Text }), 0.0, &mut out);
    assert_eq!(
        out.iter().map(|o| s.reference(o.series).unwrap()).collect::<Vec<_>>(),
        [101, 100, 102, 103, 104, 105, 106]
    );
    s.forget_references();
    assert!(out.iter().all(|o| s.reference(o.series).is_none()));
}

#[test]
fn leaving_and_removal() {
    let mut s = state("");
    scrape(&mut s, 1, "a 1\n");
    let mut out = Vec::new();
    s.on_target_removed(9, &mut out);
    let shown = show(&s, &out, true);
    assert_eq!((shown[0].as_str(), shown[1].as_str(), shown.len()), ("a stale @9", "up stale @9", 6));
    let mut s = state("");
    scrape(&mut s, 1, "a 1\n");
    s.on_ownership_lost();
    assert_eq!(scrape(&mut s, 2, "b 1\n").0, ["b 1 @2"]);
}

#[test]
fn reconfigured_relabelling_ends_what_it_drops() {
    let mut s = state("");
    scrape(&mut s, 1, "a 1\nb 1\n");
    let dropping = state("metric_relabel_configs: [{source_labels: [__name__], regex: a, action: drop}]");
    s.reconfigure(dropping.settings.clone());
    assert_eq!(scrape(&mut s, 2, "a 1\nb 1\n").0, ["b 1 @2", "a stale @2"]);
    assert_eq!(scrape(&mut s, 3, "a 1\nb 1\n").0, ["b 1 @3"]);
    s.reconfigure(state("").settings.clone());
    assert_eq!(scrape(&mut s, 4, "a 1\nb 1\n").0, ["a 1 @4", "b 1 @4"]);
}

#[test]
fn metadata_and_exemplars() {
    let mut s = state("");
    let body = b"# HELP a_seconds words\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1 # {id=\"7\"} 0.5 3\n# EOF\n";
    let mut out = Vec::new();
    s.ingest(1, Ok(BodyView { bytes: body, format: Format::OpenMetrics }), 0.0, &mut out);
    let family = s.families().lock().get("a_seconds").unwrap().clone();
    assert_eq!(
        (family.kind.as_str(), family.help.as_str(), family.unit.as_str()),
        ("counter", "words", "seconds")
    );
    let want =
        OutExemplar { series: out[0].series, labels: Labels::from_pairs([("id", "7")]), value: 0.5, t: 3000 };
    assert_eq!(s.exemplars(), [want]);
    // A changed word is noticed in place, an unchanged one keeps the family alive.
    for t in 2..30 {
        scrape(&mut s, t, "# HELP b one\n# TYPE b gauge\n# HELP c same\n");
    }
    scrape(&mut s, 30, "# HELP b two\n# TYPE b counter\n# HELP c same\n");
    let families = s.families().clone();
    let b = families.lock().get("b").unwrap().clone();
    assert_eq!((b.help.as_str(), b.kind.as_str()), ("two", "counter"));
    assert!(families.lock().get("a_seconds").is_none());
    assert_eq!(families.lock().len(), 2);
    assert_eq!(families.lock().get("c").unwrap().help, "same");
    for t in 31..55 {
        scrape(&mut s, t, "");
    }
    assert!(families.lock().is_empty());
}
