//! Questions in the simulation: the real rounds of the coordinator, carried over the simulated network.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use koios_chunk::{SeriesChunks, encode_xor};
use koios_model::{BlockId, Columns, Slot};
use koios_query::merge::MergedSeries;
use koios_query::rounds::Questions;
use koios_query::{Answer, Missing, MissingReason, Part, Rounds, Scope, Want};

use super::node::Process;
use super::types::{BlockData, Done, Effect, Ms, Msg, Op, ReadAnswer, Tag, Timer};

/// Longest wait for one holder.
const HOLDER_MS: Ms = 5_000;
/// A question of a client that this node coordinates.
#[derive(Debug)]
pub struct Query {
    client: u64,
    rounds: Option<Rounds>,
    series: Rc<Vec<u16>>,
    range: (Ms, Ms),
    asked: BTreeMap<(usize, u32), Rc<Scope>>,
    answers: Vec<Rc<Answer>>,
    round: u32,
    /// Blocks that this node reads from the bucket for its own question.
    reading: BTreeMap<u32, (Answer, Vec<BlockId>)>,
    /// What the head of this node forgot, while blocks are read for the same question.
    moved: Vec<BlockId>,
}

impl Process {
    /// A client asks for series in a range.
    pub fn client_read(&mut self, client: u64, series: Vec<u16>, range: (Ms, Ms)) {
        if !self.record.state.answers() || self.view.own().is_none() {
            self.out.push(Effect::Read(client, Err("is not ready")));
            return;
        }
        let id = self.fresh_id();
        let want = Want {
            query_id: String::new(),
            mint: range.0,
            maxt: range.1,
            matchers: Vec::new(),
            series_max: u64::MAX,
            bytes_max: u64::MAX,
            samples_max: u64::MAX,
            patience: Duration::from_secs(5),
            ..Want::default()
        };
        let ejected = |m: &koios_cluster::Member| self.reach.is_ejected(&m.name, m.generation);
        let (rounds, questions) = Rounds::start(&self.view, &want, self.catalogue.clone(), &ejected);
        let query = Query {
            client,
            rounds: Some(rounds),
            series: Rc::new(series),
            range,
            asked: BTreeMap::new(),
            answers: Vec::new(),
            round: 0,
            reading: BTreeMap::new(),
            moved: Vec::new(),
        };
        self.queries.insert(id, query);
        self.question(id, questions);
    }

    fn question(&mut self, id: u64, questions: Questions) {
        let Some(q) = self.queries.get_mut(&id) else { return };
        q.round += 1;
        let (round, series) = (q.round, q.series.clone());
        let mut sends = Vec::new();
        for (i, (node, scope)) in questions.into_iter().enumerate() {
            let to = self.common.names.iter().position(|n| *n == node.name);
            let to = to.expect("BUG: a node without a number");
            let (seq, scope) = (round * 10_000 + i as u32, Rc::new(scope));
            q.asked.insert((to, seq), scope.clone());
            sends.push((to, Msg::Ask { query: id, seq, scope, series: series.clone() }));
        }
        sends.into_iter().for_each(|(to, msg)| self.send(to, msg));
        self.out.push(Effect::Timer(HOLDER_MS, Timer::Query(id, round)));
        self.advance(id);
    }

    /// A holder's side.
    pub(super) fn asked(
        &mut self,
        from: usize,
        query: u64,
        seq: u32,
        scope: &Rc<Scope>,
        series: &Rc<Vec<u16>>,
    ) {
        if !self.record.state.is_open() {
            self.send(from, Msg::Answered { query, seq, answer: Err("is not ready"), moved: Vec::new() });
            return;
        }
        let mut answer = Answer::default();
        if scope.own {
            self.chunks(&self.head, series, (scope.mint, scope.maxt), &mut answer);
            answer.served.push(Part::Own);
        }
        let moved = if scope.own { self.disk.moved.clone() } else { Vec::new() };
        let mut unread = Vec::new();
        for id in &scope.blocks {
            match self.loaded.get(id) {
                Some(data) => {
                    self.chunks(data, series, (scope.mint, scope.maxt), &mut answer);
                    answer.served.push(Part::Block(*id));
                }
                None if from == self.me => unread.push(*id),
                None => answer.missing.push(Missing {
                    part: Part::Block(*id),
                    reason: MissingReason::NotMine,
                    detail: "not loaded".to_owned(),
                }),
            }
        }
        if unread.is_empty() {
            self.send(from, Msg::Answered { query, seq, answer: Ok(Rc::new(answer)), moved });
            return;
        }
        for id in &unread {
            self.out.push(Effect::Bucket(Op::Get(*id), Tag::Read(query, seq, *id)));
        }
        if let Some(q) = self.queries.get_mut(&query) {
            q.moved.extend(moved);
            q.reading.insert(seq, (answer, unread));
        }
    }

