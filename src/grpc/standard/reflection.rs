//! `ServerReflectionInfo`: what a client that has no `.proto` files asks for.
//!
//! A question that has no answer has an error in its response; the call goes on.

use prost::Message;
use tonic::{Code, Status};

use super::descriptors::DESCRIPTORS_OF_ALL;
use super::health::NeverLater;
use super::messages::reflection::server_reflection_request::MessageRequest as Question;
use super::messages::reflection::server_reflection_response::MessageResponse as Answer;
use super::messages::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use super::{MAX_REQUEST_BYTES, Standard, encode};
use crate::grpc::method::{Calling, Respond, Responded};
use crate::grpc::status;

/// Answers questions about the listener's services.
#[derive(Debug)]
pub(crate) struct Reflection(pub(super) Standard);

impl Respond for Reflection {
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
        let request = ServerReflectionRequest::decode(request)
            .map_err(|error| status::not_a_message("ServerReflectionRequest", &error))?;
        let answer = self.answer(request.message_request.as_ref());
        let response = ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer.unwrap_or_else(Answer::ErrorResponse)),
        };
        Ok(Responded::Now(encode(&response)))
    }
}

impl Reflection {
    fn answer(&self, question: Option<&Question>) -> Result<Answer, ErrorResponse> {
        let descriptors = &*DESCRIPTORS_OF_ALL;
        let files = |files: Option<_>, what: String| {
            let file_descriptor_proto = files.ok_or_else(|| not_found(&what))?;
            Ok(Answer::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto,
            }))
        };
        match question {
            Some(Question::FileByFilename(name)) => {
                files(descriptors.file(name), format!("file {name:?}"))
            }
            Some(Question::FileContainingSymbol(name)) => {
                files(descriptors.file_of_symbol(name), format!("symbol {name:?}"))
            }
            Some(Question::FileContainingExtension(extension)) => {
                let (message, number) = (&extension.containing_type, extension.extension_number);
                files(
                    descriptors.file_of_extension(message, number),
                    format!("extension {number} of a message {message:?}"),
                )
            }
            Some(Question::AllExtensionNumbersOfType(name)) => {
                let numbers = descriptors.extension_numbers(name);
                let numbers = numbers.ok_or_else(|| not_found(&format!("message {name:?}")))?;
                Ok(Answer::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number: numbers,
                    },
                ))
            }
            Some(Question::ListServices(_)) => {
                let services = self.0.services().map(|name| ServiceResponse {
                    name: name.to_owned(),
                });
                Ok(Answer::ListServicesResponse(ListServiceResponse {
                    service: services.collect(),
                }))
            }
            None => Err(error(
                Code::InvalidArgument,
                "the request asks for nothing that is known here".to_owned(),
            )),
        }
    }
}

fn not_found(what: &str) -> ErrorResponse {
    error(Code::NotFound, format!("there is no {what} here"))
}

fn error(code: Code, error_message: String) -> ErrorResponse {
    ErrorResponse {
        error_code: code.into(),
        error_message,
    }
}
