//! What can go wrong with a bucket.

use koios_model::{Code, Coded};

/// Errors of the objstore crate.
#[derive(Debug, thiserror::Error)]
pub enum ObjstoreError {
    /// The configuration does not say which bucket.
    #[error("object store configuration{place}: {cause}; fix: {fix}")]
    Config {
        /// ` line L column C`, or empty.
        place: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        fix: String,
    },
    /// No such object.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// A create-if-absent found the object there.
    #[error("object {0} exists already")]
    Exists(String),
    /// The object is larger than it may be.
    #[error("object {path} has {bytes} bytes, more than the {bytes_max} it may have")]
    TooLarge {
        /// Object path.
        path: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The store answered with an error.
    #[error("object store, {op} {path}: {detail}")]
    Store {
        /// What was tried.
        op: &'static str,
        /// Object path.
        path: String,
        /// The store's words.
        detail: String,
    },
    /// The directory is another bucket's now.
    #[error("{path} is not the bucket that was opened but bucket {found}: is its volume mounted?")]
    Replaced {
        /// Directory.
        path: String,
        /// Identity found there.
        found: String,
    },
    /// Another cluster has the bucket.
    #[error(
        "object {path} says that this bucket belongs to cluster {found:?}, and this node is of cluster {own:?}; fix: name \
         another bucket or prefix in --objstore.config-file, or start with --cluster.name={found}; if that cluster was \
         renamed or is no more, delete the object"
    )]
    OtherCluster {
        /// Object path.
        path: String,
        /// Name in it.
        found: String,
        /// Name of this node's cluster.
        own: String,
    },
    /// A local file.
    #[error("{op} {path}: {detail}")]
    Local {
        /// What was tried.
        op: &'static str,
        /// File.
        path: String,
        /// The system's words.
        detail: String,
    },
}

impl ObjstoreError {
    pub(crate) fn store(op: &'static str, path: &object_store::path::Path, e: object_store::Error) -> Self {
        match e {
            object_store::Error::NotFound { .. } => ObjstoreError::NotFound(path.to_string()),
            object_store::Error::AlreadyExists { .. } => ObjstoreError::Exists(path.to_string()),
            other => ObjstoreError::Store { op, path: path.to_string(), detail: other.to_string() },
        }
    }

    pub(crate) fn local(op: &'static str, path: &std::path::Path, e: std::io::Error) -> Self {
        ObjstoreError::Local { op, path: path.display().to_string(), detail: e.to_string() }
    }
}

impl Coded for ObjstoreError {
    fn code(&self) -> Code {
        match self {
            ObjstoreError::Config { .. } | ObjstoreError::OtherCluster { .. } => Code::BadData,
            ObjstoreError::NotFound(_) => Code::NotFound,
            ObjstoreError::Exists(_) | ObjstoreError::TooLarge { .. } => Code::Execution,
            ObjstoreError::Store { .. } | ObjstoreError::Replaced { .. } | ObjstoreError::Local { .. } => {
                Code::Unavailable
            }
        }
    }
}