    /// A block that this node opens itself, as the last resort.
    pub(super) fn block_read(&mut self, query: u64, seq: u32, id: BlockId, done: Done) {
        let Some((mut answer, mut unread)) =
            self.queries.get_mut(&query).and_then(|q| q.reading.remove(&seq))
        else {
            return;
        };
        unread.retain(|b| *b != id);
        let (series, range) = (self.queries[&query].series.clone(), self.queries[&query].range);
        match done {
            Done::Data(Some(data)) => {
                self.chunks(&data, &series, range, &mut answer);
                answer.served.push(Part::Block(id));
            }
            _ => answer.missing.push(Missing {
                part: Part::Block(id),
                reason: MissingReason::Gone,
                detail: "the bucket does not answer".to_owned(),
            }),
        }
        if unread.is_empty() {
            let moved =
                self.queries.get_mut(&query).map(|q| std::mem::take(&mut q.moved)).unwrap_or_default();
            self.answered(self.me, query, seq, Ok(Rc::new(answer)), &moved);
        } else if let Some(q) = self.queries.get_mut(&query) {
            q.reading.insert(seq, (answer, unread));
        }
    }

    fn chunks(&self, data: &BlockData, series: &[u16], range: (Ms, Ms), answer: &mut Answer) {
        for s in series {
            for (key, samples) in data.range((*s, Slot(0))..=(*s, Slot(Slot::MAX))) {
                let mut columns = Columns::default();
                samples.range(range.0..=range.1).for_each(|(t, v)| columns.push(*t, *v));
                if !columns.is_empty() {
                    let chunks = encode_xor(&columns, 120);
                    let labels = self.common.labels[s].clone();
                    answer.series.push(SeriesChunks { labels, slot: key.1, chunks });
                }
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        from: usize,
        query: u64,
        seq: u32,
        answer: Result<Rc<Answer>, &'static str>,
        moved: &[BlockId],
    ) {
        let name = self.common.names[from].clone();
        let Some(q) = self.queries.get_mut(&query) else { return };
        let Some(scope) = q.asked.remove(&(from, seq)) else { return };
        let rounds = q.rounds.as_mut().expect("BUG: a query without rounds");
        let node = self.view.members.get(&name).cloned();
        let Some(node) = node else { return };
        match answer {
            Ok(a) => {
                rounds.answered(&node, &scope, a.missing.clone());
                rounds.forgotten(&node, moved);
                q.answers.push(a);
                self.reach.answered(&name, node.generation);
            }
            Err(why) => {
                rounds.no_answer(&node, &scope, why);
                if from != self.me {
                    self.reach.failed(&name, node.generation);
                }
            }
        }
        self.advance(query);
    }

    pub(super) fn query_timeout(&mut self, id: u64, round: u32) {
        let Some(q) = self.queries.get(&id).filter(|q| q.round == round) else { return };
        let silent: Vec<(usize, u32)> = q.asked.keys().copied().collect();
        silent.into_iter().for_each(|(n, seq)| self.answered(n, id, seq, Err("does not answer"), &[]));
    }

    fn advance(&mut self, id: u64) {
        let Some(q) = self.queries.get_mut(&id).filter(|q| q.asked.is_empty()) else { return };
        let catalogue = || self.catalogue.clone();
        let ejected = |m: &koios_cluster::Member| self.reach.is_ejected(&m.name, m.generation);
        let rounds = q.rounds.as_mut().expect("BUG: a query without rounds");
        let questions = rounds.next(&catalogue, &ejected);
        if !questions.is_empty() {
            self.question(id, questions);
            return;
        }
        let Some(mut q) = self.queries.remove(&id) else { return };
        let gaps = q.rounds.take().expect("BUG: a query without rounds").verdict();
        let gaps = gaps.iter().map(|g| (g.from, g.until)).collect();
        let mut result = ReadAnswer { series: Vec::new(), gaps };
        for s in q.series.iter() {
            let labels = &self.common.labels[s];
            let mut merged = MergedSeries::new(labels.clone());
            for part in q.answers.iter().flat_map(|a| &a.series).filter(|p| p.labels == *labels) {
                merged.add(part.slot, part.chunks.clone());
            }
            merged.seal();
            let mut out = Columns::default();
            merged
                .read(q.range.0, q.range.1, &mut out)
                .expect("BUG: a chunk of this process does not decode");
            result.series.push(out.iter().map(|s| (s.t, s.v)).collect());
        }
        self.out.push(Effect::Read(q.client, Ok(result)));
    }
}
