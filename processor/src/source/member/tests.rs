use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::CommitMode,
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::{CommitOutcome, Member, Phase};
use crate::{
    event::{NextOffset, TopicPartition},
    source::{
        CommitMetadata, CommitPoint, KafkaConfig, PartitionLabel, RawRecord, RecordHandler,
        SourceMetrics, StartPoint,
        broker::{Broker, Position},
        start::{Committed, Watermarks},
    },
};

/// What was asked of the broker, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Pause(Vec<i32>),
    Resume(Vec<i32>),
    Seek(Position),
    Restart(Vec<Position>),
    Commit(Vec<(i32, i64)>, bool),
}

/// A broker that holds offsets 0 to 100 of every partition.
struct Fake {
    asked: RefCell<Vec<Asked>>,
    committed: Cell<Option<i64>>,
    low: Cell<i64>,
    /// Questions fail.
    away: Cell<bool>,
    commits_fail: Cell<Option<RDKafkaErrorCode>>,
}

impl Fake {
    fn new(committed: Option<i64>) -> Self {
        Self {
            asked: RefCell::default(),
            committed: Cell::new(committed),
            low: Cell::new(0),
            away: Cell::new(false),
            commits_fail: Cell::new(None),
        }
    }

    fn note(&self, asked: Asked) -> KafkaResult<()> {
        self.asked.borrow_mut().push(asked);
        Ok(())
    }

    fn take(&self) -> Vec<Asked> {
        self.asked.take()
    }

    fn answer<T>(&self, value: T) -> KafkaResult<T> {
        if self.away.get() {
            let code = RDKafkaErrorCode::OperationTimedOut;
            return Err(KafkaError::MetadataFetch(code));
        }
        Ok(value)
    }
}

impl Broker for Fake {
    fn committed(
        &self,
        partitions: &[i32],
        _timeout: Duration,
    ) -> KafkaResult<Vec<(i32, KafkaResult<Committed>)>> {
        let committed = Committed {
            next: self.committed.get(),
            metadata: self.committed.get().map(|_| metadata()),
        };
        self.answer(partitions.iter().map(|id| (*id, Ok(committed))).collect())
    }

    fn watermarks(&self, _partition: i32, _timeout: Duration) -> KafkaResult<Watermarks> {
        let low = self.low.get();
        self.answer(Watermarks { low, high: 100 })
    }

    fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.note(Asked::Pause(partitions.to_vec()))
    }

    fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.note(Asked::Resume(partitions.to_vec()))
    }

    fn seek(&self, position: Position, _wait: bool) -> KafkaResult<()> {
        self.note(Asked::Seek(position))
    }

    fn restart(&self, restarted: &[Position], _all: &[Position]) -> KafkaResult<()> {
        self.note(Asked::Restart(restarted.to_vec()))
    }

    fn commit(&self, points: &[CommitPoint], mode: CommitMode) -> KafkaResult<()> {
        let points = points.iter().map(|it| (it.partition.partition, it.next.0));
        let sync = matches!(mode, CommitMode::Sync);
        self.note(Asked::Commit(points.collect(), sync))?;
        match self.commits_fail.get() {
            Some(code) => Err(KafkaError::ConsumerCommit(code)),
            None => Ok(()),
        }
    }
}

/// What the handler was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Assigned(i32, i64),
    Record(i32, i64),
    CaughtUp(i32),
    Disturbed(bool),
    Revoked(Vec<i32>, bool),
}

#[derive(Clone, Default)]
struct Handler {
    told: Rc<RefCell<Vec<Told>>>,
    ready: Rc<RefCell<Vec<TopicPartition>>>,
    rewinds: Rc<RefCell<Vec<TopicPartition>>>,
    points: Rc<RefCell<Vec<CommitPoint>>>,
}

impl Handler {
    fn take(&self) -> Vec<Told> {
        self.told.take()
    }

    fn done(&self, partition: i32, next: i64) {
        self.points.borrow_mut().push(CommitPoint {
            partition: named(partition),
            next: NextOffset(next),
            metadata: metadata(),
        });
    }
}

impl RecordHandler for Handler {
    fn assigned(&mut self, start: StartPoint) {
        let told = Told::Assigned(start.partition.partition, start.next.0);
        self.told.borrow_mut().push(told);
    }

