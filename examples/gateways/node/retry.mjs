// What a status says about the next attempt.
import protobuf from "protobufjs";

// Whatever a server says, it is tried again after this.
const LONGEST_MS = 60_000;

// Of googleapis' google/rpc/status.proto and error_details.proto what is needed here.
const root = new protobuf.Root();
for (const name of ["any", "duration"]) {
  root.addJSON(protobuf.common.get(`google/protobuf/${name}.proto`).nested);
}
protobuf.parse(
  `syntax = "proto3";
  package google.rpc;
  message Status { repeated google.protobuf.Any details = 3; }
  message RetryInfo { google.protobuf.Duration retry_delay = 1; }`,
  root,
);
const Status = root.lookupType("google.rpc.Status");
const RetryInfo = root.lookupType("google.rpc.RetryInfo");

// How long the server wants to be left alone at least: google.rpc.RetryInfo.
export function delayMs(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return 0;
  try {
    const { details } = Status.decode(bytes);
    const detail = details.find((it) => it.type_url.endsWith("/google.rpc.RetryInfo"));
    if (!detail) return 0;
    const { retryDelay } = RetryInfo.decode(detail.value);
    return Math.min(Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1e6, LONGEST_MS);
  } catch {
    return 0; // they are no details
  }
}
