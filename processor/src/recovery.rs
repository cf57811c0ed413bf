//! What the store knows of a partition, fetched off the consumer thread.
//!
//! On assignment the desk claims the fence and reads the streams' states; the partition stays
//! paused until the answer is there. The store may be away for long: the desk asks again until the
//! partition is revoked. Nothing here waits on the consumer thread.

use std::{collections::HashMap, sync::Arc};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    event::{EventTime, TopicPartition},
    pipeline::StreamState,
    sink::{AssignmentId, Store},
};

/// Answers under way at most: one per partition assigned, far above any real assignment.
const ANSWERS_MAX: usize = 10_000;

/// What the store knows of a partition.
#[derive(Debug)]
pub struct Recovery {
    /// The partition.
    pub partition: TopicPartition,
    /// The assignment that asked.
    pub assignment: AssignmentId,
    /// The fence issued for it; 0 without a store.
    pub fence: i64,
    /// The states of its streams.
    pub streams: Vec<(Option<Arc<str>>, StreamState)>,
}

/// Asks the store on behalf of the consumer thread.
#[derive(Debug)]
pub struct RecoveryDesk {
    store: Option<Arc<Store>>,
    consumer_group: String,
    runtime: Handle,
    answers: (Sender<Recovery>, Receiver<Recovery>),
    asking: HashMap<TopicPartition, JoinHandle<()>>,
}

impl RecoveryDesk {
    /// Returns a desk that asks `store`, or answers at once that nothing is known without one.
    #[must_use]
    pub fn new(store: Option<Arc<Store>>, consumer_group: String, runtime: Handle) -> Self {
        let asking = HashMap::new();
        Self { store, consumer_group, runtime, answers: bounded(ANSWERS_MAX), asking }
    }

    /// Asks for `partition`; [`Self::take`] has the answer later.
    pub fn ask(
        &mut self,
        partition: &TopicPartition,
        assignment: AssignmentId,
        done_through: Option<EventTime>,
    ) {
        self.forget(partition);
        let answers = self.answers.0.clone();
        let answer = Recovery {
            partition: partition.clone(),
            assignment,
            fence: 0,
            streams: Vec::new(),
        };
        let Some(store) = self.store.clone() else {
            deliver(&answers, answer);
            return;
        };
        let group = self.consumer_group.clone();
        let task = self.runtime.spawn(async move {
            let claim = store.claim(&group, &answer.partition, done_through).await;
            deliver(&answers, Recovery { fence: claim.fence, streams: claim.streams, ..answer });
        });
        self.asking.insert(partition.clone(), task);
    }

    /// Stops asking for `partition`.
    pub fn forget(&mut self, partition: &TopicPartition) {
        if let Some(task) = self.asking.remove(partition) {
            task.abort();
        }
    }

    /// Returns the next answer, if one is there.
    pub fn take(&mut self) -> Option<Recovery> {
        let answer = self.answers.1.try_recv().ok()?;
        self.asking.remove(&answer.partition);
        Some(answer)
    }
}

fn deliver(answers: &Sender<Recovery>, answer: Recovery) {
    if let Err(refused) = answers.try_send(answer) {
        // Cannot happen below ANSWERS_MAX partitions; the partition stays paused and this says so.
        let partition = refused.into_inner().partition;
        tracing::error!(%partition, "no room for a recovery answer; the partition stays paused");
    }
}
