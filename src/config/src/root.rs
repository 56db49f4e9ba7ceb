//! The whole configuration: reading a file, the files it includes, and the checks that span sections.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use koios_model::Labels;

use crate::alerting::AlertingConfig;
use crate::error::{ConfigError, ConfigErrors, Place, Related};
use crate::glob::expand_globs;
use crate::global::GlobalConfig;
use crate::koios::KoiosSection;
use crate::read::{Ctx, Section};
use crate::redact;
use crate::remote::{self, RemoteReadConfig, RemoteWriteConfig};
use crate::scrape::{self, ScrapeConfig};
use crate::sd::glob_outside_name;
use crate::storage::StorageConfig;
use crate::telemetry::{OtlpConfig, RuntimeConfig, TracingConfig};
use crate::yaml::{self, Node, Span};

/// Bytes of one configuration file.
const FILE_MAX: u64 = 64 << 20;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from; `None` when there was none.
    pub file: Option<PathBuf>,
    /// `global:`
    pub global: GlobalConfig,
    /// `runtime:`
    pub runtime: RuntimeConfig,
    /// Rule file patterns, resolved against the file.
    pub rule_files: Vec<PathBuf>,
    /// Patterns of included files, resolved; their jobs are in `scrape_configs` after `load`.
    pub scrape_config_files: Vec<PathBuf>,
    /// Scrape jobs.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// `alerting:`
    pub alerting: AlertingConfig,
    /// Receivers of what is ingested.
    pub remote_write: Vec<RemoteWriteConfig>,
    /// Sources for queries.
    pub remote_read: Vec<RemoteReadConfig>,
    /// `otlp:`
    pub otlp: OtlpConfig,
    /// `storage:`
    pub storage: StorageConfig,
    /// `tracing:`
    pub tracing: Option<TracingConfig>,
    /// `koios:`
    pub koios: KoiosSection,
    /// The text as read, secrets included: never show it.
    source_text: Hidden,
    redacted: String,
}

/// A text that `Debug` does not show.
#[derive(Clone, Default, PartialEq)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Default for Config {
    /// What a node runs with when there is no file.
    fn default() -> Self {
        parse("", "").unwrap_or_else(|e| unreachable!("BUG: the empty configuration is refused: {e}"))
    }
}

impl Config {
    /// Labels added to everything that leaves this cluster.
    pub fn external_labels(&self) -> &Labels {
        &self.global.external_labels
    }

    /// The configuration as YAML with defaults filled in and every secret shown as `<secret>`.
    pub fn redacted_yaml(&self) -> String {
        self.redacted.clone()
    }

    /// The text as read. It holds secrets; it is meant for hashing, to notice change.
    pub fn source_text(&self) -> &str {
        &self.source_text.0
    }

    /// How late a sample may be, milliseconds: Prometheus' field when written, else ours.
    pub fn out_of_order_window_ms(&self) -> i64 {
        self.storage.tsdb.out_of_order_time_window_ms.unwrap_or(self.koios.storage.out_of_order_window_ms)
    }

    /// Age at which local data is deleted, milliseconds: Prometheus' field when written, else ours.
    pub fn retention_ms(&self) -> i64 {
        self.storage.tsdb.retention_time_ms.unwrap_or(self.koios.storage.retention_ms)
    }
}

/// Reads a file and the files it includes.
///
/// # Errors
/// All mistakes found in it, or why it cannot be read.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
    let path = path.as_ref();
    let text = read_text(path).map_err(|e| ConfigErrors(vec![unreadable(path, &e)]))?;
    let mut config = parse(&text, &path.to_string_lossy())?;
    include(&mut config)?;
    Ok(config)
}

/// Reads a text that came from `file_name`; relative paths resolve against its directory, and the files it
/// names are not opened. Environment variables come from the process.
///
/// # Errors
/// All mistakes found, in file order.
pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
    parse_with_env(text, file_name, &|name| std::env::var(name).ok())
}

/// `parse` with a given environment.
///
/// # Errors
/// All mistakes found, in file order.
pub fn parse_with_env(
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    let ctx = Ctx::new(file_name, text, env);
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(fault) => {
            ctx.fault(*fault);
            Node::null(Span { line: 1, column: 1, len: 1 })
        }
    };
    let mut config = {
        let section = Section::open(&ctx, &root, "");
        read(section)
    };
    let (errors, secrets) = ctx.finish();
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    config.file = (!file_name.is_empty()).then(|| PathBuf::from(file_name));
    config.source_text = Hidden(text.to_owned());
    config.redacted = redact::render(&root, &config, &secrets);
    Ok(config)
}

