//! What the store knows of a partition, fetched off the consumer thread.
//!
//! On assignment the desk claims the fence and reads the streams' states; the partition stays
//! paused until the answer is there. The store may be away for long: the desk goes on asking until
//! the partition is revoked, and says after a while that the partition had better start without.
//! Nothing here waits on the consumer thread.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};

use crate::{
    event::{EventTime, TopicPartition},
    model::Mutes,
    sink::{
        AssignmentId,
        store::{Claim, RecoveredStream, Store, StoreError},
    },
};

/// First and longest pause between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Answers under way at most: two per partition assigned, far above any real assignment.
const ANSWERS_MAX: usize = 20_000;

/// What the store said of a partition.
#[derive(Debug)]
pub struct Recovery {
    /// The partition.
    pub partition: TopicPartition,
    /// The assignment that asked.
    pub assignment: AssignmentId,
    /// What is known.
    pub known: Known,
}

/// What is known of a partition.
#[derive(Debug)]
pub enum Known {
    /// The store issued this fence (0 without a store) and has these streams.
    Claimed {
        /// The fence.
        fence: i64,
        /// The streams' states.
        streams: Vec<RecoveredStream>,
        /// What is muted, read after the claim: no window of the partition is judged with less.
        mutes: Arc<Mutes>,
    },
    /// The store has not answered for its `claim_patience`; it is still being asked.
    Unreachable,
}

/// Asks the store on behalf of the consumer thread.
#[derive(Debug)]
pub struct RecoveryDesk {
    store: Option<Store>,
    runtime: Handle,
    answers: (Sender<Recovery>, Receiver<Recovery>),
    asking: HashMap<TopicPartition, JoinHandle<()>>,
}

impl RecoveryDesk {
    /// Returns a desk that asks `store`, or answers at once that nothing is known without one.
    #[must_use]
    pub fn new(store: Option<Store>, runtime: Handle) -> Self {
        Self {
            store,
            runtime,
            answers: bounded(ANSWERS_MAX),
            asking: HashMap::new(),
        }
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
        let partition = partition.clone();
        let Some(store) = self.store.clone() else {
            let known = Known::Claimed {
                fence: 0,
                streams: Vec::new(),
                mutes: Arc::default(),
            };
            deliver(
                &answers,
                Recovery {
                    partition,
                    assignment,
                    known,
                },
            );
            return;
        };
        let key = partition.clone();
        let task = self.runtime.spawn(async move {
            let unreachable = || {
                let partition = partition.clone();
                deliver(
                    &answers,
                    Recovery {
                        partition,
                        assignment,
                        known: Known::Unreachable,
                    },
                );
            };
            let (claim, mutes) = claim(&store, &partition, done_through, unreachable).await;
            let known = Known::Claimed {
                fence: claim.fence,
                streams: claim.streams,
                mutes: Arc::new(mutes),
            };
            deliver(
                &answers,
                Recovery {
                    partition: partition.clone(),
                    assignment,
                    known,
                },
            );
        });
        self.asking.insert(key, task);
    }

    /// Stops asking for `partition`.
    pub fn forget(&mut self, partition: &TopicPartition) {
        if let Some(task) = self.asking.remove(partition) {
            task.abort();
        }
    }

    /// Returns the next answer, if one is there.
    pub fn take(&mut self) -> Option<Recovery> {
        self.answers.1.try_recv().ok()
    }
}

/// Claims until it succeeds; calls `unreachable` once if that takes longer than its patience.
async fn claim(
    store: &Store,
    partition: &TopicPartition,
    done_through: Option<EventTime>,
    unreachable: impl Fn(),
) -> (Claim, Mutes) {
    let started = Instant::now();
    let mut told = false;
    let mut pause = BACKOFF.0;
    loop {
        let answer = async {
            let claim = store.claim(partition, done_through).await?;
            Ok::<_, StoreError>((claim, store.mutes().await?))
        };
        match answer.await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%partition, %error, "partition waits for the store");
            }
        }
        if !told && started.elapsed() >= store.claim_patience() {
            told = true;
            unreachable();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

fn deliver(answers: &Sender<Recovery>, answer: Recovery) {
    if let Err(refused) = answers.try_send(answer) {
        // Cannot happen below 10,000 partitions; the partition stays paused and this says so.
        let partition = refused.into_inner().partition;
        tracing::error!(%partition, "no room for a recovery answer; the partition stays paused");
    }
}
