//! What changed between two views, for ready nodes only.
//!
//! A node that turns ready is an addition, one that stops being ready a removal, and a restart (a higher
//! generation) is both. Pure.

use std::sync::Arc;

use crate::view::{ClusterView, Member};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Became ready.
    Add(Arc<Member>),
    /// Still ready, with another record.
    Update(Arc<Member>),
    /// No longer ready, or gone.
    Remove(Arc<Member>),
}

/// Differences from `old` to `new`, in name order.
pub fn diff(old: &ClusterView, new: &ClusterView) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut names: Vec<&String> = old.members.keys().chain(new.members.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let before = old.members.get(name).filter(|m| m.is_ready());
        let after = new.members.get(name).filter(|m| m.is_ready());
        match (before, after) {
            (None, Some(a)) => changes.push(Change::Add(a.clone())),
            (Some(b), None) => changes.push(Change::Remove(b.clone())),
            (Some(b), Some(a)) if b.generation != a.generation => {
                changes.push(Change::Remove(b.clone()));
                changes.push(Change::Add(a.clone()));
            }
            (Some(b), Some(a)) if b.record != a.record => changes.push(Change::Update(a.clone())),
            _ => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::tests::member;
    use crate::view::Liveness;

    fn view(members: Vec<Member>) -> ClusterView {
        let members = members.into_iter().map(|m| (m.name.clone(), Arc::new(m))).collect();
        ClusterView { members, ..ClusterView::default() }
    }

    #[test]
    fn ready_only_with_restarts() {
        let a = member("a", "z1", 1);
        let mut a_dead = a.clone();
        a_dead.liveness = Liveness::Dead { since: 1 };
        let mut a_again = a.clone();
        a_again.generation += 1;
        assert_eq!(diff(&view(vec![]), &view(vec![a.clone()])), [Change::Add(Arc::new(a.clone()))]);
        assert_eq!(diff(&view(vec![a.clone()]), &view(vec![a_dead])), [Change::Remove(Arc::new(a.clone()))]);
        assert_eq!(
            diff(&view(vec![a.clone()]), &view(vec![a_again.clone()])),
            [Change::Remove(Arc::new(a.clone())), Change::Add(Arc::new(a_again))]
        );
        assert_eq!(diff(&view(vec![a.clone()]), &view(vec![a])), []);
    }
}
