package web

import (
	"net/http"
	"sync"
	"time"
)

// WriteTime is how long a client may take to read what was written to it, before more is.
const WriteTime = time.Minute

const writePart = 64 << 10 // bytes of one write

// Steady has an answer make progress, over HTTP/1 and HTTP/2: a write that takes [WriteTime], since the client does not
// read or opens no window for the stream, fails, and so do those after it. Between writes an answer may wait for as
// long as it likes. done must be called when the handler returns: it bounds what the server has still to write then.
func Steady(w http.ResponseWriter) (steady http.ResponseWriter, done func()) {
	s := &steadyWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	return s, s.done
}

type steadyWriter struct {
	http.ResponseWriter
	control *http.ResponseController

	mu    sync.Mutex
	timer *time.Timer
	began time.Time // the write under way; zero: there is none
}

// bounded calls a write.
func (s *steadyWriter) bounded(write func() error) error {
	s.mu.Lock()
	s.began = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(WriteTime, s.late)
	} else {
		s.timer.Reset(WriteTime)
	}
	s.mu.Unlock()
	err := write()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	s.began = time.Time{}
	return err
}

// late gives up the write under way. It is no deadline that is set ahead: over HTTP/2 that would end the answer also
// when nothing is being written.
func (s *steadyWriter) late() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.began.IsZero() && time.Since(s.began) >= WriteTime { // and not the one before it
		_ = s.control.SetWriteDeadline(time.Now())
	}
}

func (s *steadyWriter) done() { _ = s.control.SetWriteDeadline(time.Now().Add(WriteTime)) }

func (s *steadyWriter) Write(p []byte) (n int, err error) {
	for {
		part := p[n:min(len(p), n+writePart)]
		err := s.bounded(func() error {
			wrote, err := s.ResponseWriter.Write(part)
			n += wrote
			return err
		})
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// FlushError is for [http.ResponseController].
func (s *steadyWriter) FlushError() error { return s.bounded(s.control.Flush) }

// Unwrap lets [http.ResponseController] do the rest.
func (s *steadyWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