    fn take_ready(&mut self) -> Vec<TopicPartition> {
        self.ready.take()
    }

    fn record(&mut self, partition: &TopicPartition, record: RawRecord<'_>) {
        let told = Told::Record(partition.partition, record.offset);
        self.told.borrow_mut().push(told);
    }

    fn caught_up(&mut self, partition: &TopicPartition) {
        let told = Told::CaughtUp(partition.partition);
        self.told.borrow_mut().push(told);
    }

    fn transport_error(&mut self, broken: bool) {
        self.told.borrow_mut().push(Told::Disturbed(broken));
    }

    fn drain(&mut self, _deadline: Instant) -> bool {
        true
    }

    fn take_commit_points(&mut self) -> Vec<CommitPoint> {
        self.points.take()
    }

    fn take_rewinds(&mut self) -> Vec<TopicPartition> {
        self.rewinds.take()
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool, _deadline: Instant) {
        let ids = partitions.iter().map(|it| it.partition).collect();
        self.told.borrow_mut().push(Told::Revoked(ids, lost));
    }

    fn finish(&mut self, _deadline: Instant) {}
}

fn named(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: KafkaConfig::default().input_topic.into(),
        partition,
    }
}

const fn record(offset: i64) -> RawRecord<'static> {
    RawRecord {
        offset,
        record_time: None,
        payload: Some(b"x"),
    }
}

const GO_ON: &dyn Fn() -> bool = &|| false;

/// A member whose commits are due at each turn.
fn member(handler: &Handler) -> Member<Handler> {
    let config = KafkaConfig {
        commit_interval_ms: 0,
        ..KafkaConfig::default()
    };
    Member::new(&config, SourceMetrics::default(), handler.clone())
}

/// A member to which the partitions flow from offset 10 on.
fn flowing(broker: &Fake, handler: &Handler, partitions: &[i32]) -> Member<Handler> {
    let mut member = member(handler);
    member.assign(broker, partitions);
    member.assigned(broker, partitions);
    let ready = partitions.iter().map(|id| named(*id));
    handler.ready.borrow_mut().extend(ready);
    member.turn(broker, GO_ON);
    broker.take();
    handler.take();
    member
}

#[test]
fn records_flow_only_once_the_handler_is_ready_and_none_is_lost_before() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = member(&handler);
    assert_eq!(member.assign(&broker, &[0]), [(0, 10)]);
    member.assigned(&broker, &[0]);
    assert_eq!(broker.take(), [Asked::Pause(vec![0])]);
    member.turn(&broker, GO_ON);
    // It slips through although the partition is paused.
    member.record(0, record(10));
    assert_eq!(handler.take(), [Told::Assigned(0, 10)]);
    handler.ready.borrow_mut().push(named(0));
    member.turn(&broker, GO_ON);
    assert_eq!(
        broker.take(),
        [Asked::Seek((0, 10)), Asked::Resume(vec![0])]
    );
    for offset in [9, 10, 10, 12] {
        member.record(0, record(offset));
    }
    assert_eq!(handler.take(), [Told::Record(0, 10), Told::Record(0, 12)]);
}

#[test]
fn a_start_the_broker_does_not_tell_is_asked_for_again() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    broker.away.set(true);
    let mut member = member(&handler);
    assert_eq!(member.assign(&broker, &[0]), []);
    member.assigned(&broker, &[0]);
    member.turn(&broker, GO_ON);
    assert_eq!(handler.take(), []);
    broker.away.set(false);
    let assigned = member.partitions.get_mut(&0).unwrap();
    assert!(matches!(assigned.phase, Phase::Unresolved(at) if at > Instant::now()));
    assigned.phase = Phase::Unresolved(Instant::now());
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), [Asked::Pause(vec![0]), Asked::Seek((0, 10))]);
    assert_eq!(handler.take(), [Told::Assigned(0, 10)]);
}

#[test]
fn revoked_partitions_are_finished_and_committed_and_only_they() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0, 1]);
    handler.done(0, 15);
    handler.done(1, 16);
    member.revoke(&broker, &[0], false);
    assert_eq!(handler.take(), [Told::Revoked(vec![0], false)]);
    assert_eq!(broker.take(), [Asked::Commit(vec![(0, 15)], true)]);
    member.record(0, record(15));
    assert_eq!(
        handler.take(),
        [],
        "records of a revoked partition are nobody's business"
    );
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), [Asked::Commit(vec![(1, 16)], false)]);
}

