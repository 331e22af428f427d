package main

import (
	"math"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Whatever a server says, it is tried again after this.
const longestDelaySeconds = 60

// How long the server wants to be left alone at least: google.rpc.RetryInfo.
func retryDelaySeconds(err error) float64 {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return math.Min(info.GetRetryDelay().AsDuration().Seconds(), longestDelaySeconds)
		}
	}
	return 0
}
