//! `koios tsdb ls|analyze|dump`: what blocks hold, without a running node.
//!
//! Flags and output are promtool's; what they mean is `koios_compact::show`'s business.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use koios_compact::show::{self, DumpFormat, DumpOptions, ShowError, Shown};
use koios_model::Matcher;

#[derive(Debug, Subcommand)]
pub enum Tsdb {
    /// List the blocks.
    #[command(alias = "list")]
    Ls {
        /// Readable times and sizes.
        #[arg(short = 'r', long = "human-readable")]
        human: bool,
        /// A data directory of Koios or Prometheus, or a directory of blocks.
        #[arg(default_value = "./data")]
        db: PathBuf,
    },
    /// Churn, label cardinality and fullness of chunks of one block.
    Analyze {
        /// Most items of each list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Read every chunk too.
        #[arg(long)]
        extended: bool,
        /// Only series that this selector selects, e.g. '{job="api"}'.
        #[arg(long = "match", value_name = "SELECTOR")]
        selector: Option<String>,
        /// A data directory of Koios or Prometheus, or a directory of blocks.
        #[arg(default_value = "./data")]
        db: PathBuf,
        /// The block; the newest when not given.
        block: Option<String>,
    },
    /// Write every sample as a line.
    Dump(DumpArgs),
}

#[derive(Args, Debug)]
pub struct DumpArgs {
    /// First time, milliseconds.
    #[arg(long, default_value_t = i64::MIN, allow_hyphen_values = true)]
    min_time: i64,
    /// Last time, milliseconds.
    #[arg(long, default_value_t = i64::MAX, allow_hyphen_values = true)]
    max_time: i64,
    /// Only series that one of these selectors selects; repeatable.
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// How a line looks.
    #[arg(long, value_enum, default_value = "prom")]
    format: Format,
    /// A data directory of Koios or Prometheus, or a directory of blocks.
    #[arg(default_value = "./data")]
    db: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Prom,
    Openmetrics,
}

/// Runs one.
pub fn run(what: Tsdb) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let done = show(what, &mut out).and_then(|()| out.flush().map_err(|e| ShowError::Output(e).to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("koios: {why}");
            ExitCode::FAILURE
        }
    }
}

fn show(what: Tsdb, out: &mut dyn Write) -> Result<(), String> {
    let text = |e: ShowError| e.to_string();
    match what {
        Tsdb::Ls { human, db } => show::ls(&open(&db)?, human, out).map_err(text),
        Tsdb::Analyze { limit, extended, selector, db, block } => {
            let db = open(&db)?;
            let matchers = selector.map_or(Ok(Vec::new()), |s| selected(&s))?;
            let found = match &block {
                None => db.blocks.last(),
                Some(id) => db.blocks.iter().find(|b| b.meta().ulid.to_string() == *id),
            };
            let wanted = block.unwrap_or_else(|| "(any)".to_owned());
            let found = found.ok_or_else(|| ShowError::NoBlock(wanted, db.dir.clone()).to_string())?;
            let analysis = show::analyze(found, &matchers, extended).map_err(text)?;
            analysis.write(found, limit, out).map_err(text)
        }
        Tsdb::Dump(args) => {
            let sets = args.selectors.iter().map(|s| selected(s)).collect::<Result<_, _>>()?;
            let format = match args.format {
                Format::Prom => DumpFormat::Prometheus,
                Format::Openmetrics => DumpFormat::OpenMetrics,
            };
            let options = DumpOptions { min_time: args.min_time, max_time: args.max_time, sets, format };
            show::dump(&open(&args.db)?, &options, out).map_err(text)
        }
    }
}

fn selected(selector: &str) -> Result<Vec<Matcher>, String> {
    koios_promql::parse_selector(selector).map_err(|e| format!("--match {selector}: {e}"))
}

/// Opens the blocks and says on the terminal what is not among them.
fn open(path: &Path) -> Result<Shown, String> {
    let shown = show::open(path).map_err(|e| e.to_string())?;
    for (id, why) in &shown.damaged {
        eprintln!("koios: block {id} is passed over: {why}");
    }
    if ["wal", "head"].iter().any(|log| path.join(log).is_dir()) {
        eprintln!(
            "koios: {} has a log too; its samples are in no block yet and are not shown",
            path.display()
        );
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use koios_block::{BlockMetaExtras, BlockWriter};
    use koios_model::{BlockId, Columns, Labels};

    #[test]
    fn flags_reach_the_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = dir.path().join("bucket");
        std::fs::create_dir_all(&bucket).unwrap();
        let id = BlockId::from_parts(7, 7);
        let mut samples = Columns::default();
        (0..10).for_each(|i| samples.push(i * 1000, i as f64));
        let mut w = BlockWriter::create(&bucket, id).unwrap();
        for job in ["a", "b"] {
            let labels = Labels::from_pairs([("__name__", "m"), ("job", job)]);
            w.add_series(&labels, &koios_chunk::encode_xor(&samples, 120)).unwrap();
        }
        w.finish(0, 10_000, BlockMetaExtras::default()).unwrap();
        let db = dir.path().display().to_string();
        let said = |args: &[&str]| {
            let all: Vec<&str> = ["koios", "tsdb"].iter().chain(args).copied().collect();
            let Some(crate::cli::Command::Tsdb { what }) = crate::cli::Cli::parse_from(all).command else {
                panic!("{args:?} is no tsdb command");
            };
            let mut out = Vec::new();
            show(what, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(said(&["ls", &db]).unwrap().lines().count(), 2);
        assert_eq!(said(&["list", "-r", &db]).unwrap().lines().count(), 2);
        assert_eq!(said(&["dump", &db]).unwrap().lines().count(), 20);
        let few = [
            "dump",
            "--min-time=2000",
            "--max-time=3000",
            "--match={job=\"a\"}",
            "--format=openmetrics",
            &db,
        ];
        assert_eq!(said(&few).unwrap(), "m{job=\"a\"} 2 2.000\nm{job=\"a\"} 3 3.000\n# EOF\n");
        let analysis = said(&["analyze", "--limit=1", "--extended", "--match={job=\"a\"}", &db]).unwrap();
        assert!(analysis.contains("Matched Series: 1\n") && analysis.contains("100% is 120"), "{analysis}");
        assert!(said(&["analyze", &db, &id.to_string()]).is_ok());
        for (args, want) in [
            (vec!["analyze", &db, "01M83HF9580C2THH5FQ3YMEJWH"], "koios tsdb ls"),
            (vec!["dump", "--match={job=", &db], "--match {job="),
            (vec!["ls", "/nowhere/at/all"], "list /nowhere"),
        ] {
            let why = said(&args).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}
