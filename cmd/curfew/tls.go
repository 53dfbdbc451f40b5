package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheckInterval is how often, at most, the certificate files are checked for a change.
const certificateCheckInterval = 5 * time.Second

// certificate is the certificate of the public listener. It is read again when its files have changed. If the new one
// cannot be used, the old one stays: the two files of a new certificate are not written at the same instant.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	state   [2]fileState
	checked time.Time
}

// fileState identifies one version of a file.
type fileState struct {
	changed time.Time
	size    int64
}

// newCertificate reads the files.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	return c, c.read()
}

func (c *certificate) read() error {
	stamps := c.fileStates()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s with the key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.state, c.checked = &pair, stamps, c.now()
	return nil
}

func (c *certificate) fileStates() (s [2]fileState) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return s
}

// get is for [tls.Config.GetCertificate].
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.checked) < certificateCheckInterval {
		return c.current, nil
	}
	c.checked = c.now()
	if c.fileStates() == c.state {
		return c.current, nil
	}
	if err := c.read(); err != nil {
		c.log.Warn("the changed certificate cannot be used; the old one stays in force",
			"event", "certificate_refused", "error", err.Error())
		return c.current, nil
	}
	c.log.Info("the certificate was read anew", "event", "certificate_reloaded")
	return c.current, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}
