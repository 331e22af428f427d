//! `Check` and `List` of gRPC's health service: how the server is now.
//!
//! A listener's services are as well as the server is: what one of them needs, all need.

use std::future::Ready;

use prost::Message;
use tonic::Status;

use super::messages::health::health_check_response::ServingStatus;
use super::messages::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use super::{MAX_REQUEST_BYTES, Standard, encode};
use crate::grpc::method::{Calling, Respond, Responded};
use crate::grpc::status;

/// A response comes at once.
pub(super) type NeverLater = Ready<Result<Vec<u8>, Status>>;

/// Says how one service is.
#[derive(Debug)]
pub(crate) struct Check(pub(super) Standard);

/// Says how all of them are.
#[derive(Debug)]
pub(crate) struct List(pub(super) Standard);

impl Respond for Check {
    type Response = Vec<u8>;
    type Pending = NeverLater;

    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    fn respond(
        &mut self,
        request: &[u8],
        _call: Calling<'_>,
    ) -> Result<Responded<Vec<u8>, NeverLater>, Status> {
        let service = requested_service(request)?;
        if !self.0.has(&service) {
            return Err(status::unknown_service(&service));
        }
        let response = response(serving_status(self.0.health.look()));
        Ok(Responded::Now(encode(&response)))
    }
}

impl Respond for List {
    type Response = Vec<u8>;
    type Pending = NeverLater;

    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    fn respond(
        &mut self,
        request: &[u8],
        _call: Calling<'_>,
    ) -> Result<Responded<Vec<u8>, NeverLater>, Status> {
        HealthListRequest::decode(request)
            .map_err(|error| status::not_a_message("HealthListRequest", &error))?;
        let response = response(serving_status(self.0.health.look()));
        let names = [""].into_iter().chain(self.0.services());
        let statuses = names.map(|name| (name.to_owned(), response)).collect();
        Ok(Responded::Now(encode(&HealthListResponse { statuses })))
    }
}

/// The service that a `HealthCheckRequest` names.
pub(super) fn requested_service(request: &[u8]) -> Result<String, Status> {
    let request = HealthCheckRequest::decode(request)
        .map_err(|error| status::not_a_message("HealthCheckRequest", &error))?;
    Ok(request.service)
}

pub(super) fn serving_status(is_ready: bool) -> ServingStatus {
    match is_ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

pub(super) fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
