//! A store that does not answer when partitions are assigned.

use tokio_postgres::{Config, config::Host};

use crate::{
    broker,
    fleet::{Fleet, Plan},
    flow::Load,
    gate::Gate,
    report,
};

/// Prepares a fleet that finds its database behind a gate.
async fn behind_a_gate(plan: Plan) -> Option<(Fleet, Gate)> {
    let mut fleet = Fleet::prepare(plan).await?;
    let config: Config = fleet.database.url.parse().unwrap();
    let Host::Tcp(host) = &config.get_hosts()[0] else {
        panic!("the test's database is reached by TCP");
    };
    let server = format!("{host}:{}", config.get_ports()[0]);
    let gate = Gate::shut_before(server.clone()).await;
    let url = fleet
        .database
        .url
        .replace(&server, &gate.address.to_string());
    fleet.database_url = url;
    Some((fleet, gate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn partitions_wait_for_the_store() {
    let plan = Plan {
        name: "store-waits",
        partitions: 4,
        settings: &[],
    };
    let Some((mut fleet, gate)) = behind_a_gate(plan).await else {
        return;
    };
    let flow = fleet.flow(Load {
        seed: 61,
        ..Load::default()
    });
    let (one, other) = (fleet.start(), fleet.start());
    fleet
        .wait_for_log(one, "partition waits for the store")
        .await;
    assert_eq!(fleet.count("true").await, 0);
    gate.open();
    fleet.wait_for_rows(20).await;
    gate.shut();
    fleet.kill(one);
    fleet
        .wait_for_log(other, "partition waits for the store")
        .await;
    gate.open();
    fleet.wait_for_rows(20).await;
    flow.stop();
    report(plan.name, "1 kill", fleet.finish().await);
}

/// After a while alarms matter more than baselines: partitions start without, commit nothing, and
/// are read again once the store answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn partitions_start_cold_and_are_read_again() {
    let plan = Plan {
        name: "store-cold",
        partitions: 2,
        settings: &[("LOGGUARD_STORE__CLAIM_PATIENCE", "1s")],
    };
    let Some((mut fleet, gate)) = behind_a_gate(plan).await else {
        return;
    };
    let flow = fleet.flow(Load {
        seed: 62,
        ..Load::default()
    });
    let number = fleet.start();
    fleet
        .wait_for_log(number, "starting without baselines")
        .await;
    fleet
        .wait_until("an alarm", async |it| {
            let alarms = std::fs::read_to_string(it.path("anomalies.log")).unwrap_or_default();
            let told = alarms.contains("| Provisional: yes");
            told.then_some(()).ok_or("none".to_owned())
        })
        .await;
    assert_eq!(fleet.count("true").await, 0);
    let committed = broker::committed(&fleet.brokers, &fleet.own("group"), &fleet.own("in"));
    assert!(committed.values().all(|it| *it == 0), "{committed:?}");
    gate.open();
    fleet
        .wait_for_log(number, "the store is back; reading again")
        .await;
    fleet.wait_for_rows(20).await;
    flow.stop();
    report(plan.name, "1 cold start", fleet.finish().await);
}
