//! What can go wrong between nodes, each with the step that failed and the fix.
//!
//! A join that fails must read like advice: every `JoinProblem` names the step, what was seen and what to
//! do. Secrets never appear in a message.

use std::net::SocketAddr;

use koios_model::{Code, Coded};

/// Why a seed could not be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinProblem {
    /// The name does not resolve.
    #[error(
        "step resolve: seed {seed:?} does not resolve ({detail}); fix: check the spelling, or give --join an address"
    )]
    Resolve {
        /// Seed as given.
        seed: String,
        /// The resolver's words.
        detail: String,
    },
    /// Nobody listens there, or a firewall is in between.
    #[error(
        "step connect: no answer from {addr}/tcp for seed {seed:?} ({detail}); fix: start that node, or check the port \
         (a cluster address ends in the seed's --cluster.listen-address port, 7946 by default) and the firewall"
    )]
    Connect {
        /// Seed as given.
        seed: String,
        /// Address tried.
        addr: SocketAddr,
        /// The system's words.
        detail: String,
    },
    /// Something listens, but not Koios.
    #[error(
        "step greet: {addr} answers, but not as a Koios cluster port ({detail}); fix: give --join the cluster address \
         (7946 by default), not the HTTP (9090) or gRPC (10901) one"
    )]
    NotKoios {
        /// Address tried.
        addr: SocketAddr,
        /// What was received.
        detail: String,
    },
    /// Another cluster.
    #[error(
        "step cluster name: {addr} belongs to cluster {theirs:?}, this node to {ours:?}; fix: set --cluster.name={theirs} \
         here, or join a node of {ours:?}"
    )]
    WrongCluster {
        /// Address tried.
        addr: SocketAddr,
        /// Our cluster name.
        ours: String,
        /// The seed's cluster name.
        theirs: String,
    },
    /// The seed has a secret that this node lacks.
    #[error(
        "step secret: cluster {cluster:?} at {addr} requires a secret and this node has none; fix: give \
         --cluster.secret-file the same file as the other nodes"
    )]
    SecretMissing {
        /// Address tried.
        addr: SocketAddr,
        /// Cluster name.
        cluster: String,
    },
    /// This node has a secret and the seed has none.
    #[error(
        "step secret: this node has a cluster secret, cluster {cluster:?} at {addr} runs without; fix: give every node \
         the same --cluster.secret-file"
    )]
    SecretUnexpected {
        /// Address tried.
        addr: SocketAddr,
        /// Cluster name.
        cluster: String,
    },
    /// Both have a secret, not the same one.
    #[error(
        "step secret: {addr} knows another cluster secret than this node; fix: give every node the same \
         --cluster.secret-file (cluster {cluster:?})"
    )]
    WrongSecret {
        /// Address tried.
        addr: SocketAddr,
        /// Cluster name.
        cluster: String,
    },
    /// A living node has this node's name.
    #[error(
        "step identity: a node that calls itself {name:?} lives at {addr}; fix: give each node another --node.name, and, when \
         --storage.path is a copy of that node's, an empty one"
    )]
    SameName {
        /// The name.
        name: String,
        /// Where it answers.
        addr: SocketAddr,
    },
}

impl JoinProblem {
    /// Whether waiting can help: an absent seed may come up, a wrong secret will not become right.
    pub fn may_heal(&self) -> bool {
        matches!(self, JoinProblem::Resolve { .. } | JoinProblem::Connect { .. })
    }
}

/// Errors of the cluster crate.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The cluster port is taken.
    #[error(
        "cluster address {addr} cannot be opened ({detail}); fix: stop the process that uses the port, or give \
         another --cluster.listen-address"
    )]
    Bind {
        /// Address.
        addr: SocketAddr,
        /// The system's words.
        detail: String,
    },
    /// Without a secret, gossip stays on loopback and private ranges.
    #[error(
        "cluster address {addr} is public and there is no cluster secret; fix: set --cluster.secret-file, or listen on \
         a loopback or private address"
    )]
    PublicWithoutSecret {
        /// Address.
        addr: SocketAddr,
    },
    /// A seed said no for good.
    #[error("cannot join: {0}")]
    Join(#[from] JoinProblem),
    /// The secret file is unusable.
    #[error(
        "cluster secret file {path}: {detail}; fix: one secret of at least 16 characters a line, the first is used to send"
    )]
    Secret {
        /// File.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// Identity or peers cannot be kept on disk.
    #[error("cluster state in {path}: {detail}; fix: make the directory writable")]
    State {
        /// File.
        path: String,
        /// The system's words.
        detail: String,
    },
    /// The gossip engine refused to start.
    #[error("gossip did not start: {0}")]
    Gossip(String),
    /// A name or zone that cannot travel in gossip.
    #[error("{what} {value:?} is not usable: want 1 to 63 letters, digits, '.', '_' or '-'")]
    BadName {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
}

impl Coded for ClusterError {
    fn code(&self) -> Code {
        match self {
            ClusterError::Bind { .. } | ClusterError::Join(_) => Code::Unavailable,
            ClusterError::Secret { .. }
            | ClusterError::BadName { .. }
            | ClusterError::PublicWithoutSecret { .. } => Code::BadData,
            ClusterError::State { .. } | ClusterError::Gossip(_) => Code::Internal,
        }
    }
}