#[test]
fn the_lag_of_partitions_that_are_not_fetched_is_asked_for_in_turn() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0, 1]);
    let lags = |member: &Member<Handler>| {
        let lag = |partition| member.metrics.read_lag.get(&PartitionLabel { partition });
        [0, 1].map(|partition| lag(partition).map(|lag| lag.get()))
    };
    member.measure_lag(&broker);
    assert_eq!(lags(&member), [None, None], "librdkafka knows it");
    member.throttled = true;
    member.measure_lag(&broker);
    member.measure_lag(&broker);
    assert_eq!(
        lags(&member),
        [Some(90), None],
        "one, and not again so soon"
    );
    member.lag_asked.0 = None;
    broker.away.set(true);
    member.measure_lag(&broker);
    assert_eq!(lags(&member), [Some(90), None]);
    broker.away.set(false);
    for _ in 0..2 {
        member.lag_asked.0 = None;
        member.measure_lag(&broker);
    }
    assert_eq!(lags(&member), [Some(90), Some(90)]);
}

#[test]
fn lost_partitions_are_forgotten_without_a_commit() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    handler.done(0, 15);
    member.revoke(&broker, &[0], true);
    assert_eq!(
        handler.take(),
        [Told::Revoked(vec![0], true), Told::Disturbed(true)]
    );
    assert_eq!(broker.take(), []);
    assert!(member.is_idle());
    assert!(member.left_uncommitted());
}

#[test]
fn who_lost_everything_is_not_reading_until_the_group_deals_out_again() {
    for dealt_out in [&[0][..], &[]] {
        let (broker, handler) = (Fake::new(Some(10)), Handler::default());
        let mut member = flowing(&broker, &handler, &[0, 1]);
        member.revoke(&broker, &[0], true);
        assert_eq!(handler.take(), [Told::Revoked(vec![0], true)]);
        member.revoke(&broker, &[1], true);
        member.disturb(&broker);
        assert_eq!(
            handler.take(),
            [Told::Revoked(vec![1], true), Told::Disturbed(true)]
        );
        member.assign(&broker, dealt_out);
        assert_eq!(handler.take(), [Told::Disturbed(false)]);
    }
}

#[test]
fn a_commit_that_failed_is_made_again_and_one_that_went_through_is_not() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    handler.done(0, 15);
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), [Asked::Commit(vec![(0, 15)], false)]);
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), [], "the answer is not there yet");
    let code = RDKafkaErrorCode::RebalanceInProgress;
    member.commit_answered(Err(KafkaError::ConsumerCommit(code)));
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), [Asked::Commit(vec![(0, 15)], false)]);
    member.commit_answered(Ok(()));
    member.turn(&broker, GO_ON);
    assert_eq!(broker.take(), []);
    assert_eq!(member.commit_all(&broker), CommitOutcome::Committed);
    assert_eq!(broker.take(), [], "nothing is left to commit");
}

#[test]
fn a_commit_under_way_is_made_again_before_the_partition_goes() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    handler.done(0, 15);
    member.turn(&broker, GO_ON);
    broker.take();
    broker
        .commits_fail
        .set(Some(RDKafkaErrorCode::UnknownMemberId));
    member.revoke(&broker, &[0], false);
    assert_eq!(broker.take(), [Asked::Commit(vec![(0, 15)], true)]);
    member.commit_answered(Ok(()));
    assert!(member.is_idle());
}

#[test]
fn a_disturbance_lasts_until_every_partition_has_given_a_sign() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0, 1]);
    member.caught_up(0);
    member.disturb(&broker);
    member.disturb(&broker);
    // Its end is asked for again; partition 1 was not at its end and will speak by itself.
    assert_eq!(broker.take(), [Asked::Seek((0, 10))]);
    member.record(1, record(10));
    assert_eq!(
        handler.take(),
        [
            Told::CaughtUp(0),
            Told::Disturbed(true),
            Told::Record(1, 10)
        ]
    );
    member.caught_up(0);
    assert_eq!(handler.take(), [Told::CaughtUp(0), Told::Disturbed(false)]);
}

