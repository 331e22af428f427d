//! gRPC's server reflection on both ports: what a client needs that has no `.proto` files.

#![cfg(feature = "server")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use galaxy_push::contract::push::PushEvent;
use prost::Message;
use prost_reflect::DescriptorPool;
use support::grpc::message;
use support::h2_client::H2Client;
use support::tokens::{Tokens, gateway, with_token};
use support::{Harness, connect, soon};
use tokio_stream::iter;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Question;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::{ExtensionRequest, ServerReflectionRequest};
use tonic_reflection::pb::v1alpha;

const PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const PUSH: &str = "galaxy.backend.push.v1.Push";
const PUBLISHER: &str = "galaxy.push.publisher.v1.Publisher";

fn request(question: Option<Question>) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: "a host".to_owned(),
        message_request: question,
    }
}

/// Asks on one stream; each answer has its question.
async fn ask(address: SocketAddr, questions: Vec<Question>) -> Result<Vec<Answer>, Status> {
    let mut client = ServerReflectionClient::new(connect(address).await);
    let requests: Vec<_> = questions
        .into_iter()
        .map(|question| request(Some(question)))
        .collect();
    let responses = soon(client.server_reflection_info(iter(requests.clone()))).await?;
    let mut responses = responses.into_inner();
    let mut answers = Vec::new();
    for request in requests {
        let response = soon(responses.message()).await?.expect("a response");
        assert_eq!(response.valid_host, request.host);
        assert_eq!(response.original_request, Some(request));
        answers.push(response.message_response.expect("an answer"));
    }
    assert_eq!(soon(responses.message()).await?, None, "no more");
    Ok(answers)
}

async fn ask_one(address: SocketAddr, question: Question) -> Answer {
    let answers = ask(address, vec![question]).await.expect("answers");
    answers.into_iter().next().expect("one")
}

async fn services(address: SocketAddr) -> BTreeSet<String> {
    match ask_one(address, Question::ListServices(String::new())).await {
        Answer::ListServicesResponse(list) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_port_lists_its_services() {
    let server = Harness::start().await;
    for (address, own) in [
        (
            server.gateway_addr(),
            &[PUSH, "galaxy.push.gateway.v1.Gateway"][..],
        ),
        (server.publisher_addr(), &[PUBLISHER]),
    ] {
        let standard = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        let expected = own.iter().chain(&standard);
        let expected = expected.map(|name| (*name).to_owned()).collect();
        assert_eq!(services(address).await, expected);
    }
}

#[tokio::test]
async fn every_service_that_is_listed_can_be_called_by_what_is_told_of_it() {
    let server = Harness::start().await;
    for address in server.addresses() {
        let services = services(address).await;
        let questions = services.iter().cloned().map(Question::FileContainingSymbol);
        let answers = ask(address, questions.collect()).await.expect("answers");
        for (service, answer) in services.iter().zip(answers) {
            let Answer::FileDescriptorResponse(files) = answer else {
                panic!("{service}: {answer:?}");
            };
            // Imports come after what needs them.
            let mut pool = DescriptorPool::new();
            for file in files.file_descriptor_proto.iter().rev() {
                pool.decode_file_descriptor_proto(&**file).expect("a file");
            }
            let service = pool.get_service_by_name(service).expect("the service");
            assert!(service.methods().len() > 0);
            if let Some(event) = pool.get_message_by_name("galaxy.backend.push.v1.PushEvent") {
                let bytes = support::event(7).encode_to_vec();
                let dynamic = prost_reflect::DynamicMessage::decode(event, &*bytes);
                let again = dynamic.expect("a PushEvent").encode_to_vec();
                let event = PushEvent::decode(&*again).expect("a PushEvent");
                assert_eq!(event, support::event(7));
            }
        }
    }
}

#[tokio::test]
async fn questions_without_an_answer_have_an_error_and_the_stream_goes_on() {
    let server = Harness::start().await;
    let extension = |containing_type: &str, extension_number| {
        Question::FileContainingExtension(ExtensionRequest {
            containing_type: containing_type.to_owned(),
            extension_number,
        })
    };
    let questions = vec![
        Question::FileByFilename("none.proto".to_owned()),
        Question::FileContainingSymbol("galaxy.None".to_owned()),
        extension("galaxy.backend.push.v1.PushEvent", 7),
        extension("galaxy.None", -7),
        Question::AllExtensionNumbersOfType("galaxy.None".to_owned()),
        Question::FileByFilename("galaxy/push/publisher/v1/publisher.proto".to_owned()),
        Question::AllExtensionNumbersOfType("galaxy.backend.push.v1.PushEvent".to_owned()),
    ];
    let answers = ask(server.gateway_addr(), questions)
        .await
        .expect("answers");
    for answer in &answers[..5] {
        let Answer::ErrorResponse(error) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(error.error_code, Code::NotFound as i32, "{error:?}");
        assert!(error.error_message.starts_with("there is no "), "{error:?}");
    }
    match &answers[5..] {
        [
            Answer::FileDescriptorResponse(files),
            Answer::AllExtensionNumbersResponse(numbers),
        ] => {
            assert_eq!(files.file_descriptor_proto.len(), 2, "with its import");
            assert_eq!(numbers.base_type_name, "galaxy.backend.push.v1.PushEvent");
            assert!(numbers.extension_number.is_empty());
        }
        others => panic!("{others:?}"),
    }
}

#[tokio::test]
async fn the_older_version_is_the_same() {
    let server = Harness::start().await;
    let channel = connect(server.gateway_addr()).await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let question = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
        "galaxy.backend.push.v1.Push.SubscribePush".to_owned(),
    );
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let responses = soon(client.server_reflection_info(iter([request]))).await;
    let mut responses = responses.expect("a stream").into_inner();
    let response = soon(responses.message()).await.expect("well");
    let answer = response.expect("a response").message_response;
    let file = match answer {
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(
            files,
        )) => files.file_descriptor_proto,
        other => panic!("{other:?}"),
    };
    assert_eq!(file.len(), 1);
}

