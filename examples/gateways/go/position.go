package main

import (
	"log"
	"os"
	"strings"
	"time"
)

const storeInterval = 100 * time.Millisecond

// The cursor of the last event that is processed. A goroutine of its own stores it.
type position struct {
	file   string
	cursor string
	moved  chan string // the cursor that is to be stored next
	stored chan bool   // closed after the last one
}

func openPosition(file string) position {
	text, _ := os.ReadFile(file)
	p := position{file, strings.TrimSpace(string(text)), make(chan string, 1), make(chan bool)}
	go p.store()
	return p
}

func (p *position) processed(cursor string) {
	if cursor == "" {
		return
	}
	p.cursor = cursor
	select {
	case <-p.moved: // the newer one takes its place
	default:
	}
	p.moved <- cursor
}

// Returns when the last cursor is stored.
func (p *position) close() {
	close(p.moved)
	<-p.stored
}

func (p *position) store() {
	defer close(p.stored)
	for cursor := range p.moved {
		if err := p.write(cursor); err != nil {
			log.Print("the cursor is not stored: ", err) // the older one stays: events repeat
		}
		time.Sleep(storeInterval)
	}
}

func (p *position) write(cursor string) error {
	file, err := os.Create(p.file + ".new")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(cursor); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(file.Name(), p.file)
}