#[test]
fn silence_while_the_thread_stood_still_is_no_evidence() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    member.caught_up(0);
    handler.take();
    member.turned_at = Instant::now().checked_sub(2 * super::STALL_MAX).unwrap();
    member.turn(&broker, GO_ON);
    assert_eq!(handler.take(), [Told::Disturbed(true)]);
    assert_eq!(broker.take(), [Asked::Seek((0, 10))]);
    member.caught_up(0);
    assert_eq!(handler.take(), [Told::CaughtUp(0), Told::Disturbed(false)]);
}

#[test]
fn a_disturbed_partition_that_goes_takes_the_disturbance_along() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    member.disturb(&broker);
    member.revoke(&broker, &[0], false);
    assert_eq!(
        handler.take(),
        [
            Told::Disturbed(true),
            Told::Revoked(vec![0], false),
            Told::Disturbed(false)
        ]
    );
}

#[test]
fn a_rewind_commits_what_is_done_and_goes_back_to_it() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    member.record(0, record(10));
    handler.done(0, 11);
    handler.rewinds.borrow_mut().push(named(0));
    broker.committed.set(Some(11));
    member.turn(&broker, GO_ON);
    assert_eq!(
        broker.take(),
        [
            Asked::Commit(vec![(0, 11)], true),
            Asked::Pause(vec![0]),
            Asked::Seek((0, 11))
        ]
    );
    assert_eq!(handler.take(), [Told::Record(0, 10), Told::Assigned(0, 11)]);
}

#[test]
fn positions_that_are_gone_are_finished_and_started_anew() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0, 1]);
    for offset in 10..60 {
        member.record(1, record(offset));
    }
    handler.take();
    broker.low.set(50);
    member.out_of_range();
    member.out_of_range();
    member.restarted_at = Instant::now();
    member.restart_due = Some(Instant::now());
    member.turn(&broker, GO_ON);
    assert_eq!(
        broker.take(),
        [
            Asked::Restart(vec![(0, 50)]),
            Asked::Pause(vec![0]),
            Asked::Seek((0, 50)),
        ]
    );
    assert_eq!(
        handler.take(),
        [
            Told::Revoked(vec![0], false),
            Told::Disturbed(true),
            Told::Assigned(0, 50)
        ]
    );
    member.record(1, record(60));
    assert_eq!(
        handler.take(),
        [Told::Record(1, 60), Told::Disturbed(false)]
    );
}

#[test]
fn positions_beyond_the_end_belong_to_another_topic() {
    let (broker, handler) = (Fake::new(Some(100)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    for offset in 100..120 {
        member.record(0, record(offset));
    }
    handler.take();
    broker.committed.set(Some(120));
    member.restart_due = Some(Instant::now());
    member.turn(&broker, GO_ON);
    assert_eq!(
        handler.take(),
        [Told::Revoked(vec![0], true), Told::Assigned(0, 0)]
    );
    assert!(
        !broker
            .take()
            .iter()
            .any(|it| matches!(it, Asked::Commit(..))),
        "what was done there is not committed here"
    );
}

#[test]
fn a_closing_member_hands_nothing_over_and_commits_what_is_left_when_it_goes() {
    let (broker, handler) = (Fake::new(Some(10)), Handler::default());
    let mut member = flowing(&broker, &handler, &[0]);
    handler.done(0, 12);
    member.finish(&broker, Instant::now());
    member.record(0, record(12));
    broker
        .commits_fail
        .set(Some(RDKafkaErrorCode::RebalanceInProgress));
    assert_eq!(member.commit_all(&broker), CommitOutcome::Rebalancing);
    broker.commits_fail.set(None);
    member.revoke(&broker, &[0], false);
    let commit = Asked::Commit(vec![(0, 12)], true);
    assert_eq!(
        broker.take(),
        [Asked::Pause(vec![0]), commit.clone(), commit]
    );
    assert_eq!(handler.take(), []);
    assert_eq!(member.commit_all(&broker), CommitOutcome::Committed);
    assert!(!member.left_uncommitted());
}

fn metadata() -> CommitMetadata {
    CommitMetadata::nothing_done(crate::event::WindowGrid {
        length_ms: 30_000,
        by_service: false,
    })
}
