//! A peer that gossip calls alive and that does not answer: asked last at once, owner of what it owned, and back with its
//! first answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::handover::slot_owners;
use koios_cluster::{ClusterView, KeyRing, Liveness, Member, NodeRecord, NodeState, Reach};
use koios_model::{BlockId, ManualClock};
use koios_proto::peer as pb;
use koios_proto::peer::peer_server::{Peer, PeerServer};
use koios_query::Peers;
use koios_query::client::CallError;
use koios_query::plan::block_candidates;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_millis(400);

fn member(name: &str, rpc: SocketAddr) -> Member {
    let record =
        NodeRecord { state: NodeState::Ready, bucket: "B".into(), ..NodeRecord::new(name, rpc, rpc) };
    Member { name: name.into(), generation: 1, gossip: rpc, liveness: Liveness::Alive, record }
}

fn view(members: &[Member]) -> ClusterView {
    let members = members.iter().map(|m| (m.name.clone(), Arc::new(m.clone()))).collect();
    ClusterView { seq: 1, me: "a".into(), cluster: "test".into(), members }
}

/// Answers reports and nothing else.
struct Reporter;

type Nothing<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Reporter {
    type SelectStream = Nothing<pb::SelectReply>;
    type EvaluateStream = Nothing<pb::EvaluateReply>;

    async fn select(&self, _: Request<pb::SelectRequest>) -> Result<Response<Self::SelectStream>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn evaluate(
        &self,
        _: Request<pb::EvaluateRequest>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn labels(&self, _: Request<pb::LabelsRequest>) -> Result<Response<pb::LabelsReply>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn report(&self, _: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        Ok(Response::new(pb::ReportReply { body: b"[]".to_vec() }))
    }

    async fn act(&self, _: Request<pb::ActRequest>) -> Result<Response<pb::ActReply>, Status> {
        Err(Status::failed_precondition("this node does not do that"))
    }

    async fn write(&self, _: Request<pb::WriteRequest>) -> Result<Response<pb::WriteReply>, Status> {
        Err(Status::unavailable("not here"))
    }
}

#[tokio::test]
async fn who_does_not_answer_is_asked_last_at_once_and_keeps_what_it_owns() {
    let clock = ManualClock::at(0);
    let reach = Arc::new(Reach::new(clock.clone()));
    let peers = Peers::new(Arc::new(KeyRing::new("test", &[])), clock.clone(), reach.clone());
    // Takes connections and stays silent, as a node behind a broken path or with a full disk does.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = member("silent", mute.local_addr().unwrap());
    let well = member("well", ([127, 0, 0, 1], 9).into());
    let view = view(&[silent.clone(), well.clone()]);
    let key = (0..).find(|k| slot_owners(&view, *k, 1)[0].name == "silent").unwrap();
    let ejected = |m: &Member| reach.is_ejected(&m.name, m.generation);
    let best = |id| block_candidates(&view, id, "B", &ejected)[0].name.clone();
    let block = (0..1_000).map(|i| BlockId::from_parts(i, 1)).find(|id| best(*id) == "silent").unwrap();
    let hash = view.ring_hash();

    let answer = peers.report(&silent, "members", PATIENCE).await;
    assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
    assert_eq!(best(block), "well", "after one failure the other one is asked first");
    let both = block_candidates(&view, block, "B", &ejected);
    assert_eq!(both.len(), 2, "and the silent one still last");
    assert_eq!(slot_owners(&view, key, 1)[0].name, "silent", "whether it scrapes, gossip decides");
    assert_eq!(view.ring_hash(), hash);

    let restarted = Member { generation: 2, ..silent.clone() };
    assert!(!ejected(&restarted), "another process may be well");
    clock.advance_ms(10_000);
    assert_eq!(best(block), "silent", "it is tried again after a while");
}

#[tokio::test]
async fn an_answer_brings_a_peer_back_and_a_refusal_does_not_eject() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = ManualClock::at(0);
    let reach = Arc::new(Reach::new(clock.clone()));
    let peers = Peers::new(Arc::new(KeyRing::new("test", &[])), clock, reach.clone());
    let b = member("b", free);
    assert!(peers.report(&b, "members", PATIENCE).await.is_err());
    assert!(reach.is_ejected("b", 1), "a refused connection");
    let server = tonic::transport::Server::builder().add_service(PeerServer::new(Reporter)).serve(free);
    let server = tokio::spawn(server);
    let mut answered = false;
    for _ in 0..100 {
        answered = peers.report(&b, "members", Duration::from_secs(5)).await.is_ok();
        if answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered && !reach.is_ejected("b", 1));
    let refused = peers.act(&b, "{}", Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    assert!(!reach.is_ejected("b", 1), "it answered, if only to say no");
    server.abort();
}
