package main

import (
	"io"
	"log"
	"log/slog"

	"example.com/curfew/cmd/curfew/internal/config"
)

// newLog returns the log with the configured level and format.
func newLog(w io.Writer, c *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serverLog returns the log of net/http's connection errors, at debug: most are caused by scanners.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
