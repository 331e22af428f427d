package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"unicode/utf8"

	pushv1 "galaxy/backend/proto/push/v1"
)

const queueEvents = 64

// Ask your backend here whether the session is valid: this accepts everybody.
func authenticate(ctx context.Context, user, session string) bool {
	return true
}

// A browser's stream of events, from before its authentication until ctx is done.
type session struct {
	name  string
	queue chan []byte
	ctx   context.Context
	end   context.CancelFunc // nothing is delivered any more
}

// Sessions, and server-sent events to them.
type browsers struct {
	mu       sync.Mutex // guards the rest
	sessions map[string]map[*session]bool
	serving  bool
}

func (b *browsers) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log.Print("listening on ", listener.Addr())
	http.HandleFunc("/events", b.events)
	http.HandleFunc("/healthz", b.healthz)
	go http.Serve(listener, nil)
	return nil
}

func (b *browsers) events(w http.ResponseWriter, r *http.Request) {
	user, name := r.FormValue("user"), r.FormValue("session")
	if user == "" || name == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	// The session can be revoked from here on. An invalidation that the backend's response does
	// not know of may come before that response.
	ctx, cancel := context.WithCancel(r.Context())
	s := &session{name, make(chan []byte, queueEvents), ctx, cancel}
	defer b.remove(user, s)
	if !b.add(user, s) || !authenticate(ctx, user, name) || ctx.Err() != nil {
		b.respond(w, http.StatusForbidden)
		return
	}
	// The connection is taken over: it can be closed while a write waits for the browser.
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	go func() {
		<-ctx.Done()
		conn.Close()
	}()
	go func() {
		io.Copy(io.Discard, conn) // until the browser disconnects
		cancel()
	}()
	text := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" +
		"Cache-Control: no-store\r\nConnection: close\r\n\r\n: open\n\n")
	for ctx.Err() == nil {
		conn.Write(text)
		select {
		case text = <-s.queue:
		case <-ctx.Done():
		}
	}
}

func (b *browsers) healthz(w http.ResponseWriter, _ *http.Request) {
	b.respond(w, http.StatusOK)
}

// Responds with this code, or that no session is served.
func (b *browsers) respond(w http.ResponseWriter, code int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.serving {
		code = http.StatusServiceUnavailable
	}
	w.WriteHeader(code)
}

// Returns whether sessions are served.
func (b *browsers) add(user string, s *session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[user] == nil {
		b.sessions[user] = map[*session]bool{}
	}
	b.sessions[user][s] = true
	return b.serving
}

func (b *browsers) remove(user string, s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.end()
	delete(b.sessions[user], s)
	if len(b.sessions[user]) == 0 {
		delete(b.sessions, user)
	}
}

func (b *browsers) isEmpty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions) == 0
}

// Calls f with the session of this name, or with all of the user if it is empty.
func (b *browsers) each(user, name string, f func(*session)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.sessions[user] {
		if name == "" || name == s.name {
			f(s)
		}
	}
}

func (b *browsers) forward(event *pushv1.ClientEvent) {
	content := map[string]any{"kind": event.Kind, "event_id": event.EventId}
	if utf8.Valid(event.Payload) {
		content["payload"] = string(event.Payload)
	} else {
		content["payload_base64"] = event.Payload
	}
	data, _ := json.Marshal(content)
	text := []byte(fmt.Sprintf("data: %s\n\n", data))
	b.each(event.UserId, event.DeviceSessionId, func(s *session) {
		select {
		case s.queue <- text:
		default:
			s.end() // the browser is too slow
		}
	})
}

func (b *browsers) revoke(invalidation *pushv1.SessionInvalidation, cursor string) {
	user, name, reason := invalidation.UserId, invalidation.DeviceSessionId, invalidation.Reason
	b.each(user, name, func(s *session) { s.end() })
	log.Printf("revoked: user %q, session %q, reason %q, cursor %s", user, name, reason, cursor)
}

func (b *browsers) serve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serving = true
}

// Ends every session, and opens none until serve is called.
func (b *browsers) refuse(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	log.Print("no session is served: ", reason)
	b.serving = false
	for _, sessions := range b.sessions {
		for s := range sessions {
			s.end()
		}
	}
}
