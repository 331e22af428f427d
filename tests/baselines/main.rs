//! The parts of `benches/edge` that can be wrong without anybody noticing: the other
//! servers' protocols, and the servers that are written there.

#[path = "../../benches/edge/clients/mod.rs"]
#[allow(dead_code, reason = "the bench uses all of it")]
mod clients;
#[path = "../../benches/edge/peers/mod.rs"]
#[allow(dead_code, reason = "the bench uses all of it")]
mod peers;
#[path = "../../benches/edge/wire/mod.rs"]
mod wire;

mod floor;
mod jetstream;
mod nats;
mod record;
mod redis;
mod resp;
mod services;
