//! The first words of a node: where to query, write, look and join.

use std::io::IsTerminal;
use std::net::SocketAddr;

/// What the banner says.
pub struct Banner {
    pub version: &'static str,
    pub seconds: f64,
    pub cluster: String,
    pub node: String,
    pub zone: String,
    pub http: SocketAddr,
    pub gossip: SocketAddr,
    pub ready_nodes: usize,
    /// Whether remote write is taken.
    pub receives: bool,
    pub data: String,
    pub config: Option<String>,
    pub warnings: Vec<String>,
}

impl Banner {
    /// Prints a box for people on a terminal, and one log line otherwise; both name the same places.
    pub fn print(&self) {
        let config = self.config.as_deref().unwrap_or("none: the cluster scrapes itself");
        let plural = if self.ready_nodes == 1 { "" } else { "s" };
        let lines = [
            format!(
                "koios {} ready in {:.2} s     cluster {:?}   node {}   zone {}",
                self.version, self.seconds, self.cluster, self.node, self.zone
            ),
            format!("  query    http://{}/api/v1/query", self.http),
            if self.receives {
                format!(
                    "  write    http://{}/api/v1/write (remote write 1.0 and 2.0), and by scraping",
                    self.http
                )
            } else {
                "  write    by scraping only: remote write is switched off by flag or role".to_owned()
            },
            format!(
                "  cluster  http://{}/cluster ({} node{plural}; start others with: koios --join {})",
                self.http, self.ready_nodes, self.gossip
            ),
            format!("  data     {}", self.data),
            format!("  config   {config}"),
        ];
        let warnings = self.warnings.iter().map(|w| format!("  warn     {w}"));
        if std::io::stderr().is_terminal() {
            lines.into_iter().chain(warnings).for_each(|l| eprintln!("{l}"));
        } else {
            for line in lines.into_iter().chain(warnings) {
                tracing::info!("{}", line.trim());
            }
        }
    }
}
