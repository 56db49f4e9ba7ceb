//! Networks that fall apart.

use std::time::Duration;

use koios_cluster_tests::netns::{Cut, Lab, Link, Writer, lab};
use koios_cluster_tests::until;

#[tokio::test]
async fn s28_a_symmetric_partition() {
    let Some(lab) = Lab::start(3, 28) else { return };
    let nodes = lab.whole().await;
    let apis: Vec<_> = nodes.iter().map(|n| n.api()).collect();
    let mut writer = Writer::start("s28", 20, nodes.iter().map(|n| n.spec.http()).collect());
    until("acks", Duration::from_secs(20), || async {
        if writer.acked() > 20 { Ok(()) } else { Err(format!("{}", writer.acked())) }
    })
    .await;
    lab.net.router.between(&[2], &[0, 1], &Link::cut(Cut::All));
    lab::state_is(&apis[0], "n2", "dead").await;
    for a in &apis {
        eprintln!("{:?}", writer.check(a).await);
    }
    lab.net.router.heal();
    lab::all_ready(&nodes).await;
    writer.stop().await;
    for a in &apis {
        until("whole", lab::PATIENCE, || writer.whole(a)).await;
    }
    eprintln!("{} {}", writer.batches().len(), writer.acked());
}
