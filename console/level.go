package console

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"example.com/curfew/audit"
	"example.com/curfew/web"
)

// LogLevel is the response about the level of the log.
type LogLevel struct {
	Level string `json:"level"` // "debug", "info", "warn" or "error"
	Was   string `json:"was,omitempty"`
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

func (c *Console) showLevel(context.Context, *http.Request) (any, error) {
	return LogLevel{Level: levelName(c.Level.Level())}, nil
}

// setLevel changes the level of the log of this process until it ends. That is recorded as what operators do is, and
// logged at every level: somebody who turns the log off leaves a trace.
func (c *Console) setLevel(ctx context.Context, r *http.Request) (any, error) {
	name := r.URL.Query().Get("level")
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, name) {
		return nil, web.Fail(http.StatusBadRequest, "level: want debug, info, warn or error", nil)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, err
	}
	was := levelName(c.Level.Level())
	c.Level.Set(level)
	c.Log.LogAttrs(ctx, max(slog.LevelWarn, level), "an operator changed the level of the log",
		slog.String("event", "log_level_changed"), slog.String("to", name), slog.String("was", was),
		slog.String("operator", operator(r)))
	c.record(r, audit.Event{Action: "log_level", Reason: "from " + was + " to " + name}, nil)
	return LogLevel{Level: name, Was: was}, nil
}
