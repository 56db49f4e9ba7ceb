//! The doorbell: a few lines over TCP on the cluster port that tell a joiner why it would not fit.
//!
//! Gossip frames that do not fit are dropped in silence, as they must be. The doorbell gives the human
//! answer: who is here, which cluster, whether a secret is needed and whether it is the same one (each side
//! proves it over the other's nonce; the secret itself never travels). It also says where else it knows a node of the
//! caller's name (`namesake`). Bounds: one line of 512 bytes each way, 3 s, 32 callers at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::error::JoinProblem;
use crate::secret::{KeyRing, hex};

/// Longest line either way.
pub const LINE_BYTES_MAX: u64 = 512;
/// How long one exchange may take.
pub const RING_TIMEOUT: Duration = Duration::from_secs(3);
const CALLERS_MAX: usize = 32;

#[derive(Serialize, Deserialize)]
struct Ask {
    koios: u32,
    nonce: String,
    /// The caller's name; older nodes do not say it.
    #[serde(default)]
    node: String,
}

/// What the node behind a doorbell says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    koios: u32,
    /// Node name.
    pub node: String,
    /// Cluster name.
    pub cluster: String,
    /// Whether a secret is required.
    pub secret: bool,
    /// Which start of the node this is; 0 when it does not say.
    #[serde(default)]
    pub generation: u64,
    /// Where a node of the caller's name was seen last.
    #[serde(default)]
    pub namesake: Option<SocketAddr>,
    proof: String,
}

/// Where a node of some name was seen last.
pub type Known = Arc<dyn Fn(&str) -> Option<SocketAddr> + Send + Sync>;

/// Answers rings as `node`, in the start `generation`, until the listener's task is dropped.
pub async fn serve(
    listener: TcpListener,
    (node, generation): (String, u64),
    ring: Arc<KeyRing>,
    known: Known,
) {
    let callers = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = callers.clone().try_acquire_owned() else { continue };
        let (node, ring, known) = (node.clone(), ring.clone(), known.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ =
                tokio::time::timeout(RING_TIMEOUT, answer(stream, (&node, generation), &ring, &known)).await;
        });
    }
}

async fn answer(
    stream: TcpStream,
    (node, generation): (&str, u64),
    ring: &KeyRing,
    known: &Known,
) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await.ok()?;
    let ask: Ask = serde_json::from_str(&line).ok()?;
    let answer = Answer {
        koios: 1,
        node: node.to_owned(),
        cluster: ring.cluster().to_owned(),
        secret: ring.has_secret(),
        generation,
        namesake: known(&ask.node),
        proof: ring.proof(&[b"doorbell", ask.nonce.as_bytes(), node.as_bytes()]),
    };
    let mut text = serde_json::to_string(&answer).ok()?;
    text.push('\n');
    write.write_all(text.as_bytes()).await.ok()
}

/// Rings at `addr` as the node `me` and checks that this node belongs there.
///
/// # Errors
/// The step that failed, as a `JoinProblem`.
pub async fn ring(addr: SocketAddr, seed: &str, me: &str, keys: &KeyRing) -> Result<Answer, JoinProblem> {
    let connect = |detail: String| JoinProblem::Connect { seed: seed.to_owned(), addr, detail };
    let stream = tokio::time::timeout(RING_TIMEOUT, TcpStream::connect(addr))
        .await
        .map_err(|_| connect("no answer within 3s".into()))?
        .map_err(|e| connect(e.to_string()))?;
    let mut nonce = [0u8; 16];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| connect("no randomness".into()))?;
    let nonce = hex(&nonce);
    let stranger = |detail: &str| JoinProblem::NotKoios { addr, detail: detail.to_owned() };
    let line = tokio::time::timeout(RING_TIMEOUT, exchange(stream, me, &nonce))
        .await
        .map_err(|_| stranger("it stays silent"))?
        .map_err(|e| stranger(&e.to_string()))?;
    let answer: Answer = serde_json::from_str(&line).map_err(|_| stranger("it speaks another protocol"))?;
    judge(addr, &answer, &nonce, keys)?;
    Ok(answer)
}

async fn exchange(stream: TcpStream, me: &str, nonce: &str) -> std::io::Result<String> {
    let (read, mut write) = stream.into_split();
    let mut ask = serde_json::to_string(&Ask { koios: 1, nonce: nonce.to_owned(), node: me.to_owned() })?;
    ask.push('\n');
    write.write_all(ask.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

fn judge(addr: SocketAddr, answer: &Answer, nonce: &str, keys: &KeyRing) -> Result<(), JoinProblem> {
    let cluster = answer.cluster.clone();
    if answer.cluster != keys.cluster() {
        return Err(JoinProblem::WrongCluster { addr, ours: keys.cluster().to_owned(), theirs: cluster });
    }
    match (answer.secret, keys.has_secret()) {
        (true, false) => Err(JoinProblem::SecretMissing { addr, cluster }),
        (false, true) => Err(JoinProblem::SecretUnexpected { addr, cluster }),
        _ if keys.verify_proof(&[b"doorbell", nonce.as_bytes(), answer.node.as_bytes()], &answer.proof) => {
            Ok(())
        }
        _ => Err(JoinProblem::WrongSecret { addr, cluster }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn house(cluster: &str, secrets: &[&str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let secrets: Vec<String> = secrets.iter().map(|s| (*s).to_owned()).collect();
        tokio::spawn(serve(
            listener,
            ("host".into(), 1),
            Arc::new(KeyRing::new(cluster, &secrets)),
            Arc::new(|_: &str| None),
        ));
        addr
    }

    #[tokio::test]
    async fn every_misfit_is_named() {
        let good = "0123456789abcdef".to_owned();
        let addr = house("prod", &[&good]).await;
        let ring_with = |cluster: &str, secret: &[String]| KeyRing::new(cluster, secret);
        assert_eq!(
            ring(addr, "s", "me", &ring_with("prod", std::slice::from_ref(&good))).await.unwrap().node,
            "host"
        );
        let e = ring(addr, "s", "me", &ring_with("test", std::slice::from_ref(&good))).await.unwrap_err();
        assert!(e.to_string().contains("--cluster.name=prod"), "{e}");
        let e = ring(addr, "s", "me", &ring_with("prod", &[])).await.unwrap_err();
        assert!(matches!(e, JoinProblem::SecretMissing { .. }), "{e}");
        let e = ring(addr, "s", "me", &ring_with("prod", &["another secret 16".into()])).await.unwrap_err();
        assert!(matches!(e, JoinProblem::WrongSecret { .. }) && !e.may_heal(), "{e}");
        let open = house("prod", &[]).await;
        let e = ring(open, "s", "me", &ring_with("prod", &[good])).await.unwrap_err();
        assert!(matches!(e, JoinProblem::SecretUnexpected { .. }), "{e}");
    }

    #[tokio::test]
    async fn strangers_and_absent_seeds_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stranger = tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.unwrap();
            let _ = s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        let keys = KeyRing::new("prod", &[]);
        let e = ring(addr, "s", "me", &keys).await.unwrap_err();
        assert!(matches!(e, JoinProblem::NotKoios { .. }), "{e}");
        stranger.await.unwrap();
        let e = ring(addr, "s", "me", &keys).await.unwrap_err();
        assert!(matches!(e, JoinProblem::Connect { .. }) && e.may_heal(), "{e}");
    }
}
