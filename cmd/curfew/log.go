package main

import (
	"io"
	"log"
	"log/slog"

	"example.com/curfew/cmd/curfew/internal/config"
)

// newLog returns the log with the configured format, and its level, which can be changed.
func newLog(w io.Writer, c *config.Config) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}

// serverLog returns the log of net/http's connection errors, at debug: most are caused by scanners.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
