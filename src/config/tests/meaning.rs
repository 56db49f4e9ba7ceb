//! What configurations mean: defaults, inheritance, includes, secrets, several mistakes at once.

use std::fs;
use std::path::Path;

use koios_config::{Config, ScrapeProtocol, SecretSource, WalSync, load, parse, parse_with_env};

fn good(name: &str) -> Config {
    load(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/good").join(name))
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn no_file_has_every_default() {
    let c = Config::default();
    assert_eq!((c.global.scrape_interval_ms, c.global.scrape_timeout_ms), (60_000, 10_000));
    assert_eq!((c.retention_ms(), c.out_of_order_window_ms()), (15 * 86_400_000, 1_800_000));
    assert_eq!((c.koios.scrape.replicas, c.koios.cluster.name.as_str()), (2, "default"));
    assert!(c.scrape_configs.is_empty() && c.file.is_none() && c.source_text().is_empty());
    assert!(c.redacted_yaml().starts_with("global:\n  scrape_interval: 1m\n"), "{}", c.redacted_yaml());
}

#[test]
fn jobs_inherit() {
    let text = "global: {scrape_interval: 5s, sample_limit: 7, scrape_native_histograms: true}\n\
                scrape_configs: [{job_name: a}, {job_name: b, scrape_interval: 1m, sample_limit: 9, scrape_native_histograms: false}]";
    let c = parse(text, "x.yml").unwrap();
    let (a, b) = (&c.scrape_configs[0], &c.scrape_configs[1]);
    // The default timeout shrinks to the interval.
    assert_eq!((a.scrape_interval_ms, a.scrape_timeout_ms, a.limits.samples), (5000, 5000, 7));
    assert_eq!((b.scrape_interval_ms, b.scrape_timeout_ms, b.limits.samples), (60_000, 5000, 9));
    assert_eq!(a.scrape_protocols[0], ScrapeProtocol::PrometheusProto);
    assert_eq!(b.scrape_protocols, ScrapeProtocol::DEFAULT);
}

#[test]
fn full_file_is_read_field_by_field() {
    let c = good("full.yml");
    let job = &c.scrape_configs[0];
    assert_eq!(
        (job.scheme.as_str(), job.metrics_path.as_str(), job.limits.body_size),
        ("https", "/probe", 1 << 20)
    );
    assert_eq!(
        job.params,
        [
            ("module".to_owned(), vec!["http_2xx".to_owned()]),
            ("target".to_owned(), vec!["a".into(), "b".into()])
        ]
    );
    assert!(c.rule_files[0].ends_with("config/good/rules/*.yml"), "{:?}", c.rule_files);
    assert_eq!(c.rule_files[1], Path::new("/etc/koios/rules.yml"));
    let Some(SecretSource::File(ca)) = &job.http.tls.ca else { panic!("{:?}", job.http.tls) };
    assert!(ca.ends_with("config/good/ca.pem"));
    assert_eq!(c.remote_write[0].queue.max_backoff_ms, 10_000);
    assert_eq!(
        (c.retention_ms(), c.koios.storage.retention_ms, c.koios.storage.wal_sync),
        (30 * 86_400_000, 0, WalSync::Interval)
    );
    assert_eq!(c.koios.query.replica_labels, ["replica", "prometheus_replica"]);
    assert_eq!(c.tracing.as_ref().map(|t| (t.grpc, t.gzip)), Some((false, true)));
}

#[test]
fn secrets_are_never_shown() {
    let c = good("full.yml");
    assert_eq!(c.source_text().matches("hunter2").count(), 11);
    let shown = c.redacted_yaml();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("<secret>").count(), 11, "{shown}");
    let debug = format!("{c:?}");
    assert!(
        !debug.contains("hunter2"),
        "{:?}",
        debug.find("hunter2").map(|i| &debug[i.saturating_sub(60)..i])
    );
    let proxy = c.scrape_configs[0].http.proxy.url.as_ref().unwrap();
    assert_eq!(proxy.reveal(), "http://user:hunter2@proxy:3128");
}

#[test]
fn errors_do_not_show_secrets_either() {
    let text = "scrape_configs:\n- job_name: a\n  basic_auth: {password: hunter2, password_file: x}\n  proxy_url: ftp://u:hunter2@h\n";
    let errors = parse(text, "x.yml").unwrap_err();
    assert_eq!(errors.0.len(), 2);
    let shown = format!("{errors} {errors:?} {}", errors.summary());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("  basic_auth: {password: *******, password_file: x}"), "{shown}");
    assert!(shown.contains("\"ftp://u:<secret>@h\" is not an http or https URL"), "{shown}");
}

#[test]
fn scalars_keep_their_text() {
    let c = good("scalars.yml");
    let labels = c.external_labels();
    let want = [("a", "1"), ("b", "true"), ("c", "0x10"), ("d", "yes"), ("f", "1.50")];
    assert_eq!(labels.iter().collect::<Vec<_>>(), want);
    let job = &c.scrape_configs[0];
    assert_eq!((job.job_name.as_str(), job.honor_labels, job.honor_timestamps), ("1234", true, false));
    assert_eq!(job.static_configs[0].labels.value("on"), "off");
    assert_eq!(job.static_configs[0].targets, ["[::1]:9100", "10.0.0.1:80"]);
}