fn read(mut s: Section<'_>) -> Config {
    let global = s.section("global").map(GlobalConfig::read).unwrap_or_default();
    let scheme = global.name_scheme;
    let config = Config {
        file: None,
        runtime: s.section("runtime").map(RuntimeConfig::read).unwrap_or_default(),
        rule_files: patterns(&mut s, "rule_files"),
        scrape_config_files: patterns(&mut s, "scrape_config_files"),
        scrape_configs: scrape::jobs(&mut s, &global),
        alerting: s.section("alerting").map(|a| AlertingConfig::read(a, scheme)).unwrap_or_default(),
        remote_write: remote::writers(&mut s, scheme),
        remote_read: remote::readers(&mut s),
        otlp: s.section("otlp").map(OtlpConfig::read).unwrap_or_default(),
        storage: s.section("storage").map(StorageConfig::read).unwrap_or_default(),
        tracing: s.section("tracing").map(TracingConfig::read),
        koios: s.section("koios").map(KoiosSection::read).unwrap_or_default(),
        global,
        source_text: Hidden::default(),
        redacted: String::new(),
    };
    s.finish();
    config
}

fn patterns(s: &mut Section<'_>, name: &'static str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for text in s.texts(name) {
        if text.text.is_empty() {
            s.ctx.error(
                1104,
                text.span,
                format!("an entry of `{name}` is empty"),
                "write a path, or remove the `-`",
            );
        } else if glob_outside_name(&text.text) {
            let cause = format!("{:?}: wildcards may stand in the last path element only", text.text);
            s.ctx.error(1312, text.span, cause, "list the directories one by one");
        } else {
            out.push(s.ctx.resolve(&text.text));
        }
    }
    out
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("{size} bytes, more than {FILE_MAX}"));
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
}

fn unreadable(path: &Path, why: &str) -> ConfigError {
    let file = path.to_string_lossy();
    ConfigError {
        number: 1008,
        place: Place { file: (&*file).into(), line: 0, column: 0, len: 0, text: String::new() },
        cause: format!("cannot read {file}: {why}"),
        fix: "check the path, its permissions, and that it is a UTF-8 text file".into(),
        related: None,
    }
}

/// Adds the jobs of `scrape_config_files`.
fn include(config: &mut Config) -> Result<(), ConfigErrors> {
    let mut errors = Vec::new();
    let mut owner: HashMap<String, PathBuf> = HashMap::new();
    for job in &config.scrape_configs {
        owner.insert(job.job_name.clone(), config.file.clone().unwrap_or_default());
    }
    for file in expand_globs(&config.scrape_config_files) {
        match include_one(&file, &config.global) {
            Err(found) => errors.extend(found.0),
            Ok(jobs) => {
                for job in jobs {
                    if let Some(first) = owner.insert(job.job_name.clone(), file.clone()) {
                        errors.push(duplicate_across(&job.job_name, &file, &first));
                    }
                    config.scrape_configs.push(job);
                }
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

fn include_one(file: &Path, global: &GlobalConfig) -> Result<Vec<ScrapeConfig>, ConfigErrors> {
    let text = read_text(file).map_err(|e| ConfigErrors(vec![unreadable(file, &e)]))?;
    let name = file.to_string_lossy();
    let ctx = Ctx::new(&name, &text, &|_| None);
    let mut jobs = Vec::new();
    match yaml::parse(&text) {
        Ok(root) => {
            let mut s = Section::open(&ctx, &root, "");
            jobs = scrape::jobs(&mut s, global);
            s.finish();
        }
        Err(fault) => ctx.fault(*fault),
    }
    let (errors, _) = ctx.finish();
    if errors.is_empty() { Ok(jobs) } else { Err(ConfigErrors(errors)) }
}

fn duplicate_across(job: &str, second: &Path, first: &Path) -> ConfigError {
    let place = |path: &Path| Place {
        file: (&*path.to_string_lossy()).into(),
        line: 0,
        column: 0,
        len: 0,
        text: String::new(),
    };
    ConfigError {
        number: 1301,
        place: place(second),
        cause: format!("job {job:?} is defined in two files"),
        fix: "rename one of them".into(),
        related: Some(Related { place: place(first), note: format!("job {job:?} is first defined here") }),
    }
}
