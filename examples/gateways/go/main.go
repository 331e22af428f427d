// A gateway for browsers: server-sent events from a galaxy-push server. See ../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	pushv1 "galaxy/backend/proto/push/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	firstBackoffSeconds = 0.2
	headersTimeout      = 20 * time.Second
)

var (
	connect    = flag.String("connect", "", "the server's `HOST:PORT`")
	id         = flag.String("id", "", "the gateway's id")
	state      = flag.String("state", "", "the `FILE` of the cursor")
	listen     = flag.String("listen", "", "`HOST:PORT` for browsers")
	tokenFile  = flag.String("token-file", "", "a `FILE` with a bearer token")
	heartbeat  = flag.Float64("heartbeat", 15, "`SECONDS` until a quiet server shows that it lives")
	stale      = flag.Float64("stale", 45, "`SECONDS` without that until nobody is served")
	maxBackoff = flag.Float64("max-backoff", 30, "the longest pause between attempts, in `SECONDS`")
)

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

type gateway struct {
	browsers
	position
	replay  int // how many messages are to come before its end mark; below 0: it is over
	backoff float64
	stale   *time.Timer
}

// One stream after another, until ctx is done or the server calls the request invalid.
func (g *gateway) subscribe(ctx context.Context) (code int) {
	for {
		err := g.stream(ctx)
		log.Print("the stream ended: ", err)
		switch status.Code(err) {
		case codes.InvalidArgument:
			return 1
		case codes.Aborted:
			g.refuse("another process has the id")
			g.backoff = *maxBackoff
		}
		pause := math.Max(retryDelaySeconds(err), g.backoff*(1+rand.Float64())/2)
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(seconds(pause)):
		}
		g.backoff = math.Min(2*g.backoff, *maxBackoff)
	}
}

func (g *gateway) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host, _ := os.Hostname()
	ctx = metadata.AppendToOutgoingContext(ctx,
		"push-heartbeat", fmt.Sprintf("%gs", *heartbeat),
		"push-revocations", "replay",
		"push-instance", fmt.Sprintf("%s/%d", host, os.Getpid()))
	if *tokenFile != "" {
		token, err := os.ReadFile(*tokenFile)
		if err != nil {
			return err
		}
		bearer := "Bearer " + strings.TrimSpace(string(token))
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", bearer)
	}
	// A new connection, and not that of the stream before, which may be dead.
	conn, err := grpc.Dial(*connect, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer conn.Close()
	watchdog := time.AfterFunc(headersTimeout, func() {
		log.Print("nothing came in time")
		cancel()
	})
	defer watchdog.Stop()
	request := &pushv1.GatewaySubscribeRequest{GatewayClientId: *id, Cursor: g.cursor}
	call, err := pushv1.NewPushClient(conn).SubscribePush(ctx, request)
	if err != nil {
		return err
	}
	start, _ := call.Header()
	if first(start, "push-resume") == "" {
		_, err := call.Recv() // the status of a refusal
		return err
	}
	g.begin(start)
	silence := seconds(2 * *heartbeat)
	if first(start, "push-heartbeat") == "" {
		silence = math.MaxInt64
	}
	for {
		watchdog.Reset(silence)
		event, err := call.Recv()
		if err != nil {
			return err
		}
		if err := g.handle(event); err != nil {
			return err
		}
	}
}

func first(md metadata.MD, key string) string {
	return strings.Join(md[key], "")
}

func (g *gateway) begin(start metadata.MD) {
	fresh := first(start, "push-resume") != "resumed"
	g.replay = -1
	fmt.Sscan(first(start, "push-revocations-count"), &g.replay)
	if fresh && !g.isEmpty() {
		log.Print("a gap: ", start)
		if first(start, "push-revocations") != "complete" {
			g.refuse("revocations may be missing")
		}
	}
	if g.replay < 0 {
		if fresh {
			g.processed(first(start, "push-start-cursor"))
		}
		g.alive()
	}
}

func (g *gateway) handle(event *pushv1.PushEvent) error {
	if event.Kind == nil && g.replay > 0 {
		return nil // a heartbeat within the replay: its cursor may be that of the end mark
	}
	repeated := g.replay < 0 && g.isRepeated(event.Cursor)
	g.replay--
	if invalidation := event.GetSessionInvalidation(); invalidation != nil {
		g.revoke(invalidation, event.Cursor)
	}
	if event.Kind != nil && repeated {
		return fmt.Errorf("%s came after %s", event.Cursor, g.cursor)
	}
	if client := event.GetClientEvent(); client != nil {
		g.forward(client)
	}
	if !repeated {
		g.processed(event.Cursor)
	}
	g.backoff = firstBackoffSeconds
	if g.replay < 0 {
		g.alive()
	}
	return nil
}

func (g *gateway) isRepeated(cursor string) bool {
	return len(cursor) > 12 && strings.HasPrefix(g.cursor, cursor[:12]) && cursor <= g.cursor
}

// Every revocation up to now is known, which is good for a limited time.
func (g *gateway) alive() {
	g.serve()
	g.stale.Reset(seconds(*stale))
}

func main() {
	flag.Parse()
	if *connect == "" || *id == "" || *state == "" || *listen == "" {
		flag.Usage()
		os.Exit(2)
	}
	rand.Seed(time.Now().UnixNano())
	g := &gateway{position: openPosition(*state), backoff: firstBackoffSeconds}
	g.sessions = map[string]map[*session]bool{}
	g.stale = time.AfterFunc(seconds(*stale), func() { g.refuse("no stream has been alive") })
	if err := g.listen(*listen); err != nil {
		log.Fatal(err)
	}
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := g.subscribe(ctx)
	g.refuse("the gateway stops")
	g.close()
	os.Exit(code)
}
