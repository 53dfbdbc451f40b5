package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateLook is how often, at most, the files of our certificate are looked at for a change.
const certificateLook = 5 * time.Second

// certificate is our own certificate, read anew when its files have changed. A change that cannot be used leaves the
// old one in force, since the two files of a new certificate are not written at the same instant.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]stamp
	looked  time.Time
}

// stamp tells one state of a file from another.
type stamp struct {
	changed time.Time
	size    int64
}

// newCertificate reads the files.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	return c, c.read()
}

func (c *certificate) read() error {
	stamps := c.stamps()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s with the key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.stamp, c.looked = &pair, stamps, c.now()
	return nil
}

func (c *certificate) stamps() (s [2]stamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

// get is for tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.looked) < certificateLook {
		return c.current, nil
	}
	c.looked = c.now()
	if c.stamps() == c.stamp {
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
