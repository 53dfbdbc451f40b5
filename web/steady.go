package web

import (
	"net/http"
	"sync"
	"time"
)

// WriteTime is how long one write to a client may take.
const WriteTime = time.Minute

const writePart = 64 << 10 // bytes per write

// Steady limits each write of a response to [WriteTime], over HTTP/1 and HTTP/2: if the client does not read, or opens
// no window for the stream, the write fails, and so do those after it. Between writes a response may wait for any time.
// Call done when the handler returns: it sets the deadline for what the server still has to write.
func Steady(w http.ResponseWriter) (steady http.ResponseWriter, done func()) {
	s := &steadyWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	return s, s.done
}

type steadyWriter struct {
	http.ResponseWriter
	control *http.ResponseController

	mu    sync.Mutex
	timer *time.Timer
	began time.Time // of the current write; zero: none
}

// limited runs one write with the time limit.
func (s *steadyWriter) limited(write func() error) error {
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

// late gives up the current write. A deadline set in advance would, over HTTP/2, end the response even while nothing is
// being written.
func (s *steadyWriter) late() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.began.IsZero() && time.Since(s.began) >= WriteTime { // not the previous write
		_ = s.control.SetWriteDeadline(time.Now())
	}
}

func (s *steadyWriter) done() { _ = s.control.SetWriteDeadline(time.Now().Add(WriteTime)) }

func (s *steadyWriter) Write(p []byte) (n int, err error) {
	for {
		part := p[n:min(len(p), n+writePart)]
		err := s.limited(func() error {
			wrote, err := s.ResponseWriter.Write(part)
			n += wrote
			return err
		})
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// FlushError implements flushing for [http.ResponseController].
func (s *steadyWriter) FlushError() error { return s.limited(s.control.Flush) }

// Unwrap lets [http.ResponseController] use the other features.
func (s *steadyWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
