//! Where targets come from: written down, in files that are watched, or asked of an HTTP server. Every other mechanism
//! that Prometheus knows is recognised and refused by name, so that nobody wonders where the targets went.

use std::path::PathBuf;

use koios_model::Labels;

use crate::error::ConfigErrors;
use crate::global::check_label_name;
use crate::http_client::{HttpClientConfig, url};
use crate::names::NameScheme;
use crate::read::{Ctx, Section};
use crate::secret::MaskedUrl;
use crate::yaml::{self, Kind, Node};

/// A group of targets that share labels.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticGroup {
    /// `host:port` each.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// Target groups in JSON or YAML files.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSd {
    /// Paths; the last element may hold `*` and `?`.
    pub files: Vec<PathBuf>,
    /// How often the files are read even when nothing seems to have changed.
    pub refresh_ms: i64,
}

/// Target groups that a server tells as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSd {
    /// What is asked.
    pub url: MaskedUrl,
    /// How often.
    pub refresh_ms: i64,
    /// Client side of HTTP.
    pub http: HttpClientConfig,
}

/// Mechanisms of Prometheus 3.14 that are not here yet.
const UNSUPPORTED: &[&str] = &[
    "aws_sd_configs",
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "oci_sd_configs",
    "openstack_sd_configs",
    "outscale_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
];

/// All sources of targets of one job.
pub(crate) struct Sources {
    pub(crate) groups: Vec<StaticGroup>,
    pub(crate) files: Vec<FileSd>,
    pub(crate) https: Vec<HttpSd>,
}

/// Reads the discovery fields that stand inline in `s`. `plain` says that addresses are used as they are,
/// without relabelling, and may be checked already.
pub(crate) fn read(s: &mut Section<'_>, scheme: NameScheme, plain: bool) -> Sources {
    let groups = s.sections("static_configs").into_iter().map(|g| group(g, scheme, plain)).collect();
    let files = s.sections("file_sd_configs").into_iter().map(file_sd).collect();
    let https = s.sections("http_sd_configs").into_iter().filter_map(http_sd).collect();
    for name in UNSUPPORTED {
        s.allow(name);
        if s.has(name) {
            let kind = name.trim_end_matches("_sd_configs");
            let cause = format!("service discovery `{kind}` is not supported yet");
            let fix = "use `static_configs`, `file_sd_configs` or `http_sd_configs`; an exporter of target lists can bridge the gap";
            s.ctx.error(1401, s.key_span(name), cause, fix);
        }
    }
    Sources { groups, files, https }
}

/// Refuses servers of targets where they are not asked.
pub(crate) fn refuse_https(s: &Section<'_>, where_to: &str) {
    if s.has("http_sd_configs") {
        let cause = format!("service discovery `http` is not supported yet {where_to}");
        s.ctx.error(1401, s.key_span("http_sd_configs"), cause, "use `static_configs` or `file_sd_configs`");
    }
}

fn http_sd(mut s: Section<'_>) -> Option<HttpSd> {
    if s.raw("url").is_none() {
        s.missing("url", "add `url: http://HOST/PATH`; it answers with a JSON list of target groups");
    }
    let url = url(&mut s, "url");
    let refresh_ms = s.duration("refresh_interval").filter(|v| *v > 0).unwrap_or(60_000);
    let http = HttpClientConfig::read(&mut s);
    s.finish();
    Some(HttpSd { url: url?, refresh_ms, http })
}

fn group(mut s: Section<'_>, scheme: NameScheme, plain: bool) -> StaticGroup {
    let mut targets = Vec::new();
    for target in s.texts("targets") {
        if target.text.is_empty() {
            s.ctx.error(1209, target.span, "empty target", "write `host:port`, or remove the entry");
            continue;
        }
        if plain && target.text.contains('/') {
            let (scheme, rest) = target.text.split_once("://").unwrap_or(("", &target.text));
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let mut fix = format!("write `{host}`");
            if !scheme.is_empty() {
                fix.push_str(&format!(", `scheme: {scheme}`"));
            }
            if !path.is_empty() {
                fix.push_str(&format!(", `metrics_path: /{path}`"));
            }
            let cause =
                format!("{:?} is not a host and port: a target has no scheme and no path", target.text);
            s.ctx.error(1209, target.span, cause, fix);
            continue;
        }
        targets.push(target.text);
    }
    let labels = s.pairs("labels");
    for (name, _) in &labels {
        check_label_name(&s, scheme, name);
    }
    s.finish();
    StaticGroup { targets, labels: Labels::from_pairs(labels.into_iter().map(|(n, v)| (n.text, v.text))) }
}

fn file_sd(mut s: Section<'_>) -> FileSd {
    let mut files = Vec::new();
    for file in s.texts("files") {
        let lower = file.text.to_ascii_lowercase();
        if ![".json", ".yml", ".yaml"].iter().any(|end| lower.ends_with(end)) {
            let cause =
                format!("{:?} is not a target file: the name must end in .json, .yml or .yaml", file.text);
            s.ctx.error(1312, file.span, cause, "rename the file, or end the pattern with `.json` or `.yml`");
        } else if glob_outside_name(&file.text) {
            let cause = format!("{:?}: wildcards may stand in the last path element only", file.text);
            s.ctx.error(1312, file.span, cause, "list the directories one by one");
        }
        files.push(s.ctx.resolve(&file.text));
    }
    if files.is_empty() {
        s.missing("files", "list at least one target file, e.g. `files: ['targets/*.json']`");
    }
    let refresh_ms = s.duration("refresh_interval").filter(|v| *v > 0).unwrap_or(300_000);
    s.finish();
    FileSd { files, refresh_ms }
}

/// Whether a pattern has a wildcard before its last path element.
pub(crate) fn glob_outside_name(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(dir, _)| dir.contains(['*', '?', '[']))
}

/// Reads a YAML target file: a list of `targets` with `labels`.
///
/// # Errors
/// All mistakes found, in file order.
pub fn parse_target_groups(text: &str, file_name: &str) -> Result<Vec<StaticGroup>, ConfigErrors> {
    let no_env = |_: &str| None;
    let ctx = Ctx::new(file_name, text, &no_env);
    let mut out = Vec::new();
    match yaml::parse(text) {
        Err(fault) => ctx.fault(*fault),
        Ok(Node { kind: Kind::Null, .. }) => {}
        Ok(Node { kind: Kind::Seq(nodes), .. }) => {
            for (i, node) in nodes.iter().enumerate() {
                let section = Section::open(&ctx, node, format!("group {}", i + 1));
                out.push(group(section, NameScheme::Utf8, false));
            }
        }
        Ok(other) => {
            let cause = format!("a target file must be a list of groups, this is {}", other.describe());
            ctx.error(1102, other.span, cause, "start each group with `- targets: [host:port]`");
        }
    }
    let (errors, _) = ctx.finish();
    if errors.is_empty() { Ok(out) } else { Err(ConfigErrors(errors)) }
}
