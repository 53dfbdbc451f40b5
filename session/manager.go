package session

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// The errors of a [Manager], beside those of a [Store].
var (
	// ErrRefreshRejected is what [Config.Refresh] answers when the provider refuses the refresh token for good.
	ErrRefreshRejected = errors.New("the provider rejected the refresh token")
	// ErrUnavailable: the store did not answer. Nobody is let in and nobody is signed out.
	ErrUnavailable = errors.New("the session store does not answer")
)

// Config is what a [Manager] needs. Only Store and Ring are required.
type Config struct {
	Store    Store
	Ring     *Ring
	Idle     time.Duration // a session that is not used for so long ends; default 2 h
	Absolute time.Duration // a session ends after so long in any case; default 24 h
	Ceiling  time.Duration // how long a cached session may be served when the feed is silent; default 1 s, negative: no cache
	Cached   int           // how many sessions are cached; default 100,000

	// Refresh gets new tokens for a session whose access token has run out: [ErrRefreshRejected] ends the session, any
	// other error means that the provider is away. nil: no session is ever refreshed.
	Refresh func(ctx context.Context, s *Session) (Tokens, error)
	Grace   time.Duration // for how long after its access token a session outlives a provider that is away; default 1 h

	Now       func() time.Time // default time.Now
	Log       *slog.Logger     // default slog.Default()
	OnCreated func(*Session)
	OnEnded   func(Ended) // once per ended session per process, whichever replica ended it
}

// New describes a session that is about to begin.
type New struct {
	Provider string
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Claims   map[string]any
	Tokens   Tokens
	Began    time.Time // when its login began
}
