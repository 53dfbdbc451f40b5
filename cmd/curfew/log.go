package main

import (
	"io"
	"log"
	"log/slog"

	"example.com/curfew/cmd/curfew/internal/config"
)

// newLog returns the log that the configuration asks for.
func newLog(w io.Writer, c *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serverLog is where net/http complains about connections: often scanners, seldom us.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