#[tokio::test]
async fn a_request_is_small_and_a_message() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for (body, code) in [
        (message(&[0; 5000]), Code::InvalidArgument),
        (message(b"\x1a\x05abc"), Code::InvalidArgument),
        (message(b"abc")[..6].to_vec(), Code::Internal),
        (vec![], Code::Ok),
    ] {
        let response = client.call(PATH, body.clone()).await;
        assert_eq!(response.grpc_status(), Some(code), "{body:?}");
    }
    // A question that is none has an error.
    let response = client.call(PATH, message(b"")).await;
    assert_eq!(response.grpc_status(), Some(Code::Ok));
    let response = tonic_reflection::pb::v1::ServerReflectionResponse::decode(&response.data[5..]);
    match response.expect("a response").message_response {
        Some(Answer::ErrorResponse(error)) => {
            assert_eq!(error.error_code, Code::InvalidArgument as i32);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_is_for_known_principals() {
    let tokens = Tokens::new();
    tokens.set(gateway("token", &["a"]));
    let server = Harness::with_authenticator(|_| {}, tokens).await;
    for address in server.addresses() {
        let question = Question::ListServices(String::new());
        let status = ask(address, vec![question.clone()]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        let mut client = ServerReflectionClient::new(connect(address).await);
        let requests = with_token("token", iter([request(Some(question))]));
        let responses = soon(client.server_reflection_info(requests)).await;
        let mut responses = responses.expect("a stream").into_inner();
        assert!(soon(responses.message()).await.expect("well").is_some());
    }
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_a_stop() {
    let server = Harness::start().await;
    let mut client = ServerReflectionClient::new(connect(server.gateway_addr()).await);
    let (_questions, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let responses = soon(client.server_reflection_info(requests)).await;
    let mut responses = responses.expect("a stream").into_inner();
    server.stop().await.expect("a graceful stop");
    let status = soon(responses.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
