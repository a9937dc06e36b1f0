//! Somebody who exports the state, ends everything, and imports it into an empty store, in the midst of
//! whatever goes on.

use std::sync::Arc;
use std::time::Duration;

use coord_common::interval::Timestamp;
use coordinator::backup::{Import, export, import};
use tokio::time::sleep;

use crate::node::Fleet;
use crate::store::NodeStore;
use crate::world::{Host, World, lock};

/// Who writes to the state while nobody leads.
pub(crate) const OPERATOR: &str = "operator";

/// Once, at some time.
pub(crate) async fn move_house(world: Arc<World>, fleet: Arc<Fleet>) {
    world.pause(1000, world.knobs.trouble).await;
    fleet.close();
    // What was sent off arrives, or never does.
    sleep(Duration::from_secs(15)).await;
    let store = NodeStore { world: world.clone(), host: Host::new(OPERATOR) };
    let file = loop {
        let mut file = Vec::new();
        match export(&store, &mut file).await {
            Ok(_) => break file,
            Err(error) => world.note(&format!("operator: {error}")),
        }
        if lock(&world.store).is_empty() {
            // There is nothing yet to be moved.
            fleet.open();
            return;
        }
        sleep(Duration::from_millis(500)).await;
    };
    lock(&world.store).clear();
    world.fault("operator: imports the state into an empty store");
    let how = Import { force: true, now: Timestamp(0), by: OPERATOR.to_owned() };
    while let Err(error) = import(&store, || Ok(file.as_slice()), &how).await {
        world.note(&format!("operator: {error}"));
        sleep(Duration::from_millis(500)).await;
    }
    fleet.open();
}
