//! The generated messages and, with the feature `client`, tonic's stubs, under short
//! names: `push` is the contract with the gateways, `gateway` what they report, `publisher`
//! the publishers' side.

pub use galaxy::backend::push::v1 as push;
pub use galaxy::push::gateway::v1 as gateway;
pub use galaxy::push::publisher::v1 as publisher;

// Generated code refers from one package to another by the packages' nesting.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code: its documentation is the .proto files"
)]
mod galaxy {
    pub mod backend {
        pub mod push {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/galaxy.backend.push.v1.rs"));
            }
        }
    }
    pub mod push {
        pub mod gateway {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/galaxy.push.gateway.v1.rs"));
            }
        }
        pub mod publisher {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/galaxy.push.publisher.v1.rs"));
            }
        }
    }
}