#[test]
fn merges_and_aliases() {
    let c = good("anchors.yml");
    let (a, b) = (&c.scrape_configs[0], &c.scrape_configs[1]);
    assert_eq!((b.job_name.as_str(), b.scrape_interval_ms), ("b", 10_000));
    assert_eq!(a.metric_relabel_configs, b.metric_relabel_configs);
    assert_eq!(c.global.scrape_timeout_ms, 5000);
}

#[test]
fn external_labels_expand_the_environment() {
    let env = |n: &str| (n == "REGION").then(|| "eu".to_owned());
    let text = "global: {external_labels: {a: '${REGION}-1', b: $REGION, c: $$x, d: '${GONE}'}}\nrule_files: ['$REGION.yml']";
    let c = parse_with_env(text, "", &env).unwrap();
    assert_eq!(c.external_labels().to_string(), "{a=\"eu-1\", b=\"eu\", c=\"$x\"}");
    assert_eq!(c.rule_files, [Path::new("$REGION.yml")]);
    assert!(
        c.redacted_yaml().contains("  external_labels:\n    a: eu-1\n    b: eu\n"),
        "{}",
        c.redacted_yaml()
    );
}

#[test]
fn all_mistakes_are_found_in_one_go() {
    let text = "global:\n  scrape_interval: 15\n  colour: red\nscrape_configs:\n  - job_name: a\n    scheme: htps\n  - job_name: a\n    kubernetes_sd_configs: []\n\
                    consul_sd_configs: []\n    relabel_configs:\n      - action: remove\n"
        .replace("consul_sd", "    consul_sd");
    let errors = parse(&text, "dir/x.yml").unwrap_err();
    let found: Vec<String> =
        errors.iter().map(|e| format!("{} {}:{}", e.id(), e.place.line, e.place.column)).collect();
    assert_eq!(
        found,
        ["E1201 2:20", "E1101 3:3", "E1204 6:13", "E1301 7:15", "E1401 8:5", "E1401 9:5", "E1204 11:17"]
    );
    let related = errors.0[3].related.as_ref().unwrap();
    assert_eq!((related.place.line, related.place.column), (5, 15));
    assert!(errors.summary().starts_with("dir/x.yml:2:20: ") && errors.summary().ends_with("(and 6 more)"));
    assert_eq!(errors.to_string().matches("\nerror[").count() + 1, 7);
}

#[test]
fn included_files_bring_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(
        at("main.yml"),
        "global: {scrape_interval: 7s}\nscrape_config_files: ['jobs-*.yml']\nscrape_configs: [{job_name: a}]",
    )
    .unwrap();
    fs::write(at("jobs-1.yml"), "scrape_configs: [{job_name: b, file_sd_configs: [{files: [t.json]}]}]")
        .unwrap();
    let c = load(at("main.yml")).unwrap();
    assert_eq!(c.scrape_configs.iter().map(|j| j.job_name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        (c.scrape_configs[1].scrape_interval_ms, &c.scrape_configs[1].file_sd_configs[0].files[0]),
        (7000, &at("t.json"))
    );
    fs::write(at("jobs-2.yml"), "scrape_configs: [{job_name: a}]").unwrap();
    let e = load(at("main.yml")).unwrap_err();
    assert_eq!((e.0.len(), e.0[0].number), (1, 1301));
    assert!(e.to_string().contains("jobs-2.yml") && e.to_string().contains("main.yml"), "{e}");
    fs::write(at("jobs-2.yml"), "global: {}").unwrap();
    assert_eq!(load(at("main.yml")).unwrap_err().0[0].number, 1101);
    let e = load(at("none.yml")).unwrap_err();
    assert!(e.to_string().contains("cannot read") && e.0[0].number == 1008, "{e}");
    fs::write(at("bytes.yml"), b"a: \xff").unwrap();
    assert!(load(at("bytes.yml")).unwrap_err().to_string().contains("not UTF-8 at byte 3"));
}

#[test]
fn hostile_yaml_is_bounded() {
    // A billion laughs: each level holds the one before ten times.
    let mut text = "a0: &a0 [x]\n".to_owned();
    for i in 1..12 {
        let uses = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{uses}]\n"));
    }
    assert_eq!(parse(&text, "").unwrap_err().0[0].number, 1005);
    let deep = "[".repeat(100_000);
    assert_eq!(parse(&deep, "").unwrap_err().0[0].number, 1001);
    let wide: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    assert_eq!(parse(&wide, "").unwrap_err().0[0].number, 1005);
    let many: String = (0..5000).map(|i| format!("k{i}: 1\n")).collect();
    assert_eq!(parse(&many, "").unwrap_err().0.len(), 200);
}
